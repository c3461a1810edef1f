"""What the commands ask of AWS: the commands' only module that knows boto3."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

from otel_cloudwatch_flask.commands.shared.document import SeenSeries
from otel_cloudwatch_flask.commands.shared.usage import Unusable
from otel_cloudwatch_flask.delivery import boto_client
from otel_cloudwatch_flask.delivery.error_codes import Failure, Kind, failure
from otel_cloudwatch_flask.runtime.safe_text import without_secrets

_CONNECT_SECONDS: Final = 3.0
_READ_SECONDS: Final = 5.0
PROBE_METRIC: Final = "otel_cloudwatch_flask.doctor"
_SECRET_VARIABLES: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")
_HIDDEN: Final = "***"

REMEDIES: Final[Mapping[Kind, str]] = {
    Kind.THROTTLED: "CloudWatch takes no more calls just now: wait, and call less often with FLUSH=interval.",
    Kind.SERVER: "That is CloudWatch's own trouble: wait, and try again.",
    Kind.NETWORK: "Look at the network, proxies (HTTPS_PROXY) and AWS_ENDPOINT_URL_CLOUDWATCH.",
    Kind.CREDENTIALS: "Attach the policy that the command policy prints, or renew the credentials.",
    Kind.CONFIGURATION: "Set AWS_REGION, and AWS_PROFILE to a profile that exists.",
    Kind.REFUSED: "Look at the namespace: CloudWatch refuses it.",
    Kind.UNKNOWN: "Try again, and look at the message.",
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where credentials come from, and until when they hold; never what they are."""

    method: str
    expires: datetime | None


@dataclass(frozen=True, slots=True)
class Answer:
    """How an endpoint answers: after how long, and how far its clock is ahead of ours, in seconds, if it says so."""

    seconds: float
    clock_ahead_seconds: float | None


@contextmanager
def errors_explained() -> Iterator[None]:
    """Turn what boto3 raises into an :class:`Unusable` that says what to do."""
    try:
        yield
    except Unusable:
        raise
    except Exception as error:  # the boundary to boto3, which raises errors of a hundred classes
        found = failure(error)
        raise Unusable(f"{found.message} {REMEDIES[found.kind]}") from error


def cloudwatch_client(region_name: str | None = None) -> Any:
    """A client like the exporter's."""
    return boto_client.client_factory(region_name)()


def endpoint_of(client: Any) -> str | None:
    """The URL that a client calls, without what may be secret in it; ``None`` if it is not boto3's."""
    url = getattr(getattr(client, "meta", None), "endpoint_url", None)
    if not isinstance(url, str):
        return None
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


def region_of(client: Any) -> str | None:
    """The Region of a client."""
    return getattr(getattr(client, "meta", None), "region_name", None)


def credentials() -> Credentials | None:
    """What boto3 finds, with temporary credentials renewed if need be; ``None`` if it finds none.

    Raises whatever boto3 raises where it finds some and cannot get them.
    """
    import boto3  # noqa: PLC0415 - slow to import

    found = boto3.Session().get_credentials()
    if found is None:
        return None
    found.get_frozen_credentials()
    expires = getattr(found, "_expiry_time", None)
    return Credentials(str(found.method), expires if isinstance(expires, datetime) else None)


def secrets(environ: Mapping[str, str], given: Iterable[str | None] = ()) -> list[str]:
    """What must not be printed: the keys and tokens in the environment, those given, and those that boto3 finds."""
    known = {environ.get(name) for name in _SECRET_VARIABLES} | {*given}
    with suppress(Exception):  # who has none, or cannot get them, has nothing to hide
        import boto3  # noqa: PLC0415 - slow to import

        found = boto3.Session().get_credentials()
        known |= {*found.get_frozen_credentials()} if found else set()
    return sorted({each for each in known if isinstance(each, str) and each}, key=len, reverse=True)


def redacted(text: str, hidden: Iterable[str]) -> str:
    """A message of boto3's or AWS's without keys, tokens and the passwords of URLs.

    AWS answers a wrong signature with what it should have been made of, and that has the session's token.
    """
    for secret in hidden:
        text = text.replace(secret, _HIDDEN)
    return without_secrets(text)


def ask_endpoint(url: str) -> Answer:
    """Call an endpoint without credentials: it refuses that, with its time. Raises what botocore raises."""
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
    return Answer(seconds, _clock_ahead(response.headers.get("Date"), begun_unix + seconds / 2))


def send_probe(client: Any, namespace: str) -> Failure | None:
    """Publish one datum; why that failed, or ``None``."""
    datum = {
        "MetricName": PROBE_METRIC,
        "Value": 1.0,
        "Unit": "Count",
        "Timestamp": datetime.now(timezone.utc),
    }
    try:
        client.put_metric_data(Namespace=namespace, MetricData=[datum])
    except Exception as error:  # noqa: BLE001 - the boundary to a client of anybody's
        return failure(error)
    return None


def listed_series(client: Any, namespaces: Iterable[str]) -> Iterator[SeenSeries]:
    """What ListMetrics has of the namespaces; it knows no units."""
    for namespace in namespaces:
        for page in client.get_paginator("list_metrics").paginate(Namespace=namespace):
            for metric in page["Metrics"]:
                pairs = sorted((each["Name"], each["Value"]) for each in metric["Dimensions"])
                yield SeenSeries(namespace, metric["MetricName"], tuple(pairs))


def put_dashboard(client: Any, name: str, body: str) -> list[str]:
    """Create or replace a dashboard; what CloudWatch has to say about it."""
    answer = client.put_dashboard(DashboardName=name, DashboardBody=body)
    return [str(each.get("Message", each)) for each in answer.get("DashboardValidationMessages") or ()]


def _clock_ahead(date: str | None, now: float) -> float | None:
    try:
        # The header is cut to the second: on average it is half a second old.
        return parsedate_to_datetime(date or "").timestamp() + 0.5 - now
    except (TypeError, ValueError):
        return None
