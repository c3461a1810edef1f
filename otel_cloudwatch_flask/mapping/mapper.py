"""The mapper, which converts OpenTelemetry metrics to CloudWatch datums."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from operator import attrgetter
from typing import Any, Final

from opentelemetry.sdk.metrics import export as sdk

from otel_cloudwatch_flask.limits import InvalidPointError, are_plain
from otel_cloudwatch_flask.mapping.cardinality import CardinalityGuard
from otel_cloudwatch_flask.mapping.data_points import (
    PointReader,
    PointValue,
    SumValue,
    distribution_of,
    is_delta_histogram,
    is_published_unchanged,
)
from otel_cloudwatch_flask.mapping.merging import Accumulator
from otel_cloudwatch_flask.mapping.metric_streams import Attributes, MetricStream, MetricStreams
from otel_cloudwatch_flask.mapping.series_cache import CacheEntry, SeriesCache
from otel_cloudwatch_flask.model.datum import Datum, Series
from otel_cloudwatch_flask.model.scope import NEGATIVE_KEY
from otel_cloudwatch_flask.pricing import metrics_dollars
from otel_cloudwatch_flask.runtime.rate_limited_log import RateLimitedLog

_logger = logging.getLogger(__name__)

_NANOS: Final = 1_000_000_000
_VALUE: Final = attrgetter("value")
_TIME: Final = attrgetter("time_unix_nano")
_OWN: Final = attrgetter("own")
_SHARED: Final = attrgetter("shared")
_MAX_SECONDS: Final = 253_402_300_799
"""The end of the year 9999, the last year that ``datetime`` supports."""
_INVALID_LOG_SECONDS: Final = 60.0


class Mapper:
    """Converts collections to datums, and keeps the state that the next collection requires. Not thread-safe.

    :param lost: callback that receives the number of data points that cannot be sent.
    """

    def __init__(
        self,
        streams: MetricStreams,
        *,
        guard: CardinalityGuard,
        start_unix_nano: int,
        lost: Callable[[int], None],
    ) -> None:
        self._streams = streams
        self._guard = guard
        self._lost = lost
        self._points = PointReader(start_unix_nano)
        # The current values of up-down counters whose data points are deltas.
        self._current: dict[Series, float] = {}
        self._cache = SeriesCache(guard, streams.series)
        self._once = RateLimitedLog(_logger)
        self._each_minute = RateLimitedLog(_logger, interval_seconds=_INVALID_LOG_SECONDS)
        self._datums: list[Datum] = []
        self._accumulators: dict[Series, Accumulator] = {}

    def datums(self, data: sdk.MetricsData) -> list[Datum]:
        """Convert one collection to datums."""
        self._cache.begin_collection()
        self._datums, self._accumulators = [], {}
        # Find the entries of all data points first: they show which series receive several data points.
        found = []
        for stream in self._streams.of(data):
            points = [*stream.data.data_points]
            found.append((stream, points, self._cache.entries(stream, points)))
        for stream, points, entries in found:
            if not self._add_plain_numbers(stream, points, entries):
                self._add(stream, points, entries)
        for series, accumulator in self._accumulators.items():
            if accumulator.change is not None:
                self._current[series] = self._current.get(series, 0) + accumulator.change
                accumulator.add(SumValue(self._current[series]), accumulator.unix_seconds)
            try:
                self._datums.append(accumulator.datum())
            except Exception as error:  # noqa: BLE001 - numbers from other code
                self._lose(series.name, error)
        return self._datums

    def _add_plain_numbers(
        self, stream: MetricStream, points: Sequence[sdk.DataPointT], entries: Sequence[CacheEntry]
    ) -> bool:
        """Add all data points of a metric at once, if they are numbers that need no conversion.

        Returns ``True`` if they were added. Otherwise, none was added, and the caller must read them one by one. That
        is necessary if their times differ, or if a data point needs conversion, belongs to several series, or shares a
        series with another data point.
        """
        if not points or stream.unit.factor != 1.0 or not is_published_unchanged(stream.data):
            return False
        own = [*map(_OWN, entries)]
        if {*map(len, own)} != {1} or any(map(_SHARED, entries)):
            return False
        try:
            values, times = [*map(_VALUE, points)], {*map(_TIME, points)}
            if len(times) > 1 or not are_plain(values):
                return False
            seconds = _unix_seconds(times.pop())
        except Exception:  # noqa: BLE001 - data points from other code: reading them one by one reports the invalid one
            return False
        # map() runs in C, which is faster than a loop. Most data points of an app with many counters take this path.
        rows = zip([series for (series,) in own], repeat(seconds), values)
        self._datums += map(Datum._make, rows)
        return True

    def _add(self, stream: MetricStream, points: Sequence[Any], entries: Sequence[CacheEntry]) -> None:
        """Add data points one by one, so that an unreadable data point does not affect the others."""
        are_deltas, as_statistics = is_delta_histogram(stream.data), stream.as_statistics
        factor = unit_factor = stream.unit.factor
        nano, seconds = math.nan, 0  # NaN differs from every time.
        for point, entry in zip(points, entries, strict=True):
            try:
                if stream.facade is not None:
                    factor = unit_factor * _sign(point.attributes or {})
                if point.time_unix_nano != nano:
                    seconds, nano = _unix_seconds(point.time_unix_nano), point.time_unix_nano
                if are_deltas and entry.own and not entry.shared:
                    content = distribution_of(point, factor, as_statistics=as_statistics)
                    if content is not None:
                        for series in entry.own:
                            self._datums.append(Datum(series, seconds, content))
                elif (value := self._points.value(stream.identity, stream.data, point, factor)) is not None:
                    self._merge(stream, entry, seconds, value)
            except Exception as error:  # noqa: BLE001, PERF203 - data points from other code
                self._lose(stream.name, error)

    def _merge(self, stream: MetricStream, entry: CacheEntry, seconds: int, value: PointValue) -> None:
        """Merge the value of a data point into the accumulator of each of its series."""
        for series in (*entry.own, *entry.shared) or self._admitted(stream, entry):
            accumulator = self._accumulators.get(series)
            if accumulator is None:
                accumulator = self._accumulators[series] = Accumulator(series, stream.as_statistics)
            accumulator.series = series  # Equal, but possibly with other properties: the last data point wins.
            accumulator.add(value, seconds)

    def _lose(self, name: str, error: Exception) -> None:
        self._lost(1)
        if isinstance(error, InvalidPointError):
            self._each_minute.warning(
                ("invalid", name),
                "Lost a data point of %s: it has %s. Other data points are not affected. Fix the code that recorded or "
                "created it.",
                name,
                error,
            )
        else:
            self._each_minute.error(
                ("error", name),
                "Lost a data point of %s: it could not be converted. Other data points are not affected. If your code "
                "created the data point, fix that code. Otherwise, report a bug, and include the traceback.",
                name,
                exc_info=True,
            )

    def _admitted(self, stream: MetricStream, entry: CacheEntry) -> Iterator[Series]:
        """Yield those series of a data point that the guard admits.

        If the series with the most dimensions is not admitted, an overflow series replaces it. Any other series that is
        not admitted is skipped, because the overflow series must not count a data point twice.
        """
        *coarser, finest = entry.series or self._streams.series(stream, entry.attributes or {})
        for each in coarser:
            if self._guard.use(each):
                yield each
        yield self._admit(finest)

    def _admit(self, series: Series) -> Series:
        admitted = self._guard.admit(series)
        if admitted.name != series.name:
            self._once.warning(
                "overflow",
                "max_metrics has been reached, and there is no room for further overflow series: new dimension "
                "combinations of %s and other metrics are published together as the metric otel.metric.overflow. "
                "Remove IDs and other variable parts from metric names and dimensions, or raise max_metrics.",
                series.name,
            )
        elif admitted is not series:
            self._once.warning(
                ("overflow", series.name),
                "max_metrics has been reached: new dimension combinations of %s are published as its overflow series "
                "(otel.metric.overflow=true). Drop a dimension with a MetricRule, or raise max_metrics; each "
                "additional metric costs up to $%.2f a month.",
                series.name,
                metrics_dollars(1),
            )
        return admitted


def _sign(attributes: Attributes) -> int:
    """Return -1 for negative samples, which ``add_metric`` records as absolute values and marks, otherwise 1."""
    return -1 if NEGATIVE_KEY in attributes else 1


def _unix_seconds(unix_nano: float) -> int:
    """Convert nanoseconds to whole seconds. An invalid ``unix_nano`` may cause any type of exception."""
    seconds = int(unix_nano // _NANOS)
    if abs(seconds) > _MAX_SECONDS:
        raise OverflowError("the time of a data point is beyond the year 9999")
    return seconds
