"""Explain why metrics are not delivered, and what to do about it, with lines that the page's visitor can copy."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from otel_cloudwatch_flask.delivery.error_codes import Failure, Kind

_IAM_STATEMENT: Final = {"Effect": "Allow", "Action": "cloudwatch:PutMetricData", "Resource": "*"}
_DOCTOR: Final = "flask cloudwatch doctor"


@dataclass(frozen=True, slots=True)
class Step:
    """A sentence in the imperative, and the text to copy for it."""

    text: str
    copy: str


@dataclass(frozen=True, slots=True)
class Remedy:
    """What is wrong, and the steps of which one or more solve the problem."""

    problem: str
    steps: tuple[Step, ...]


_DRY_RUN: Final = Step(
    "Or try it without AWS. Add this line above the reporter, and nothing is sent:",
    'app.config["CLOUDWATCH_DRY_RUN"] = True',
)
_REGION: Final = Step("Set the Region to publish in, and restart the app:", "export AWS_REGION=us-east-1")
_PROFILE: Final = Step("Check the name of the profile, and restart the app:", "aws configure list-profiles")
_SIGN_IN: Final = Step("Sign in or configure access keys, and restart the app:", "aws configure")
_RENEW: Final = Step("Renew the credentials:", "aws sso login")
_PERMISSION: Final = Step("Add this statement to the IAM policy of the credentials:", json.dumps(_IAM_STATEMENT))
_DIAGNOSE: Final = Step("Find out which of your credentials are used, and what they may do:", _DOCTOR)

_REMEDIES: Final[Mapping[Kind, Remedy]] = {
    Kind.CONFIGURATION: Remedy("The AWS configuration is not valid.", (_REGION, _PROFILE)),
    Kind.CREDENTIALS: Remedy("AWS does not accept the credentials.", (_DIAGNOSE,)),
    Kind.THROTTLED: Remedy(
        "CloudWatch throttles the calls.", (Step("Call it less often:", 'app.config["CLOUDWATCH_FLUSH"] = "interval"'),)
    ),
    Kind.NETWORK: Remedy(
        "CloudWatch cannot be reached.", (Step("Check the network, proxies and the endpoint:", _DOCTOR),)
    ),
    Kind.STREAM: Remedy("The EMF lines cannot be written: standard output is closed, or nothing reads it.", ()),
    Kind.SERVER: Remedy("CloudWatch has an internal error. Wait, or check the AWS Health Dashboard.", ()),
    Kind.REFUSED: Remedy("CloudWatch refuses some data points.", (Step("Check the metrics of the app:", _DOCTOR),)),
    Kind.UNKNOWN: Remedy("The call to CloudWatch fails.", (Step("Look for the cause:", _DOCTOR),)),
}

# By a part of the message: the error's class or code, which the kind does not tell apart.
_BY_MESSAGE: Final[Mapping[str, Remedy]] = {
    "NoRegionError": Remedy("No AWS Region is configured.", (_REGION,)),
    "ProfileNotFound": Remedy("The AWS profile does not exist.", (_PROFILE,)),
    "NoCredentialsError": Remedy("No AWS credentials are configured.", (_SIGN_IN,)),
    "Expired": Remedy("The AWS credentials have expired.", (_RENEW,)),
    "SSO": Remedy("The AWS credentials have expired.", (_RENEW,)),
    "AccessDenied": Remedy("The AWS credentials lack the permission to publish metrics.", (_PERMISSION,)),
}
_NEED_AN_ACCOUNT: Final = (Kind.CONFIGURATION, Kind.CREDENTIALS)


def remedy_document(failure: Failure | None, *, is_debug: bool) -> dict[str, Any] | None:
    """Return the problem and its remedy for a failed call, or ``None`` if the call succeeded.

    If the Region or the credentials are the problem, a dry run is offered too, but only in debug mode.
    """
    if failure is None:
        return None
    found = next((each for part, each in _BY_MESSAGE.items() if part in failure.message), _REMEDIES[failure.kind])
    offered = (_DRY_RUN,) if is_debug and failure.kind in _NEED_AN_ACCOUNT else ()
    return asdict(Remedy(found.problem, (*found.steps, *offered)))
