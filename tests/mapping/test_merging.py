from collections.abc import Sequence
from dataclasses import replace

import pytest

from otel_cloudwatch_flask.histograms.buckets import ExponentialHistogram, edge
from otel_cloudwatch_flask.histograms.values_counts import Distribution, combined, distribution
from otel_cloudwatch_flask.limits import InvalidPointError
from otel_cloudwatch_flask.mapping.data_points import GaugeValue, PointValue, SumValue
from otel_cloudwatch_flask.mapping.merging import Accumulator
from otel_cloudwatch_flask.model.datum import Datum, Series, Statistics
from tests.support.samples import explicit, exponential

ORDERS = Series("orders", (), "Count")


def merged(*values: PointValue, as_statistics: bool = False) -> object:
    """Return the content of the data point that results from all of these values of one series."""
    accumulator = Accumulator(ORDERS, as_statistics)
    for value in values:
        accumulator.add(value, 0)
    return accumulator.datum().content


@pytest.mark.parametrize(
    ("values", "content"),
    [
        ([SumValue(5)], 5.0),
        ([SumValue(5), SumValue(-2.5)], 2.5),
        ([SumValue(2**53), SumValue(1), SumValue(1)], 2.0**53 + 2),
        ([GaugeValue(5)], 5.0),
        ([GaugeValue(5), GaugeValue(3), GaugeValue(5)], Distribution([3.0, 5.0], [1, 2])),
        ([GaugeValue(5), SumValue(1), SumValue(2)], Distribution([3.0, 5.0], [1, 1])),
        ([explicit([1], (2,)), SumValue(7)], Distribution([1.0, 7.0], [1, 1])),
        ([exponential([1], 0), GaugeValue(7)], Distribution([1.0, 7.0], [1, 1])),
        ([explicit([1], (2,)), explicit([9], (2,))], Distribution([1.0, 9.0], [1, 1])),
        ([explicit([1], (2,)), explicit([9], (3,))], Distribution([1.0, 9.0], [1, 1])),
        ([explicit([1], (2,)), exponential([9], 3)], Distribution([1.0, 9.0], [1, 1])),
        ([exponential([1], 4), exponential([9], 0)], Distribution([1.0, 9.0], [1, 1])),
    ],
)
def test_points_that_become_one(values: Sequence[PointValue], content: object) -> None:
    """Deltas and current values are added, gauges keep each value, and histograms keep every sample."""
    assert merged(*values) == content


def test_the_latest_time() -> None:
    """A data point has the latest timestamp of its points."""
    accumulator = Accumulator(ORDERS, as_statistics=False)
    accumulator.add(SumValue(1), 5)
    accumulator.add(SumValue(3), 4)
    assert accumulator.datum() == Datum(ORDERS, 5, 4.0)


@pytest.mark.parametrize("zeros_first", [True, False])
def test_points_of_zeros_only_coarsen_nothing(*, zeros_first: bool) -> None:
    """Points with only zeros have scale 0, but do not make others coarser, even if buckets are added one by one."""
    zeros, others = [exponential([0.0] * 5, 0)] * 30, [wide(100, 6), wide(60, 6)]
    content = merged(*(zeros + others if zeros_first else others + zeros))
    expected = distribution(others[0].plus(others[1]).plus(exponential([0.0] * 150, 6)))
    assert content == expected
    assert isinstance(content, Distribution)
    assert (content.values[0], content.counts[0]) == (0.0, 150)
    assert len(content.values) >= 100


def wide(buckets: int, scale: int) -> ExponentialHistogram:
    """Return a histogram with two samples in each of this many buckets."""
    lowest = [edge(scale, index) * 1.0001 for index in range(buckets)]
    return exponential([sample * factor for sample in lowest for factor in (1.0, 1.01)], scale)


@pytest.mark.parametrize(("buckets", "keep_values"), [((73, 73), True), ((73, 74), False)])
def test_exponential_histograms_of_two_scales(buckets: tuple[int, int], *, keep_values: bool) -> None:
    """Histograms of different scales keep their values if these fit in a data point, or else use the coarser scale."""
    one, other = wide(buckets[0], 4), wide(buckets[1], 3)
    assert (one.filled_buckets, other.filled_buckets) == buckets
    parts = [distribution(one), distribution(other)]
    assert merged(one, other) == (combined(parts) if keep_values else distribution(one.plus(other)))
    assert combined(parts) != distribution(one.plus(other))


def test_explicit_histograms() -> None:
    """Histograms with equal bounds are added bucket by bucket; others keep their own values."""
    one, same, other = (explicit(range(1, end), bounds) for end, bounds in ((90, (50,)), (99, (50,)), (70, (60,))))
    together = distribution(one.plus(same))
    assert merged(one, same) == together
    assert merged(one, other, same) == combined([together, distribution(other)])


def test_at_most_150_values() -> None:
    """However many points are merged, their samples fit in one data point."""
    content = merged(*[GaugeValue(i) for i in range(1000)])
    assert isinstance(content, Distribution)
    assert 75 <= len(content.values) <= 150
    assert (content.samples, content.values[0], content.values[-1]) == (1000, 0.0, 999.0)
    assert content.total == pytest.approx(999 * 500)


@pytest.mark.parametrize(
    ("values", "statistics"),
    [
        ([explicit([1, 2, 6], (3,))], Statistics(3, 9.0, 1.0, 6.0)),
        ([explicit([1, 2], (3,)), explicit([6], (5,))], Statistics(3, 9.0, 1.0, 6.0)),
        ([exponential([1, 2, 6], 0), SumValue(-1)], Statistics(4, 8.0, -1.0, 6.0)),
        ([GaugeValue(1), GaugeValue(2)], Statistics(2, 3.0, 1.0, 2.0)),
        ([replace(explicit([1, 2, 6], (3,)), factor=60.0)], Statistics(3, 540.0, 60.0, 360.0)),
    ],
)
def test_statistics(values: Sequence[PointValue], statistics: Statistics) -> None:
    """A rule can reduce data points to sum, count, minimum and maximum."""
    assert merged(*values, as_statistics=True) == statistics


def test_a_single_number_stays_a_number() -> None:
    """A single number stays a number even if a rule selects statistics."""
    assert merged(SumValue(5), as_statistics=True) == 5.0


@pytest.mark.parametrize(
    "values",
    [[SumValue(2.0**360), SumValue(2.0**360)], [explicit([1e150], ())]],
    ids=["sum", "sample"],
)
def test_numbers_beyond_the_range(values: Sequence[PointValue]) -> None:
    """Numbers whose merged sum is too large are not sent."""
    with pytest.raises(InvalidPointError):
        merged(*values)


def test_a_sum_beyond_the_range() -> None:
    """Samples that are invalid, or whose sum is invalid, are not sent as statistics either."""
    with pytest.raises(InvalidPointError):
        merged(GaugeValue(2.0**360), GaugeValue(2.0**360), as_statistics=True)
    with pytest.raises(InvalidPointError):
        merged(GaugeValue(1), GaugeValue(2.0**361))
