"""The result of one check."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Status: TypeAlias = Literal["ok", "problem", "unknown"]


@dataclass(frozen=True, slots=True)
class Check:
    """A finding in one sentence, and the remedy for a problem or for something that could not be checked."""

    section: str
    status: Status
    finding: str
    remedy: str = ""
