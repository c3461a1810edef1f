"""The result of a check."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from otel_cloudwatch_flask.commands.shared.aws import REMEDIES
from otel_cloudwatch_flask.delivery.error_codes import failure

Status: TypeAlias = Literal["ok", "problem", "unknown"]


@dataclass(frozen=True, slots=True)
class Check:
    """The result of a check: a finding and, if there is one, a remedy.

    ``section`` is the title under which ``doctor``, which sets it, shows the check. ``is_default`` is true if the check
    is about a setting left at its default. ``doctor`` shows such checks only with ``--verbose``.
    """

    section: str = field(default="", kw_only=True)
    status: Status
    finding: str
    remedy: str = ""
    is_default: bool = False


def failed(finding: str, error: Exception) -> Check:
    """Return the problem that boto3 or an AWS service raised ``error``, with its remedy."""
    found = failure(error)
    return Check("problem", f"{finding}: {found.message}", REMEDIES[found.kind])
