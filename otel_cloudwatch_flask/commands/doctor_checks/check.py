"""The result of one check."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Status: TypeAlias = Literal["ok", "problem", "unknown"]


@dataclass(frozen=True, slots=True)
class Check:
    """A finding in one sentence, and the remedy for a problem or for something that could not be checked.

    ``is_default`` marks settings that have their default, which ``doctor`` shows only with ``--verbose``.
    """

    section: str
    status: Status
    finding: str
    remedy: str = ""
    is_default: bool = False
