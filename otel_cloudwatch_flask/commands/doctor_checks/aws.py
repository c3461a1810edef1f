"""Whether CloudWatch can be reached, and would take what is sent: the doctor's second page."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final

from otel_cloudwatch_flask.commands.doctor_checks.check import Check
from otel_cloudwatch_flask.commands.shared import aws
from otel_cloudwatch_flask.commands.shared.user_app import UserApp
from otel_cloudwatch_flask.delivery.error_codes import failure

SECTION: Final = "AWS"
_CLOCK_TOLERANCE_SECONDS: Final = 60.0
"""Beyond it metrics stand in the wrong minute; beyond 300 AWS refuses signatures."""
_NO_CREDENTIALS: Final = (
    "Give the server a role; or on your own machine, run aws configure or set AWS_PROFILE. Until then metrics are kept."
)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where metrics would go: with the client that the program gave, or one that is made; to a namespace."""

    client: Any
    has_own_keys: bool
    region_name: str | None
    namespace: str | None

    @classmethod
    def of(cls, user_app: UserApp, namespace: str | None) -> "Destination":
        """That of the app, or of the environment."""
        return cls(user_app.client, bool(user_app.keys_given), user_app.usable_value("REGION"), namespace)


def aws_checks(destination: Destination, *, sends: bool) -> Iterator[Check]:
    """Credentials, Region and endpoint, whether that answers, whether the clocks agree, and if wanted, a probe."""
    if destination.client is not None and aws.endpoint_of(destination.client) is None:
        kind = type(destination.client).__name__
        yield Check(SECTION, "right", f"The program gives a client of its own, a {kind}: the rest is that client's.")
    else:
        yield from _boto3_checks(destination)
    yield _permission(destination, sends=sends)


def _boto3_checks(destination: Destination) -> Iterator[Check]:
    yield _credentials(destination)
    try:
        client = destination.client or aws.cloudwatch_client(destination.region_name)
    except Exception as error:  # noqa: BLE001 - the boundary to boto3, which raises errors of a hundred classes
        found = failure(error)
        yield Check(SECTION, "wrong", f"No client can be made: {found.message}", aws.REMEDIES[found.kind])
        return
    yield Check(SECTION, "right", f"Region {aws.region_of(client)}, endpoint {aws.endpoint_of(client)}.")
    yield from _endpoint(str(aws.endpoint_of(client)))


def _credentials(destination: Destination) -> Check:
    if destination.client is not None:
        return Check(SECTION, "right", "Credentials are those of the client that the program gives.")
    if destination.has_own_keys:
        return Check(SECTION, "right", "Credentials are the keys that the program gives; they do not expire.")
    try:
        found = aws.credentials()
    except Exception as error:  # noqa: BLE001 - the boundary to boto3
        reason = failure(error)
        return Check(SECTION, "wrong", f"Credentials cannot be had: {reason.message}", aws.REMEDIES[reason.kind])
    if found is None:
        return Check(SECTION, "wrong", "boto3 finds no credentials.", _NO_CREDENTIALS)
    return Check(SECTION, "right", f"Credentials from {found.method}; {_expiry(found.expires)}.")


def _expiry(expires: datetime | None) -> str:
    if expires is None:
        return "they do not expire, as far as boto3 knows"
    minutes = (expires - datetime.now(timezone.utc)).total_seconds() / 60
    return f"they expire in {minutes:.0f} minutes, and are renewed before"


def _endpoint(url: str) -> Iterator[Check]:
    try:
        answer = aws.ask_endpoint(url)
    except Exception as error:  # noqa: BLE001 - the boundary to botocore
        found = failure(error)
        yield Check(SECTION, "wrong", f"The endpoint does not answer: {found.message}", aws.REMEDIES[found.kind])
        return
    yield Check(SECTION, "right", f"The endpoint answers, in {answer.seconds * 1000:.0f} ms.")
    yield _clock(answer.clock_ahead_seconds)


def _clock(ahead_seconds: float | None) -> Check:
    if ahead_seconds is None:
        return Check(SECTION, "unknown", "The endpoint does not say what time it is.", "Compare the clock yourself.")
    if abs(ahead_seconds) <= _CLOCK_TOLERANCE_SECONDS:
        return Check(SECTION, "right", f"The clock agrees with the endpoint's, to {abs(ahead_seconds):.0f} s.")
    off = f"{abs(ahead_seconds):.0f} s {'slow' if ahead_seconds > 0 else 'fast'}"
    remedy = "Set it, with NTP: metrics stand in the wrong minute, and from 300 s on AWS refuses what is signed."
    return Check(SECTION, "wrong", f"The clock is {off}.", remedy)


def _permission(destination: Destination, *, sends: bool) -> Check:
    if not sends:
        remedy = f"--send publishes one datum, {aws.PROBE_METRIC}, and says what comes of it."
        return Check(SECTION, "unknown", "Whether publishing is allowed was not tried.", remedy)
    if not destination.namespace:
        return Check(SECTION, "wrong", "There is no namespace to publish a probe to.", "Give --namespace.")
    try:
        client = destination.client or aws.cloudwatch_client(destination.region_name)
    except Exception as error:  # noqa: BLE001 - the boundary to boto3
        return _refused(failure(error))
    found = aws.send_probe(client, destination.namespace)
    if found is not None:
        return _refused(found)
    return Check(SECTION, "right", f"CloudWatch took a probe, {aws.PROBE_METRIC} in {destination.namespace}.")


def _refused(found: Any) -> Check:
    return Check(SECTION, "wrong", f"CloudWatch did not take a probe: {found.message}", aws.REMEDIES[found.kind])
