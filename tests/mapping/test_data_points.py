from math import inf, nan
from typing import Any

import pytest
from opentelemetry.sdk.metrics import export as sdk
from opentelemetry.sdk.metrics.export import AggregationTemporality

from otel_cloudwatch_flask.histograms.buckets import (
    ExplicitHistogram,
    ExponentialHistogram,
    recorded_extremes,
)
from otel_cloudwatch_flask.histograms.values_counts import Distribution, distribution
from otel_cloudwatch_flask.limits import InvalidPointError
from otel_cloudwatch_flask.mapping.data_points import (
    ChangeValue,
    GaugeValue,
    PointReader,
    PointValue,
    SumValue,
    distribution_of,
)
from otel_cloudwatch_flask.model.datum import Statistics

DELTA, CUMULATIVE = AggregationTemporality.DELTA, AggregationTemporality.CUMULATIVE
START = 1_000
HUGE = 10**400


def number(value: float, attributes: dict[str, Any] | None = None, start: int = START) -> sdk.NumberDataPoint:
    """Return a point of a sum or gauge."""
    return sdk.NumberDataPoint(attributes or {}, start, start + 1, value)


def counter(temporality: AggregationTemporality, *, is_monotonic: bool = True) -> sdk.Sum:
    """Return the data of a sum without points."""
    return sdk.Sum([], temporality, is_monotonic)


GAUGE = sdk.Gauge([])


def histogram_point(**changes: Any) -> sdk.HistogramDataPoint:
    """Return a point of a valid explicit histogram, with these changes."""
    fields = {
        "attributes": {},
        "start_time_unix_nano": START,
        "time_unix_nano": START + 1,
        "count": 3,
        "sum": 6.0,
        "bucket_counts": [1, 2],
        "explicit_bounds": [1.5],
        "min": 1.0,
        "max": 3.0,
    }
    return sdk.HistogramDataPoint(**{**fields, **changes})


def read(reader: PointReader, data: sdk.DataT, point: sdk.DataPointT, factor: float = 1.0) -> PointValue | None:
    """Read the value of a point that will be merged with others. Return None if there is none to publish."""
    return reader.value("key", data, point, factor)


@pytest.mark.parametrize(
    ("data", "values", "expected"),
    [
        (counter(DELTA), [5, 3], [SumValue(5), SumValue(3)]),
        (counter(CUMULATIVE), [5, 8, 8, 2], [SumValue(5), SumValue(3), None, SumValue(2)]),
        (counter(CUMULATIVE, is_monotonic=False), [5, 3, 3], [SumValue(5), SumValue(3), SumValue(3)]),
        (counter(DELTA, is_monotonic=False), [5, -2, 0], [ChangeValue(5), ChangeValue(-2), ChangeValue(0)]),
        (GAUGE, [5, -2, 5], [GaugeValue(5), GaugeValue(-2), GaugeValue(5)]),
    ],
    ids=["delta", "cumulative", "up-down-cumulative", "up-down-delta", "gauge"],
)
def test_numbers(data: sdk.DataT, values: list[float], expected: list[object]) -> None:
    """Counters become deltas. Up-down counters become current values or changes, and gauges keep their values."""
    reader = PointReader(START)
    assert [reader.value("key", data, number(value), 1.0) for value in values] == expected


@pytest.mark.parametrize(
    ("value", "factor"),
    [
        (nan, 1.0),
        (inf, 1.0),
        (-inf, 60.0),
        (2.0**361, 1.0),
        (2.0**355, 86400.0),
        (HUGE, 1.0),
        (HUGE, 60.0),
        (-HUGE, 0.001),
    ],
)
@pytest.mark.parametrize("data", [counter(DELTA), GAUGE], ids=["sum", "gauge"])
def test_invalid_numbers(data: sdk.DataT, value: float, factor: float) -> None:
    """A number that CloudWatch does not accept is invalid, whether scaled or not."""
    with pytest.raises(InvalidPointError):
        PointReader(START).value("key", data, number(value), factor)


def test_an_invalid_cumulative_point_is_no_base() -> None:
    """NaN between two points of a cumulative sum does not affect the delta between them."""
    reader, data = PointReader(START), counter(CUMULATIVE)
    assert reader.value("key", data, number(5), 1.0) == SumValue(5)
    with pytest.raises(InvalidPointError):
        reader.value("key", data, number(nan), 1.0)
    assert reader.value("key", data, number(9), 1.0) == SumValue(4)


def test_series_are_told_apart_by_type_and_not_by_order() -> None:
    """Attribute values ``1``, ``True`` and ``"1"`` make different series; the order of attributes is irrelevant."""
    reader, data = PointReader(START), counter(CUMULATIVE)
    for value in (1, True, "1", 1.0):
        assert reader.value("key", data, number(5, {"a": value, "b": 2}), 1.0) == SumValue(5)
    for value in (1, True, "1", 1.0):
        assert reader.value("key", data, number(7, {"b": 2, "a": value}), 1.0) == SumValue(2)


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 4},
        {"bucket_counts": [1, 2, 0]},
        {"bucket_counts": [4, -1]},
        {"explicit_bounds": [1.5, 1.5], "bucket_counts": [1, 2, 0]},
        {"sum": nan},
        {"sum": inf},
        {"sum": HUGE},
        {"min": 4.0},
        {"min": nan},
        {"max": inf},
        {"min": -inf},
        {"max": 2.0**361},
        {"max": HUGE},
    ],
    ids=lambda changes: " ".join(f"{field}={value}"[:20] for field, value in changes.items()),
)
@pytest.mark.parametrize("temporality", [DELTA, CUMULATIVE])
@pytest.mark.parametrize("factor", [1.0, 60.0])
def test_contradictory_histograms(changes: dict[str, Any], temporality: AggregationTemporality, factor: float) -> None:
    """A histogram that is contradictory or cannot be sent raises ``InvalidPointError``, and no other exception."""
    data = sdk.Histogram([], temporality)
    point = histogram_point(**changes)
    with pytest.raises(InvalidPointError):
        read(PointReader(START), data, point, factor)
    with pytest.raises(InvalidPointError):
        distribution_of(point, factor)


