"""The result of a check."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Status: TypeAlias = Literal["ok", "problem", "unknown"]


@dataclass(frozen=True, slots=True)
class Check:
    """The result of a check: a finding and, if there is one, a remedy.

    ``is_default`` is true if the check is about a setting left at its default. ``doctor`` shows such checks only with
    ``--verbose``.
    """

    section: str
    status: Status
    finding: str
    remedy: str = ""
    is_default: bool = False
