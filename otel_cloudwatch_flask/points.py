"""Data points of the SDK as amounts: what is added, what is shown, and how samples are distributed.

This is where temporality ends: whatever comes in, an amount belongs to the time since the last collection.
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from opentelemetry.sdk.metrics import export as sdk

from otel_cloudwatch_flask.distribution import distribution
from otel_cloudwatch_flask.histogram import ExplicitHistogram, ExponentialHistogram, Extremes, Histogram, filled
from otel_cloudwatch_flask.magnitudes import is_finite, sendable
from otel_cloudwatch_flask.temporality import CumulativeToDelta, DeltaToCurrent, Sum


@dataclass(frozen=True, slots=True)
class Additive:
    """A delta, or the current value of something that goes up and down: where points meet, they add up."""

    value: float


@dataclass(frozen=True, slots=True)
class Sample:
    """A gauge's value: where points meet, each value is kept."""

    value: float


Amount: TypeAlias = Additive | Sample | Histogram


class InvalidPointError(ValueError):
    """A data point with numbers that CloudWatch does not take, or that contradict each other."""


class PointReader:
    """Read data points, remembering what cumulative ones need; a key identifies scope, name and kind."""

    def __init__(self, start_unix_nano: int) -> None:
        self._to_delta = CumulativeToDelta(start_unix_nano)
        self._to_current = DeltaToCurrent()

    def amount(self, key: Hashable, data: sdk.DataT, point: sdk.DataPointT, factor: float) -> Amount | None:
        """The amount of one point of a metric's data, in the unit ``factor`` leads to; ``None``: nothing happened.

        Raises :class:`InvalidPointError`.
        """
        if isinstance(point, sdk.NumberDataPoint):
            return self._number(key, data, point, factor)
        histogram = _consistent(_histogram(point, factor))
        if _is_cumulative(data):
            delta = self._to_delta.delta(_series_key(key, data, point), point.start_time_unix_nano, histogram)
            return None if delta is None else _sendable(delta)
        return _sendable(histogram)

    def _number(
        self, key: Hashable, data: sdk.DataT, point: sdk.NumberDataPoint, factor: float
    ) -> Additive | Sample | None:
        measured = _number_of(point.value)
        if not is_finite(measured):
            raise InvalidPointError(f"the value {measured}")
        if not isinstance(data, sdk.Sum):
            return Sample(_scaled(measured, factor))
        value: float | None = measured
        if _should_become_delta(data):
            series_key = _series_key(key, data, point)
            delta = self._to_delta.delta(series_key, point.start_time_unix_nano or 0, Sum(measured))
            value = None if delta is None else delta.value
        elif _should_become_current(data):
            value = self._to_current.current(_series_key(key, data, point), measured)
        return None if value is None else Additive(_scaled(value, factor))


def negated(amount: Amount) -> Amount:
    """The same samples with the opposite sign."""
    if isinstance(amount, Additive | Sample):
        return replace(amount, value=-amount.value)
    return amount.mirrored()


def _series_key(key: Hashable, data: sdk.DataT, point: sdk.DataPointT) -> Hashable:
    """Equal for the same attributes in any order, different for ``1``, ``True`` and ``"1"``."""
    attributes = point.attributes or {}
    return (key, type(data), frozenset((name, repr(value)) for name, value in attributes.items()))


def _is_cumulative(data: Any) -> bool:
    return bool(data.aggregation_temporality == sdk.AggregationTemporality.CUMULATIVE)


def _should_become_delta(data: sdk.Sum) -> bool:
    return data.is_monotonic and _is_cumulative(data)


def _should_become_current(data: sdk.Sum) -> bool:
    return not data.is_monotonic and not _is_cumulative(data)


def _scaled(value: float, factor: float) -> float:
    # Whole numbers of a unit that needs no scaling stay whole, however large.
    try:
        scaled = value if factor == 1.0 else value * factor
    except OverflowError:
        raise InvalidPointError("a value beyond every float") from None
    if sendable(scaled) is None:
        raise InvalidPointError("a value beyond 2^360")
    return scaled


def _number_of(value: Any) -> float:
    """A number of whatever type the program measured with, as arithmetic here wants it; whole ones stay whole."""
    return value if type(value) is int or type(value) is float else float(value)


def _histogram(point: Any, factor: float) -> Histogram:
    minimum = None if point.min is None else _number_of(point.min)
    maximum = None if point.max is None else _number_of(point.max)
    extremes = Extremes.recorded(minimum, maximum)
    if isinstance(point, sdk.ExponentialHistogramDataPoint):
        return ExponentialHistogram(
            count=point.count,
            sum=_number_of(point.sum),
            extremes=extremes,
            scale=point.scale,
            zero_count=point.zero_count,
            zero_threshold=getattr(point, "zero_threshold", 0.0),
            positive=filled(point.positive.offset, point.positive.bucket_counts),
            negative=filled(point.negative.offset, point.negative.bucket_counts),
            factor=factor,
        )
    return ExplicitHistogram(
        count=point.count,
        sum=_number_of(point.sum),
        extremes=extremes,
        bounds=tuple(point.explicit_bounds),
        counts=tuple(point.bucket_counts),
        factor=factor,
    )


def _consistent(histogram: Histogram) -> Histogram:
    if contradiction := histogram.contradiction():
        raise InvalidPointError(contradiction)
    return histogram


def _sendable(histogram: Histogram) -> Histogram | None:
    """The histogram if it has samples, all of which CloudWatch takes."""
    if not histogram.count:
        return None
    extremes = (histogram.extremes.minimum, histogram.extremes.maximum)
    for extreme in extremes:
        if extreme is not None:
            _scaled(extreme, histogram.factor)
    # How far samples reach that nobody recorded the extremes of is known only when they are placed.
    if None in extremes and distribution(histogram) is None:
        raise InvalidPointError("samples beyond 2^360")
    return histogram
