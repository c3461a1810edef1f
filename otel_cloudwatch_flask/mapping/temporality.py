"""Cumulative points as deltas, and deltas of what goes up and down as current values.

CloudWatch adds up what it is sent, so a running total must never be sent as it is. Our own reader asks the SDK for
deltas; under any other reader, cumulative points are turned into deltas here.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

from otel_cloudwatch_flask.histograms.buckets import Histogram


@dataclass(frozen=True, slots=True)
class Sum:
    """A running total, with the arithmetic that histograms have too. Whole numbers stay whole, however large."""

    value: float

    def minus(self, previous: "Sum") -> "Sum | None":
        """What was added since, or ``None`` if the total was lowered."""
        return Sum(self.value - previous.value) if self.value >= previous.value else None


Total = TypeVar("Total", bound=Sum | Histogram)


@dataclass(frozen=True, slots=True)
class _Seen:
    start_unix_nano: int
    total: Sum | Histogram


class CumulativeToDelta:
    """Remember each cumulative series' last point; a key identifies scope, name and typed attributes.

    A series that appears for the first time counts in full if it started at ``start_unix_nano`` or later; of an older
    one nobody knows what was counted before, so its first point is the base only. A total that was lowered, a bucket
    that lost samples, other bounds, or a new start time mean that the series was reset: it counts from there in full.
    Series are remembered as long as the SDK remembers them: for the life of the process.
    """

    def __init__(self, start_unix_nano: int) -> None:
        self._start_unix_nano = start_unix_nano
        self._seen: dict[Hashable, _Seen] = {}

    def delta(self, key: Hashable, start_unix_nano: int, total: Total) -> Total | None:
        """What was added since the series' last point, or ``None`` if there is nothing to be counted."""
        previous = self._seen.get(key)
        self._seen[key] = _Seen(start_unix_nano, total)
        if previous is None:
            return total if start_unix_nano >= self._start_unix_nano else None
        if previous.start_unix_nano != start_unix_nano or not isinstance(previous.total, type(total)):
            return total
        if previous.total == total:
            return None
        # Both are of one type, which type checkers cannot see.
        added: Any = total.minus(previous.total)  # type: ignore[arg-type]
        return total if added is None else added


class DeltaToCurrent:
    """Add up the deltas of each series that may go down as well as up."""

    def __init__(self) -> None:
        self._current: dict[Hashable, float] = {}

    def current(self, key: Hashable, change: float) -> float:
        """The series' value after this change."""
        self._current[key] = self._current.get(key, 0) + change
        return self._current[key]
