"""What a doctor says: one finding each, with what to do about it."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Status: TypeAlias = Literal["right", "wrong", "unknown"]


@dataclass(frozen=True, slots=True)
class Check:
    """A finding: what was looked at, in a sentence, and the remedy if it is wrong or could not be looked at."""

    section: str
    status: Status
    finding: str
    remedy: str = ""
