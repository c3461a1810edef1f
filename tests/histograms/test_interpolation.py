"""Interpolation derives densities at edges, slopes and parts of buckets from the neighboring buckets."""

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest

from otel_cloudwatch_flask.histograms import interpolation as density
from otel_cloudwatch_flask.histograms import values_counts as distribution
from otel_cloudwatch_flask.histograms.buckets import Buckets
from tests.support.samples import Row, buckets_of, rows

# Twice the width, six times the samples. Monotone cubic interpolation gives, for intervals of 1 and 2 with 100 and
# 300 samples per unit, 9 / (5 / 100 + 4 / 300) at the edge between them.
AT_EDGE = 9 / (5 / 100 + 4 / 300)
LINEAR = (Row(-4.0, -3.0, 100), Row(-3.0, -1.0, 600))
LOGARITHMIC = (Row(1.0, 2.0, 100), Row(2.0, 8.0, 600))

SCALES = [1.0, 1e-6]
"""Factors that change the unit, which must not affect the result."""


def scaled(buckets: tuple[Row, ...], scale: float) -> Buckets:
    """Return the same samples in another unit."""
    return buckets_of((lower * scale, upper * scale, samples) for lower, upper, samples in buckets)


def axes(buckets: tuple[Row, ...]) -> list[density._Axis]:
    """Return the axis of each bucket, along which its density is linear."""
    return [density._Axis.of(samples, lower, upper) for lower, upper, samples in buckets]


def adjacent(samples: Sequence[int]) -> list[Row]:
    """Return adjacent buckets of width 1, starting at 0."""
    return [Row(float(i), i + 1.0, count) for i, count in enumerate(samples)]


def with_overfull_divided(buckets: Sequence[Row]) -> list[Row]:
    """Return the buckets after the division of over-full ones."""
    return rows(distribution._with_overfull_divided(buckets_of(buckets)))


def closed(buckets: Sequence[Row], total: float) -> list[tuple[float, float]]:
    """Return the edges of the buckets after open ones have been closed."""
    return [(lower, upper) for lower, upper, _ in distribution._closed(buckets_of(buckets), total)[1]]


def inner_values(buckets: Sequence[Row], total: float, *, is_explicit: bool = False) -> tuple[list[float], list[int]]:
    """Return the values and counts of all samples except the minimum and the maximum."""
    return distribution._inner_values_and_counts(buckets_of(buckets), total, is_explicit=is_explicit)


def test_which_axis() -> None:
    """Only wide buckets of positive values have a logarithmic axis."""
    cases = [(1.0, 2.0), (1.0, 1.009), (-2.0, -1.0), (0.0, 5.0), (3.0, 3.0)]
    assert [density._Axis.of(1, *edges).is_logarithmic for edges in cases] == [True, False, False, False, False]


def test_density_at_a_shared_edge() -> None:
    """The density at a shared edge is between those of both buckets, and 0 next to a gap or a bucket without width."""
    assert density._density_at_shared_edge(*axes(LINEAR)) == pytest.approx(AT_EDGE)
    mixed = (Row(0.0, 1.0, 100), Row(1.0, 3.0, 600))
    assert density._density_at_shared_edge(*axes(mixed)) == pytest.approx(AT_EDGE)
    per_unit = AT_EDGE / math.log(2) / 2.0
    assert density._density_at_shared_edge(*axes(LOGARITHMIC)) == pytest.approx(per_unit)
    for second in (Row(-2.9, -1.0, 600), Row(-3.0, -3.0, 600)):
        assert density._density_at_shared_edge(*axes((LINEAR[0], second))) == 0.0


@pytest.mark.parametrize("buckets", [LINEAR, LOGARITHMIC], ids=["linear", "logarithmic"])
def test_slopes(buckets: tuple[Row, ...]) -> None:
    """At the outermost edges, which have no neighbor, the density is extrapolated."""
    expected = [(AT_EDGE - 100) / 100, (300 - AT_EDGE) / 300]
    assert density._slopes(axes(buckets)) == pytest.approx(expected)


