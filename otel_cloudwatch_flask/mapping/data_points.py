"""Convert the SDK's data points to sums, changes, gauge values and histograms.

Cumulative data points are converted to deltas here, so the rest of the package handles only deltas and current values.
Only the changes of up-down counters are added up later, when all data points of a series are known.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from opentelemetry.sdk.metrics import export as sdk

from otel_cloudwatch_flask.histograms.buckets import (
    Buckets,
    ExplicitHistogram,
    ExponentialHistogram,
    Extremes,
    Histogram,
    buckets_around_zero,
    check_bounds,
    check_numbers,
    consecutive_buckets,
    explicit_buckets,
    negated_extremes,
    recorded_extremes,
)
from otel_cloudwatch_flask.histograms.values_counts import Distribution, distribution, scaled
from otel_cloudwatch_flask.limits import NUMBERS, InvalidPointError, sendable
from otel_cloudwatch_flask.mapping.temporality import CumulativeToDelta, RunningSum
from otel_cloudwatch_flask.model.datum import Statistics

_DETERMINED_SAMPLES: Final = 3
"""A histogram with at most this many samples is fully determined by its count, sum, minimum and maximum."""


@dataclass(frozen=True, slots=True)
class SumValue:
    """The delta of a counter, or the current value of an up-down counter. Merging values adds them up."""

    value: float


@dataclass(frozen=True, slots=True)
class GaugeValue:
    """The value of a gauge. Merged values become separate samples of one datum."""

    value: float


@dataclass(frozen=True, slots=True)
class ChangeValue:
    """The change of an up-down counter, whose current value is the sum of all changes. Merging values adds them up."""

    value: float


PointValue: TypeAlias = SumValue | ChangeValue | GaugeValue | Histogram


class PointReader:
    """Converts data points, and keeps the totals that are needed to convert the next collection."""

    def __init__(self, start_unix_nano: int) -> None:
        self._to_delta = CumulativeToDelta(start_unix_nano)

    def value(self, key: Hashable, data: sdk.DataT, point: sdk.DataPointT, factor: float) -> PointValue | None:
        """Convert one data point, or return ``None`` if there is nothing to publish.

        :param key: resource, scope, name and unit of the metric.
        :param data: the metric's data, which contains ``point``.
        :param factor: multiplier that converts the numbers to the published unit and sign.
        :raises InvalidPointError: if the numbers of the data point cannot be published.
        """
        if isinstance(point, sdk.NumberDataPoint):
            return self._number(key, data, point, factor)
        histogram = _histogram(point, factor)
        histogram.check()
        delta: Histogram | None = histogram
        if _is_cumulative(data):
            delta = self._to_delta.delta(_series_key(key, data, point), point.start_time_unix_nano, histogram)
        if delta is None or not delta.count:
            return None
        _check_range(delta)
        return delta

    def _number(
        self, key: Hashable, data: sdk.DataT, point: sdk.NumberDataPoint, factor: float
    ) -> SumValue | ChangeValue | GaugeValue | None:
        measured = _number_of(point.value)
        if not abs(measured) < math.inf:  # NaN fails every comparison.
            raise InvalidPointError(f"the value {measured}")
        if not isinstance(data, sdk.Sum):
            return GaugeValue(_scaled(measured, factor))
        if _should_become_current(data):
            return ChangeValue(_scaled(measured, factor))
        if _should_become_delta(data):
            series_key = _series_key(key, data, point)
            delta = self._to_delta.delta(series_key, point.start_time_unix_nano or 0, RunningSum(measured))
            if delta is None:
                return None
            measured = delta.value
        return SumValue(_scaled(measured, factor))


def is_published_unchanged(data: sdk.DataT) -> bool:
    """Return whether ``data`` is a gauge, or a sum whose values are published without conversion."""
    if isinstance(data, sdk.Sum):
        return not (_should_become_delta(data) or _should_become_current(data))
    return isinstance(data, sdk.Gauge)


def is_delta_histogram(data: sdk.DataT) -> bool:
    """Return whether the data points of ``data`` are histograms with delta temporality."""
    return isinstance(data, sdk.Histogram | sdk.ExponentialHistogram) and not _is_cumulative(data)


def _series_key(key: Hashable, data: sdk.DataT, point: sdk.DataPointT) -> Hashable:
    """Return a key that does not depend on the order of attributes, but distinguishes ``1``, ``True`` and ``"1"``."""
    attributes = point.attributes or {}
    return (key, type(data), frozenset((name, repr(value)) for name, value in attributes.items()))


def _is_cumulative(data: Any) -> bool:
    return bool(data.aggregation_temporality == sdk.AggregationTemporality.CUMULATIVE)


def _should_become_delta(data: sdk.Sum) -> bool:
    return data.is_monotonic and _is_cumulative(data)


def _should_become_current(data: sdk.Sum) -> bool:
    return not data.is_monotonic and not _is_cumulative(data)


def _scaled(value: float, factor: float) -> float:
    # Multiplying by 1.0 would turn ints into floats, and fail for very large ints.
    try:
        scaled = value if factor == 1.0 else value * factor
    except OverflowError:
        raise InvalidPointError("a value outside ±2^360") from None
    sendable(scaled)
    return scaled


def _number_of(value: Any) -> float:
    """Return a float or int unchanged, and convert any other type, such as a NumPy number, to a float."""
    return value if type(value) in NUMBERS else float(value)


def distribution_of(point: Any, factor: float, *, as_statistics: bool = False) -> Distribution | Statistics | None:
    """Convert a delta histogram that is not merged with others, or return ``None`` if it is empty.

    Raises :class:`InvalidPointError` if its numbers cannot be published.
    """
    # This is the hot path. Only addition and subtraction need a Histogram object, so none is created.
    extremes, total = _extremes_and_sum(point)
    is_explicit = not isinstance(point, sdk.ExponentialHistogramDataPoint)
    if is_explicit:
        bounds, counts = _bounds_and_counts(point)
        check_bounds(bounds, counts)
        buckets = explicit_buckets(bounds, counts)
    else:
        buckets = _exponential_buckets(point)
    check_numbers(point.count, total, extremes, buckets)
    if not point.count:
        return None
    made = scaled(point.count, total, extremes, buckets, factor, is_explicit=is_explicit)
    # OTLP allows histograms without buckets. Values made from such a histogram would imply percentiles that were not
    # measured.
    is_unmeasured = is_explicit and not point.bucket_counts and point.count > _DETERMINED_SAMPLES
    if as_statistics or (is_unmeasured and None not in extremes):
        return statistics(made, total * factor)
    return made


def statistics(whole: Distribution, total: float) -> Statistics:
    """Summarize a distribution as a statistic set whose sum is ``total``, the recorded sum.

    Raises :class:`InvalidPointError` if CloudWatch does not accept the sum.
    """
    return Statistics(whole.samples, sendable(total), whole.values[0], whole.values[-1])


def _histogram(point: Any, factor: float) -> Histogram:
    extremes, total = _extremes_and_sum(point)
    if isinstance(point, sdk.ExponentialHistogramDataPoint):
        zeros, threshold = point.zero_count, _zero_threshold(point)
        sides = [_filled(point.positive), _filled(point.negative)]
        if factor < 0:  # negate the samples instead, because only histograms with equal factors can be added
            sides.reverse()
            total, extremes, factor = -total, negated_extremes(extremes), -factor
        return ExponentialHistogram(point.count, total, extremes, point.scale, zeros, threshold, *sides, factor=factor)
    return ExplicitHistogram(point.count, total, extremes, *_bounds_and_counts(point), factor=factor)


def _extremes_and_sum(point: Any) -> tuple[Extremes, float]:
    minimum, maximum, total = point.min, point.max, point.sum
    if not type(minimum) is type(maximum) is type(total) is float:
        minimum, maximum, total = (None if each is None else _number_of(each) for each in (minimum, maximum, total))
    return recorded_extremes(minimum, maximum), total


def _exponential_buckets(point: Any) -> Buckets:
    scale, zeros, negative = point.scale, point.zero_count, point.negative
    buckets = consecutive_buckets(scale, point.positive.offset, point.positive.bucket_counts)
    if zeros or any(negative.bucket_counts):
        below = consecutive_buckets(scale, negative.offset, negative.bucket_counts)
        buckets = buckets_around_zero(below, zeros, _zero_threshold(point), buckets)
    return buckets


def _filled(side: sdk.Buckets) -> dict[int, int]:
    """Return the sample count of each non-empty bucket on one side of zero, by its index."""
    return {side.offset + position: count for position, count in enumerate(side.bucket_counts) if count}


def _zero_threshold(point: Any) -> float:
    """Return the largest absolute value that counts as zero, or 0 if it is unknown or there are no zeros."""
    return getattr(point, "zero_threshold", 0.0) if point.zero_count else 0.0


def _bounds_and_counts(point: Any) -> tuple[tuple[float, ...], tuple[int, ...]]:
    # Bounds may be NumPy numbers, which JSON cannot encode. A histogram without buckets is treated as a single bucket
    # with all samples.
    return tuple(map(float, point.explicit_bounds)), tuple(point.bucket_counts) or (point.count,)


def _check_range(histogram: Histogram) -> None:
    """Raise :class:`InvalidPointError` if CloudWatch does not accept the samples.

    Histograms must be checked before they are merged: an invalid one would invalidate all that it is merged with.
    """
    _, _, floor, ceiling = histogram.extremes
    if None not in histogram.extremes:
        _scaled(floor, histogram.factor)
        _scaled(ceiling, histogram.factor)
    else:
        distribution(histogram)  # Without extremes, only the distribution shows how far the samples reach.
