"""Convert cumulative data points to deltas.

CloudWatch adds up the datums of a counter, so its cumulative values must never be sent unchanged. This package's reader
requests deltas of counters and histograms from the SDK, but other readers may pass cumulative data points.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

from otel_cloudwatch_flask.histograms.buckets import Histogram


@dataclass(frozen=True, slots=True)
class RunningSum:
    """A cumulative sum, with a ``minus`` method like that of a histogram. Ints are subtracted exactly."""

    value: float

    def minus(self, previous: "RunningSum") -> "RunningSum | None":
        """Return the increase since ``previous``, or ``None`` if the sum decreased, which indicates a reset."""
        # Not a comparison of the sums: the SDK rounds an int beyond 2^53 when it adds a float, which is not a decrease.
        increase = self.value - previous.value
        return RunningSum(increase) if increase >= 0 else None


Total = TypeVar("Total", bound=RunningSum | Histogram)


@dataclass(frozen=True, slots=True)
class _Seen:
    start_unix_nano: int
    total: RunningSum | Histogram


class CumulativeToDelta:
    """Converts cumulative data points to deltas, and stores the last total of each series.

    The first total of a series is its first delta if the series started at ``start_unix_nano`` or later. Otherwise,
    that total serves only as the base of the next delta, because part of it may have been published before. After a
    reset, which is indicated by a decreasing total or bucket count, or by new bounds or a new start time, the total is
    the delta. Series are kept for the lifetime of the process, as in the SDK.
    """

    def __init__(self, start_unix_nano: int) -> None:
        self._start_unix_nano = start_unix_nano
        self._seen: dict[Hashable, _Seen] = {}

    def delta(self, key: Hashable, start_unix_nano: int, total: Total) -> Total | None:
        """Return the increase since the previous total of the series, or ``None`` if there is nothing to publish.

        :param key: resource, scope, name, unit and typed attributes of the series.
        :param start_unix_nano: time at which the SDK started or reset the series.
        """
        previous = self._seen.get(key)
        self._seen[key] = _Seen(start_unix_nano, total)
        if previous is None:
            return total if start_unix_nano >= self._start_unix_nano else None
        if previous.start_unix_nano != start_unix_nano or not isinstance(previous.total, type(total)):
            return total
        if previous.total == total:
            return None
        # The check above ensures that both have the same type, which a type checker cannot infer.
        added: Any = total.minus(previous.total)  # type: ignore[arg-type]
        return total if added is None else added