def test_slopes_at_a_gap() -> None:
    """The density falls to 0 toward an empty bucket; it is constant in a single bucket and in one without width."""
    apart = (Row(-9.0, -8.0, 10), Row(-2.0, -1.0, 10))
    assert density._slopes(axes(apart)) == pytest.approx([-density._STEEPEST, density._STEEPEST])
    for alone in ((Row(-2.0, -1.0, 10),), (Row(1.0, 1.0, 10),)):
        assert density._slopes(axes(alone)) == [0.0]
    assert density._relative_rise(0.0, 0.0) == 0.0


def test_slope_next_to_a_dense_bucket() -> None:
    """In a wide sparse bucket next to a narrow dense one, the density falls to 0, and is never negative."""
    buckets = (Row(-20.0, -2.0, 9), Row(-2.0, -1.0, 900))
    assert density._slopes(axes(buckets))[0] == density._STEEPEST


@pytest.mark.parametrize("axis", axes((Row(-4.0, -2.0, 1), Row(1.0, 9.0, 1))), ids=repr)
@pytest.mark.parametrize("slope", [-0.9, 0.0, 1e-7, 0.5])
def test_mean_and_quantiles(axis: density._Axis, slope: float) -> None:
    """The mean and the quantiles are those of samples with this density along the axis."""
    steps = 20_000
    positions = [(step + 0.5) / steps for step in range(steps)]
    weights = [1 + slope * (2 * position - 1) for position in positions]
    values = [axis.value(position) for position in positions]
    mean = math.fsum(value * weight for value, weight in zip(values, weights, strict=True)) / steps
    assert axis.mean(slope) == pytest.approx(mean, rel=1e-6)
    for position in (0.0, 0.25, 0.6, 1.0):
        share = position + slope * (position**2 - position)  # the integral of the density from 0 to the position
        assert density._quantile(share, slope) == pytest.approx(position, abs=1e-6)


def test_parts() -> None:
    """Up to four samples stay together; more are divided in proportion to the square root of their number."""
    weights = [math.sqrt(samples) for samples in (4, 5, 100, 400)]
    room = 40 - 4
    expected = [1, 2, 1 + int(room * 10 / sum(weights)), 1 + int(room * 20 / sum(weights))]
    assert density._parts([4, 5, 100, 400], 40) == expected


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("total", [-1650.0, -1500.0, -1350.0])
def test_refined(total: float, scale: float) -> None:
    """The parts keep all samples and the outer edges, do not overlap, and have approximately the requested total."""
    total *= scale
    refined = density.refined(scaled(LINEAR, scale), total, 60)
    assert refined is not None
    parts = rows(refined)
    assert sum(part.samples for part in parts) == 700
    assert (parts[0].lower, parts[-1].upper) == (-4.0 * scale, -1.0 * scale)
    assert all(first.upper == second.lower for first, second in pairwise(parts))
    assert 10 < len(parts) <= 60
    middles = math.fsum((part.lower + part.upper) / 2 * part.samples for part in parts)
    assert middles == pytest.approx(total, rel=0.01)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("total", [-2200.0, -900.0])
def test_nothing_to_refine(total: float, scale: float) -> None:
    """Buckets whose samples all lie at their edges cannot be divided."""
    assert density.refined(scaled(LINEAR, scale), total * scale, 60) is None


def test_which_buckets_hold_percentiles() -> None:
    """The buckets that hold percentiles are those in which 50 %, 75 %, 90 % ... of all samples are reached."""
    assert distribution._indices_of_percentiles([1, 1, 1, 997]) == {3}
    assert distribution._indices_of_percentiles([50, 25, 15, 5, 4, 1]) == {0, 1, 2, 3, 4, 5}


