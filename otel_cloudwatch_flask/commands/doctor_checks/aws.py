"""Check the credentials, the Region, the endpoint, the clock and the permission to publish."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Final

from otel_cloudwatch_flask.commands.doctor_checks.check import Check, until_failure
from otel_cloudwatch_flask.commands.shared import aws

_CLOCK_TOLERANCE_SECONDS: Final = 60.0
"""A larger clock error puts metrics in the wrong minute. If it reaches 300 seconds, AWS refuses request signatures."""
_NO_CREDENTIALS: Final = (
    "Attach a role to the server or, on your own machine, run aws configure or set AWS_PROFILE. Until then, metrics "
    "are buffered."
)
_METHOD_NAMES: Final = {"env": "environment variables", "iam-role": "instance role", "container-role": "container role"}
"""Descriptions of credential providers whose names in botocore are not self-explanatory."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where an app's metrics go: the client and the access keys that the app passes, if any, Region and namespace."""

    client: Any = None
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    region_name: str | None = None
    namespace: str | None = None

    def publishing_client(self) -> Any:
        """Return the app's client or, if it passes none, a new one like the exporter's. Raises boto3's exceptions."""
        return self.client or aws.cloudwatch_client(self.region_name, **self.keys)


def aws_checks(target: Target, *, sends: bool) -> Iterator[Check]:
    """Check credentials, Region, endpoint and clock. If ``sends`` is true, also publish one datum."""
    if target.client is not None and aws.endpoint_of(target.client) is None:
        kind = type(target.client).__name__
        # The client is not a boto3 client, so its endpoint and Region are unknown and cannot be checked.
        yield Check("ok", f"The app passes its own client, a {kind}, which handles credentials and network access.")
    else:
        yield from until_failure(_credentials(target), "Cannot load credentials")
        yield from until_failure(_client(target), "Cannot create a boto3 client")
    yield from until_failure(_permission(target, sends=sends), "Cannot publish a data point")


def _credentials(target: Target) -> Iterator[Check]:
    if target.client is not None:
        yield Check("ok", "Credentials: from the client that the app passes.")
    elif target.keys:
        yield Check("ok", "Credentials: access keys that the app passes (no expiry).")
    elif found := aws.credentials():
        method = _METHOD_NAMES.get(found.method, found.method)
        yield Check("ok", f"Credentials: {method} ({_expiry(found.expires)}).")
    else:
        yield Check("problem", "boto3 finds no credentials.", _NO_CREDENTIALS)


def _expiry(expires: datetime | None) -> str:
    if expires is None:
        return "no known expiry"
    minutes = (expires - datetime.now(timezone.utc)).total_seconds() / 60
    return f"expire in {minutes:.0f} minutes, refreshed automatically"


def _client(target: Target) -> Iterator[Check]:
    client = target.publishing_client()
    url = str(aws.endpoint_of(client))
    yield Check("ok", f"Region: {client.meta.region_name}, endpoint: {url}.")
    yield from until_failure(_endpoint(url), "The endpoint does not respond")


def _endpoint(url: str) -> Iterator[Check]:
    response = aws.call_endpoint(url)
    yield Check("ok", f"The endpoint responds in {response.seconds * 1000:.0f} ms.")
    yield _clock(response.clock_ahead_seconds)


def _clock(ahead_seconds: float | None) -> Check:
    if ahead_seconds is None:
        return Check("unknown", "The endpoint sent no Date header.", "Check the system clock yourself.")
    if abs(ahead_seconds) <= _CLOCK_TOLERANCE_SECONDS:
        return Check("ok", f"The system clock is accurate to {max(abs(ahead_seconds), 1):.0f} s.")
    off = f"{abs(ahead_seconds):.0f} s {'slow' if ahead_seconds > 0 else 'fast'}"
    remedy = (
        "Synchronize it with NTP. Otherwise, metrics get wrong timestamps, and AWS rejects requests if the error is "
        "300 s or more."
    )
    return Check("problem", f"The system clock is {off}.", remedy)


def _permission(target: Target, *, sends: bool) -> Iterator[Check]:
    # Only publishing can prove the permission, because PutMetricData has no dry run.
    if not sends:
        remedy = f"Pass --send to publish one data point of {aws.PROBE_METRIC}."
        yield Check("unknown", "The permission to publish was not checked.", remedy)
    elif not target.namespace:
        yield Check("problem", "There is no namespace to publish to.", "Pass --namespace.")
    else:
        aws.send_probe(target.publishing_client(), target.namespace)
        yield Check("ok", f"CloudWatch accepted a data point of {aws.PROBE_METRIC} in {target.namespace}.")
