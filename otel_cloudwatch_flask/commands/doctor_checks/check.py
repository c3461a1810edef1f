"""The result of a check."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Status: TypeAlias = Literal["ok", "problem", "unknown"]


@dataclass(frozen=True, slots=True)
class Check:
    """A finding in one sentence, with a remedy if it is a problem or could not be checked.

    ``is_default`` marks settings with default values, which ``doctor`` shows only with ``--verbose``.
    """

    section: str
    status: Status
    finding: str
    remedy: str = ""
    is_default: bool = False
