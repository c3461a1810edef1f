"""Convert cumulative points to deltas, and deltas of up-down counters to current values.

CloudWatch adds up what it receives, so a cumulative value must never be sent unchanged. This package's reader asks the
SDK for deltas; under any other reader, cumulative points are converted here.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

from otel_cloudwatch_flask.histograms.buckets import Histogram


@dataclass(frozen=True, slots=True)
class RunningSum:
    """A cumulative sum, with the interface of a histogram. Ints are subtracted as ints, whatever their size."""

    value: float

    def minus(self, previous: "RunningSum") -> "RunningSum | None":
        """Return what was added since an earlier sum, or ``None`` if the sum is lower: it was reset."""
        return RunningSum(self.value - previous.value) if self.value >= previous.value else None


Total = TypeVar("Total", bound=RunningSum | Histogram)


@dataclass(frozen=True, slots=True)
class _Seen:
    start_unix_nano: int
    total: RunningSum | Histogram


class CumulativeToDelta:
    """Compute deltas from the previous point of each series; a key identifies scope, name and typed attributes.

    The first point of a series counts in full if the series started at ``start_unix_nano`` or later. Otherwise it is
    only the base, because an unknown part of it may have been published before. A lower total, a bucket with fewer
    samples, other bounds, or a new start time mean a reset: the new point counts in full. Series are kept for the life
    of the process, as in the SDK.
    """

    def __init__(self, start_unix_nano: int) -> None:
        self._start_unix_nano = start_unix_nano
        self._seen: dict[Hashable, _Seen] = {}

    def delta(self, key: Hashable, start_unix_nano: int, total: Total) -> Total | None:
        """Return what was added since the series' previous point, or ``None`` if nothing was."""
        previous = self._seen.get(key)
        self._seen[key] = _Seen(start_unix_nano, total)
        if previous is None:
            return total if start_unix_nano >= self._start_unix_nano else None
        if previous.start_unix_nano != start_unix_nano or not isinstance(previous.total, type(total)):
            return total
        if previous.total == total:
            return None
        # Both have the same type, which a type checker cannot infer.
        added: Any = total.minus(previous.total)  # type: ignore[arg-type]
        return total if added is None else added


class DeltaToCurrent:
    """Add up the deltas of each up-down counter."""

    def __init__(self) -> None:
        self._current: dict[Hashable, float] = {}

    def current(self, key: Hashable, change: float) -> float:
        """Return the current value of a series after a change."""
        self._current[key] = self._current.get(key, 0) + change
        return self._current[key]
