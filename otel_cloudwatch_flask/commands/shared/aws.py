"""Call AWS, and explain its errors. No other module in ``commands`` imports boto3."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

from otel_cloudwatch_flask.commands.shared.command import CommandError
from otel_cloudwatch_flask.commands.shared.document import SeriesSummary
from otel_cloudwatch_flask.delivery import boto_client
from otel_cloudwatch_flask.delivery.error_codes import Kind, failure
from otel_cloudwatch_flask.runtime.safe_text import without_secrets

_CONNECT_SECONDS: Final = 3.0
_READ_SECONDS: Final = 5.0
PROBE_METRIC: Final = "otel_cloudwatch_flask.doctor"
_SECRET_VARIABLES: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")
_HIDDEN: Final = "***"

REMEDIES: Final[Mapping[Kind, str]] = {
    Kind.THROTTLED: "CloudWatch throttles your calls: wait, and reduce the call rate with FLUSH=interval.",
    Kind.SERVER: "CloudWatch returned an internal error: wait, and try again.",
    Kind.NETWORK: "Check the network, proxies (HTTPS_PROXY) and AWS_ENDPOINT_URL_CLOUDWATCH.",
    Kind.CREDENTIALS: "Renew the credentials, or grant the missing permission. To publish, attach the policy that the "
    "policy command prints.",
    Kind.CONFIGURATION: "Set AWS_REGION; if AWS_PROFILE is set, check that the profile exists.",
    Kind.REFUSED: "CloudWatch rejected the request: check the namespace.",
    Kind.UNKNOWN: "Check the error message, and try again.",
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """The name of the provider that supplies the credentials, and their expiry time. Contains no secrets."""

    method: str
    expires: datetime | None


@dataclass(frozen=True, slots=True)
class EndpointResponse:
    """An endpoint's response time, and how far its clock is ahead of this machine's clock.

    ``clock_ahead_seconds`` is ``None`` if the response had no valid date.
    """

    seconds: float
    clock_ahead_seconds: float | None


@contextmanager
def errors_explained() -> Iterator[None]:
    """Convert any exception in the ``with`` block, such as boto3's, to a :class:`CommandError` with a remedy."""
    try:
        yield
    except Exception as error:  # boto3 raises many unrelated classes
        found = failure(error)
        raise CommandError(f"{found.message} {REMEDIES[found.kind]}") from error


def cloudwatch_client(region_name: str | None = None, **keys: str) -> Any:
    """Create a boto3 client as the exporter does, with the access keys in ``keys`` if there are any."""
    return boto_client.client_factory(region_name, **keys)()


def endpoint_of(client: Any) -> str | None:
    """Return a boto3 client's endpoint URL, without the user name and password, or ``None`` for any other client."""
    url = getattr(getattr(client, "meta", None), "endpoint_url", None)
    if not isinstance(url, str):
        return None
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def credentials() -> Credentials | None:
    """Load and describe the credentials that boto3 finds. Returns ``None`` if boto3 finds no credentials.

    Raises boto3's exceptions if a provider is configured but fails.
    """
    import boto3  # noqa: PLC0415 - slow to import

    found = boto3.Session().get_credentials()
    if found is None:
        return None
    found.get_frozen_credentials()
    expires = getattr(found, "_expiry_time", None)
    return Credentials(str(found.method), expires if isinstance(expires, datetime) else None)


def secrets(environ: Mapping[str, str], given: Iterable[str | None]) -> list[str]:
    """Return all AWS keys and tokens in ``environ``, those in ``given`` and those that boto3 finds, longest first."""
    known = {environ.get(name) for name in _SECRET_VARIABLES} | {*given}
    with suppress(Exception):  # without credentials there is nothing to redact
        import boto3  # noqa: PLC0415 - slow to import

        if found := boto3.Session().get_credentials():
            frozen = found.get_frozen_credentials()
            known |= {frozen.access_key, frozen.secret_key, frozen.token}  # not the account ID, which is not a secret
    # Longest first: if a secret is part of a longer secret, the longer one must be replaced first.
    return sorted(filter(None, known), key=len, reverse=True)


def redacted(text: str, hidden: Iterable[str]) -> str:
    """Mask the secrets in ``hidden``, and those that :func:`without_secrets` masks, in a message from boto3 or AWS.

    If a signature is wrong, AWS's message includes the expected string to sign, which contains the session token.
    """
    for secret in hidden:
        text = text.replace(secret, _HIDDEN)
    return without_secrets(text)


def call_endpoint(url: str) -> EndpointResponse:
    """Send an unsigned GET request to measure the response time and the clock difference.

    AWS refuses the request, but its response includes a ``Date`` header. Raises botocore's exceptions if there is no
    response.
    """
    import botocore.session  # noqa: PLC0415 - slow to import
    from botocore.awsrequest import AWSRequest  # noqa: PLC0415
    from botocore.httpsession import URLLib3Session  # noqa: PLC0415
    from botocore.utils import get_environ_proxies  # noqa: PLC0415

    bundle = botocore.session.get_session().get_config_variable("ca_bundle")
    timeouts: Any = (_CONNECT_SECONDS, _READ_SECONDS)
    http = URLLib3Session(timeout=timeouts, proxies=get_environ_proxies(url), verify=bundle or True)
    begun, begun_unix = time.monotonic(), time.time()
    response = http.send(AWSRequest("GET", url).prepare())
    seconds = time.monotonic() - begun
    # The server is assumed to have set the date in the middle of the round trip.
    return EndpointResponse(seconds, _clock_ahead(response.headers.get("Date"), begun_unix + seconds / 2))


def send_probe(client: Any, namespace: str) -> None:
    """Publish one datum of ``PROBE_METRIC``. Raises the client's exceptions."""
    datum = {"MetricName": PROBE_METRIC, "Value": 1.0, "Unit": "Count", "Timestamp": datetime.now(timezone.utc)}
    client.put_metric_data(Namespace=namespace, MetricData=[datum])


def listed_series(client: Any, namespaces: Iterable[str]) -> Iterator[SeriesSummary]:
    """Yield the metrics that ListMetrics returns for ``namespaces``, without units or statistics."""
    for namespace in namespaces:
        for page in client.get_paginator("list_metrics").paginate(Namespace=namespace):
            for metric in page["Metrics"]:
                pairs = sorted((each["Name"], each["Value"]) for each in metric["Dimensions"])
                yield SeriesSummary(namespace, metric["MetricName"], tuple(pairs))


def scalable_dimensions() -> list[str]:
    """Return the scalable dimensions that botocore's model of Application Auto Scaling lists."""
    import botocore.session  # noqa: PLC0415 - slow to import

    model = botocore.session.get_session().get_service_model("application-autoscaling")
    return sorted(model.shape_for("ScalableDimension").metadata["enum"])


def put_dashboard(client: Any, name: str, body: str) -> list[str]:
    """Create or replace a dashboard, and return CloudWatch's validation messages."""
    response = client.put_dashboard(DashboardName=name, DashboardBody=body)
    return [str(each["Message"]) for each in response.get("DashboardValidationMessages", ())]


def _clock_ahead(date: str | None, now: float) -> float | None:
    try:
        # The header is truncated to whole seconds, so the server's time is half a second later on average.
        return parsedate_to_datetime(date or "").timestamp() + 0.5 - now
    except (TypeError, ValueError):
        return None
