"""The result of a check."""

from collections.abc import Iterable, Iterator
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


def until_failure(checks: Iterable[Check], finding: str) -> Iterator[Check]:
    """Yield ``checks`` and, if a check raises an exception of boto3 or AWS, a problem with ``finding`` and a remedy."""
    try:
        yield from checks
    except Exception as error:  # noqa: BLE001 - boto3 raises many unrelated classes
        found = failure(error)
        yield Check("problem", f"{finding}: {found.message}", REMEDIES[found.kind])