def test_overfull_buckets_are_divided() -> None:
    """Over-full buckets are divided evenly, into parts of at least six samples, while there is room."""
    overfull = [Row(0.0, 10.0, 60), Row(10.0, 20.0, 6)]
    parts = [Row(float(i), i + 1.0, 6) for i in range(10)]
    assert with_overfull_divided(overfull) == [*parts, overfull[1]]
    assert with_overfull_divided([Row(0.0, 2.0, 12)]) == [Row(0.0, 1.0, 6), Row(1.0, 2.0, 6)]
    assert with_overfull_divided([Row(0.0, 2.0, 11)]) == [Row(0.0, 2.0, 11)]
    many = adjacent([600] * 100)
    assert with_overfull_divided(many) == many


@pytest.mark.parametrize("total", [70.0, 650.0])
def test_overfull_buckets_stay_whole_for_the_sum(total: float) -> None:
    """An over-full bucket is not divided if its samples are so near one end that its parts could not have the sum."""
    overfull = [Row(0.0, 10.0, 60), Row(10.0, 20.0, 6)]
    values, counts = inner_values(overfull, total)
    assert counts == [60, 6]
    assert math.fsum(value * count for value, count in zip(values, counts, strict=True)) == pytest.approx(total)
    assert all(row.lower <= value <= row.upper for row, value in zip(overfull, values, strict=True))


def test_percentiles_get_the_last_room() -> None:
    """If there is little room, only the buckets that hold common percentiles are divided."""
    divided = with_overfull_divided(adjacent([600] * 136))
    indices = distribution._indices_of_percentiles([600] * 136)
    assert {int(row.lower) for row in divided if row.samples < 600} == indices
    assert len(divided) == 136 + 12


def test_possible_sums() -> None:
    """The smallest possible sum has all samples at the lower edges, and the largest has them at the upper edges."""
    buckets = buckets_of([(0.0, 1.0, 2), (1.0, 2.0, 1)])
    totals = (0.9, 1.0, 4.0, 4.1)
    assert [distribution._can_add_up_to(buckets, total) for total in totals] == [False, True, True, False]


def test_open_buckets_are_closed() -> None:
    """Open buckets extend only as far as the sum requires, with all other samples in the middle of their buckets."""
    low, middle, high = Row(-math.inf, 10.0, 1), Row(10.0, 20.0, 1), Row(20.0, math.inf, 2)
    assert closed([low, middle, high], 220.0) == [(0.0, 10.0), (10.0, 20.0), (100.0, 100.0)]
    assert closed([low, middle], 10.0) == [(0.0, 10.0), (10.0, 20.0)]
    assert closed([low, middle], 9.0) == [(-6.0, -6.0), (10.0, 20.0)]


def test_each_kind_of_histogram_is_divided_differently() -> None:
    """Explicit buckets are divided by density; exponential buckets, which are narrow, are divided evenly."""
    buckets = [Row(-4.0, -3.0, 60), Row(-3.0, -2.0, 180)]
    total = -60 * 3.5 - 180 * 2.5
    _, by_density = inner_values(buckets, total, is_explicit=True)
    _, evenly = inner_values(buckets, total)
    assert evenly == [6] * 40
    finer = density.refined(buckets_of(buckets), total, distribution.MAX_BUCKETS)
    assert finer is not None
    assert by_density == finer[0]
    assert len(by_density) > len(evenly)


def test_no_bucket_is_joined_without_need() -> None:
    """If the buckets fit in a data point, each has its own value."""
    number = distribution.MAX_BUCKETS
    values, counts = inner_values(adjacent([1] * number), number * number / 2)
    assert len(values) == len(counts) == number


def test_only_the_closest_values_are_merged() -> None:
    """With two values too many, the two closest pairs become one value each, and the other values do not change."""
    apart = [float(10 * i) for i in range(152)]
    near = [*apart]
    near[52], near[102] = near[51] + 1, near[101] + 2
    whole = distribution.combined([distribution.Distribution.of((value, 1) for value in near)])
    kept = [value for i, value in enumerate(near) if i not in (51, 52, 101, 102)]
    sent = [*zip(*whole, strict=True)]
    assert [value for value, count in sent if count == 1] == kept
    assert [(value, count) for value, count in sent if count > 1] == [(510.5, 2), (1011.0, 2)]
