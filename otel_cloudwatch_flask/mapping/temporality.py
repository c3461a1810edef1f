"""Convert cumulative data points to deltas, and the deltas of up-down counters to current values.

CloudWatch adds up the datums of a counter, so its cumulative values must never be sent unchanged. This package's reader
requests deltas of counters and histograms from the SDK, but other readers may pass cumulative data points.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from opentelemetry.sdk.metrics.export import DataPointT, NumberDataPoint

from otel_cloudwatch_flask.histograms.buckets import Histogram
from otel_cloudwatch_flask.limits import NUMBERS, sendable


@dataclass(frozen=True, slots=True)
class RunningSum:
    """A cumulative sum, with a ``minus`` method like that of a histogram. Ints are subtracted exactly."""

    value: float

    def minus(self, previous: "RunningSum") -> "RunningSum | None":
        """Return the increase since ``previous``, or ``None`` if the sum decreased, which indicates a reset."""
        return RunningSum(self.value - previous.value) if self.value >= previous.value else None


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

        :param key: scope, name, unit and typed attributes of the series.
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


class DeltaToCurrent:
    """Adds up the deltas of each up-down counter, and stores the current value of each of its series.

    Series are kept for the lifetime of the process, as in the SDK.
    """

    def __init__(self) -> None:
        self._points: dict[Hashable, dict[Hashable, NumberDataPoint]] = {}

    def points(self, key: Hashable, changes: Iterable[NumberDataPoint]) -> list[NumberDataPoint]:
        """Add ``changes`` to an up-down counter, and return the current values of all its series.

        A series without a change is included because it may be merged with others, and its share must not be missing.
        A change that CloudWatch would not accept, or that cannot be read, is returned unchanged.

        :param key: scope, name and unit of the up-down counter.
        """
        current = self._points.setdefault(key, {})
        invalid, latest = [], 0
        for change in changes:
            try:
                if sendable(change.value) is None:
                    invalid.append(change)
                    continue
                latest = max(latest, change.time_unix_nano)
                series = typed_attributes(change)
                before = current[series].value if series in current else 0
                current[series] = replace(change, value=number_of(change.value) + before)
            except Exception:  # noqa: BLE001 - data points from other code: reading this one reports the problem
                invalid.append(change)
        return [*invalid, *(replace(each, time_unix_nano=latest) for each in current.values() if latest)]


def typed_attributes(point: DataPointT) -> Hashable:
    """Return a key that does not depend on the order of attributes, but distinguishes ``1``, ``True`` and ``"1"``."""
    return frozenset((name, repr(value)) for name, value in (point.attributes or {}).items())


def number_of(value: Any) -> float:
    """Return a float or int unchanged, and convert any other type, such as a NumPy number, to a float."""
    return value if type(value) in NUMBERS else float(value)