def test_a_sample_beyond_the_range_spoils_its_own_interval_only() -> None:
    """An invalid sample stays in a cumulative histogram forever, but the samples after it are published."""
    reader, data = PointReader(START), sdk.Histogram([], CUMULATIVE)
    spoilt = {"max": 2.0**361, "sum": 2.0**361}
    with pytest.raises(InvalidPointError):
        read(reader, data, histogram_point(**spoilt))
    later = read(reader, data, histogram_point(**spoilt, count=5, bucket_counts=[3, 2]))
    assert isinstance(later, ExplicitHistogram)
    assert (later.count, later.counts) == (2, (2, 0))


@pytest.mark.parametrize("temporality", [DELTA, CUMULATIVE])
def test_empty_histograms_are_nothing(temporality: AggregationTemporality) -> None:
    """A histogram without samples is not published."""
    point = histogram_point(count=0, sum=0.0, bucket_counts=[0, 0], min=inf, max=-inf)
    assert PointReader(START).value("key", sdk.Histogram([], temporality), point, 1.0) is None
    assert distribution_of(point, 1.0) is None


@pytest.mark.parametrize(
    "extremes",
    [{"min": 1.0, "max": 3.0}, {"min": inf, "max": -inf}, {"min": None, "max": None}, {"min": 1.0, "max": None}],
)
@pytest.mark.parametrize("temporality", [DELTA, CUMULATIVE])
def test_a_histogram_without_buckets(extremes: dict[str, Any], temporality: AggregationTemporality) -> None:
    """A histogram without buckets is read as one bucket that holds all samples, so count and sum are published."""
    point = histogram_point(bucket_counts=[], explicit_bounds=[], **extremes)
    amount = PointReader(START).value("key", sdk.Histogram([], temporality), point, 1.0)
    assert isinstance(amount, ExplicitHistogram)
    for made in (distribution(amount), distribution_of(point, 1.0)):
        assert isinstance(made, Distribution)
        assert (made.samples, made.total) == (3, 6.0)


def test_statistics_of_a_histogram_without_buckets() -> None:
    """Without buckets, a histogram is published as a statistic set, because its percentiles are unknown."""
    known = {"bucket_counts": [], "explicit_bounds": [], "count": 10, "sum": 20.0}
    assert distribution_of(histogram_point(**known), 60.0) == Statistics(10, 1200.0, 60.0, 180.0)
    assert distribution_of(histogram_point(**known), -1.0) == Statistics(10, -20.0, -3.0, -1.0)
    assert distribution_of(histogram_point(**known, min=inf, max=-inf), 1.0) == Distribution([2.0], [10])
    equal = {**known, "min": 2.0, "max": 2.0}
    assert distribution_of(histogram_point(**equal), 1.0) == Statistics(10, 20.0, 2.0, 2.0)


def test_explicit_histogram() -> None:
    """Bounds, counts, sum and extremes of an explicit histogram are read unchanged."""
    value = PointReader(START).value("key", sdk.Histogram([], DELTA), histogram_point(), 60.0)
    assert value == ExplicitHistogram(3, 6.0, recorded_extremes(1.0, 3.0), (1.5,), (1, 2), factor=60.0)


def test_exponential_histogram() -> None:
    """The non-empty buckets of both signs are read with their indices, and zeros are counted."""
    point = sdk.ExponentialHistogramDataPoint(
        attributes={},
        start_time_unix_nano=START,
        time_unix_nano=START + 1,
        count=4,
        sum=-1.0,
        scale=0,
        zero_count=1,
        positive=sdk.Buckets(-1, [1, 0, 1]),
        negative=sdk.Buckets(1, [1]),
        flags=0,
        min=-3.0,
        max=3.0,
    )
    value = PointReader(START).value("key", sdk.ExponentialHistogram([], DELTA), point, 1.0)
    assert value == ExponentialHistogram(
        4, -1.0, recorded_extremes(-3.0, 3.0), 0, 1, 0.0, positive={-1: 1, 1: 1}, negative={1: 1}
    )


def test_a_negative_factor() -> None:
    """A negative factor changes the sign of numbers and of a histogram's samples."""
    reader = PointReader(START)
    assert reader.value("key", counter(DELTA), number(5), -1.0) == SumValue(-5)
    assert reader.value("key", GAUGE, number(-2.0), -60.0) == GaugeValue(120.0)
    opposite = reader.value("key", sdk.Histogram([], DELTA), histogram_point(), -60.0)
    assert isinstance(opposite, ExplicitHistogram)
    assert distribution(opposite) == Distribution([-180.0, -120.0, -60.0], [1, 1, 1])
