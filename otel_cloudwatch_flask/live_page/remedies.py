"""Explain why metrics are not delivered, and suggest commands, code or IAM statements to copy as a remedy."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from otel_cloudwatch_flask.delivery.error_codes import Failure, Kind

_IAM_STATEMENT: Final = {"Effect": "Allow", "Action": "cloudwatch:PutMetricData", "Resource": "*"}
_DOCTOR: Final = "flask cloudwatch doctor"


@dataclass(frozen=True, slots=True)
class Step:
    """An instruction, and the command or code to copy for it."""

    text: str
    copy: str


@dataclass(frozen=True, slots=True)
class Remedy:
    """A problem, and alternative ways to fix it."""

    problem: str
    steps: tuple[Step, ...]


_DRY_RUN: Final = Step(
    "To try the page without AWS, add this line before the reporter is created:",
    'app.config["CLOUDWATCH_DRY_RUN"] = True',
)
_REGION: Final = Step("Set the Region to publish to, and restart the app:", "export AWS_REGION=us-east-1")
_PROFILE: Final = Step(
    "List the profiles, set AWS_PROFILE to one of them, and restart the app:", "aws configure list-profiles"
)
_SIGN_IN: Final = Step("Configure access keys:", "aws configure")
_RENEW: Final = Step("Renew the credentials, for example by signing in again:", "aws sso login")
_PERMISSION: Final = Step("Add this statement to a policy of the app's IAM role or user:", json.dumps(_IAM_STATEMENT))
_DIAGNOSE: Final = Step("Check the credentials and the system clock:", _DOCTOR)

_REMEDIES: Final[Mapping[Kind, Remedy]] = {
    Kind.CONFIGURATION: Remedy("The AWS configuration is not valid.", (_REGION, _PROFILE)),
    Kind.CREDENTIALS: Remedy("The AWS credentials do not work.", (_DIAGNOSE,)),
    Kind.THROTTLED: Remedy(
        "CloudWatch throttles the calls.",
        (
            Step(
                "To send fewer requests, add this line before the reporter is created:",
                'app.config["CLOUDWATCH_FLUSH"] = "interval"',
            ),
        ),
    ),
    Kind.NETWORK: Remedy(
        "CloudWatch cannot be reached.", (Step("Check the network, proxies and the endpoint:", _DOCTOR),)
    ),
    Kind.STREAM: Remedy("EMF lines cannot be written: the stream is closed, or its reader does not keep up.", ()),
    Kind.SERVER: Remedy("CloudWatch returned an internal error. Wait, or check the AWS Health Dashboard.", ()),
    Kind.REFUSED: Remedy(
        "CloudWatch refuses some data points.", (Step("Check the configuration of the app:", _DOCTOR),)
    ),
    Kind.UNKNOWN: Remedy("The last call to CloudWatch failed.", (Step("Find the cause:", _DOCTOR),)),
}

_SSO: Final = Remedy("The AWS SSO credentials are missing or have expired.", (_RENEW,))
# Keyed by a part of the error's class or code. Errors of one kind may need different remedies.
_BY_ERROR: Final[Mapping[str, Remedy]] = {
    "NoRegionError": Remedy("No AWS Region is configured.", (_REGION,)),
    "ProfileNotFound": Remedy("The AWS profile does not exist.", (_PROFILE,)),
    "NoCredentialsError": Remedy("No AWS credentials are configured.", (_SIGN_IN,)),
    "ExpiredToken": Remedy("The AWS credentials have expired.", (_RENEW,)),
    "SSO": _SSO,
    "TokenRetrievalError": _SSO,  # if the profile has an sso-session
    "AccessDenied": Remedy("The AWS credentials lack the permission to publish metrics.", (_PERMISSION,)),
}
_NEED_AN_ACCOUNT: Final = (Kind.CONFIGURATION, Kind.CREDENTIALS)


def remedy_document(failure: Failure | None, *, is_debug: bool) -> dict[str, Any] | None:
    """Return the problem and its remedy for a failed call, or ``None`` if the call succeeded.

    If the Region or the credentials are the problem, the remedy also suggests a dry run, but only in debug mode.
    """
    if failure is None:
        return None
    # The class or code comes first. The text after it may contain other names, such as the role AWSReservedSSO_Dev.
    error = failure.message.partition(": ")[0]
    found = next((each for part, each in _BY_ERROR.items() if part in error), _REMEDIES[failure.kind])
    offered = (_DRY_RUN,) if is_debug and failure.kind in _NEED_AN_ACCOUNT else ()
    return asdict(Remedy(found.problem, (*found.steps, *offered)))
