"""Where in their buckets samples lie: the edges, slopes and parts that are worked out of neighbours."""

import math
from itertools import pairwise

import pytest

from otel_cloudwatch_flask import density, distribution
from otel_cloudwatch_flask.histogram import Bucket

# Twice as wide, six times as many samples. Monotone cubic interpolation gives, for intervals of 1 and 2 with 100 and
# 300 samples per unit, 9 / (5 / 100 + 4 / 300) at the edge between them.
AT_EDGE = 9 / (5 / 100 + 4 / 300)
LINEAR = (Bucket(-4.0, -3.0, 100), Bucket(-3.0, -1.0, 600))
LOGARITHMIC = (Bucket(1.0, 2.0, 100), Bucket(2.0, 8.0, 600))

SCALES = [1.0, 1e-6]
"""The unit makes no difference."""


def scaled(buckets: tuple[Bucket, ...], scale: float) -> list[Bucket]:
    """The same samples in another unit."""
    return [Bucket(lower * scale, upper * scale, samples) for lower, upper, samples in buckets]


def axes(buckets: tuple[Bucket, ...]) -> list[density._Axis]:
    """The axis of each."""
    return [density._Axis.of(bucket) for bucket in buckets]


def test_which_axis() -> None:
    """Wide buckets of positive values are looked at on a logarithmic axis; others are not."""
    cases = [(1.0, 2.0), (1.0, 1.009), (-2.0, -1.0), (0.0, 5.0), (3.0, 3.0)]
    assert [density._Axis.of(Bucket(*edges, 1)).is_logarithmic for edges in cases] == [True, False, False, False, False]


def test_density_at_a_shared_edge() -> None:
    """It is between those of both sides, on either axis; where there is a gap, or no width, it is 0."""
    assert density._density_at_shared_edge(LINEAR, axes(LINEAR)) == pytest.approx(AT_EDGE)
    mixed = (Bucket(0.0, 1.0, 100), Bucket(1.0, 3.0, 600))
    assert density._density_at_shared_edge(mixed, axes(mixed)) == pytest.approx(AT_EDGE)
    per_unit = AT_EDGE / math.log(2) / 2.0
    assert density._density_at_shared_edge(LOGARITHMIC, axes(LOGARITHMIC)) == pytest.approx(per_unit)
    for second in (Bucket(-2.9, -1.0, 600), Bucket(-3.0, -3.0, 600)):
        assert density._density_at_shared_edge((LINEAR[0], second), axes((LINEAR[0], second))) == 0.0


@pytest.mark.parametrize("buckets", [LINEAR, LOGARITHMIC], ids=["linear", "logarithmic"])
def test_slopes(buckets: tuple[Bucket, ...]) -> None:
    """At the outermost edges, which have no neighbour, the density goes on as it came."""
    expected = [(AT_EDGE - 100) / 100, (300 - AT_EDGE) / 300]
    assert density._slopes(buckets, axes(buckets)) == pytest.approx(expected)


def test_slopes_at_a_gap() -> None:
    """Beside an empty bucket the density falls to nothing; alone, and without width, it is even."""
    apart = (Bucket(-9.0, -8.0, 10), Bucket(-2.0, -1.0, 10))
    assert density._slopes(apart, axes(apart)) == pytest.approx([-density._STEEPEST, density._STEEPEST])
    for alone in ((Bucket(-2.0, -1.0, 10),), (Bucket(1.0, 1.0, 10),)):
        assert density._slopes(alone, axes(alone)) == [0.0]
    assert density._relative_rise(0.0, 0.0) == 0.0


def test_slopes_beside_many() -> None:
    """A wide bucket of few samples beside a narrow one of many has them all at that end, and no less than none."""
    buckets = (Bucket(-20.0, -2.0, 9), Bucket(-2.0, -1.0, 900))
    assert density._slopes(buckets, axes(buckets))[0] == density._STEEPEST


@pytest.mark.parametrize("axis", axes((Bucket(-4.0, -2.0, 1), Bucket(1.0, 9.0, 1))), ids=repr)
@pytest.mark.parametrize("slope", [-0.9, 0.0, 1e-7, 0.5])
def test_mean_and_quantiles(axis: density._Axis, slope: float) -> None:
    """Both are those of samples with this density along the axis."""
    steps = 20_000
    positions = [(step + 0.5) / steps for step in range(steps)]
    weights = [1 + slope * (2 * position - 1) for position in positions]
    values = [axis.value(position) for position in positions]
    mean = math.fsum(value * weight for value, weight in zip(values, weights, strict=True)) / steps
    assert axis.mean(slope) == pytest.approx(mean, rel=1e-6)
    for position in (0.0, 0.25, 0.6, 1.0):
        share = position + slope * (position**2 - position)  # the integral of the density up to there
        assert density._quantile(share, slope) == pytest.approx(position, abs=1e-6)


def test_parts() -> None:
    """Few samples stay together; more are divided, with the root of their number, into at least two of each."""
    buckets = [Bucket(0.0, 1.0, samples) for samples in (4, 5, 100, 400)]
    weights = [math.sqrt(samples) for samples in (4, 5, 100, 400)]
    room = 40 - 4
    expected = [1, 2, 1 + int(room * 10 / sum(weights)), 1 + int(room * 20 / sum(weights))]
    assert density._parts(buckets, 40) == expected


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("total", [-1650.0, -1500.0, -1350.0])
def test_refined(total: float, scale: float) -> None:
    """No sample is lost, no edge moves, nothing overlaps, and the sum is about what it was said to be."""
    total *= scale
    parts = density.refined(scaled(LINEAR, scale), total, 60)
    assert parts is not None
    assert sum(part.samples for part in parts) == 700
    assert (parts[0].lower, parts[-1].upper) == (-4.0 * scale, -1.0 * scale)
    assert all(first.upper == second.lower for first, second in pairwise(parts))
    assert 10 < len(parts) <= 60
    middles = math.fsum((part.lower + part.upper) / 2 * part.samples for part in parts)
    assert middles == pytest.approx(total, rel=0.01)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("total", [-2200.0, -900.0])
def test_nothing_to_refine(total: float, scale: float) -> None:
    """Where all samples lie at the edges of their buckets, there is nothing to divide."""
    assert density.refined(scaled(LINEAR, scale), total * scale, 60) is None


def test_which_neighbours_are_joined() -> None:
    """Those that touch, then those where no percentile is read, then the emptiest; none with two others."""
    buckets = [Bucket(i, i + 1.0, samples) for i, samples in enumerate((100, 1, 1, 100, 100, 2, 2, 100))]
    assert [distribution._to_join(buckets, most) for most in (1, 2, 3)] == [{1}, {1, 5}, {1, 3, 5}]
    apart = [*buckets[:2], *(Bucket(each.lower + 1, each.upper + 1, each.samples) for each in buckets[2:])]
    assert distribution._to_join(apart, 1) == {0}
    last = [Bucket(i, i + 1.0, samples) for i, samples in enumerate((100, 100, 100, 1, 1))]
    assert distribution._to_join(last, 1) == {3}


def test_which_buckets_hold_percentiles() -> None:
    """Those in which so many samples of all are reached."""
    assert distribution._places_of_percentiles([1, 1, 1, 997]) == {3}
    assert distribution._places_of_percentiles([50, 25, 15, 5, 4, 1]) == {0, 1, 2, 3, 4, 5}


@pytest.mark.parametrize("number", [137, 149, 201, 1000])
def test_as_many_as_there_is_room_for(number: int) -> None:
    """No more buckets are joined than have to be."""
    buckets = [Bucket(i, i + 1.0, 1 + i % 7) for i in range(number)]
    joined = distribution._coarsened(buckets, 136)
    assert len(joined) == 136
    assert sum(bucket.samples for bucket in joined) == sum(bucket.samples for bucket in buckets)


def test_crowded_buckets_are_divided() -> None:
    """Evenly, into parts of six samples at least, as far as there is room, and if the sum can still be had."""
    crowded = [Bucket(0.0, 10.0, 60), Bucket(10.0, 20.0, 6)]
    parts = [Bucket(float(i), i + 1.0, 6) for i in range(10)]
    assert distribution._with_crowded_divided(crowded, 390.0) == [*parts, crowded[1]]
    assert distribution._with_crowded_divided(crowded, 70.0) == crowded
    halves = [Bucket(0.0, 2.0, 12)]
    assert distribution._with_crowded_divided(halves, 12.0) == [Bucket(0.0, 1.0, 6), Bucket(1.0, 2.0, 6)]
    many = [Bucket(float(i), i + 1.0, 600) for i in range(100)]
    assert distribution._with_crowded_divided(many, 600 * 5000.0) == many


def test_where_percentiles_are_read_room_is_kept() -> None:
    """Where there is next to none, only the buckets are divided that hold percentiles."""
    buckets = [Bucket(float(i), i + 1.0, 600) for i in range(136)]
    divided = distribution._with_crowded_divided(buckets, 600 * 136 * 68.0)
    places = distribution._places_of_percentiles([600] * 136)
    assert {int(bucket.lower) for bucket in divided if bucket.samples < 600} == places
    assert len(divided) == 136 + 12


def test_sums_at_either_end_can_be_had() -> None:
    """All samples may lie at the lower edges, or all at the upper."""
    buckets = [Bucket(0.0, 1.0, 2), Bucket(1.0, 2.0, 1)]
    totals = (0.9, 1.0, 4.0, 4.1)
    assert [distribution._can_add_up_to(buckets, total) for total in totals] == [False, True, True, False]


def test_open_buckets_are_closed() -> None:
    """Where the others are in the middle of their buckets, and no farther out than the sum needs."""
    low, middle, high = Bucket(-math.inf, 10.0, 1), Bucket(10.0, 20.0, 1), Bucket(20.0, math.inf, 2)
    closed = [Bucket(0.0, 10.0, 1), middle]
    assert distribution._closed([low, middle, high], 220.0) == [*closed, Bucket(100.0, 100.0, 2)]
    assert distribution._closed([low, middle], 10.0) == closed
    assert distribution._closed([low, middle], 9.0) == [Bucket(-6.0, -6.0, 1), middle]


def test_each_kind_of_histogram_is_divided_in_its_way() -> None:
    """The buckets of an explicit one by density, the narrow ones of an exponential one evenly."""
    buckets = [Bucket(-4.0, -3.0, 60), Bucket(-3.0, -2.0, 180)]
    total = -60 * 3.5 - 180 * 2.5
    by_density, evenly = (distribution._inner_values(buckets, total, is_explicit=each) for each in (True, False))
    assert [value.samples for value in evenly] == [6] * 40
    finer = density.refined(buckets, total, distribution.MAX_BUCKETS)
    assert finer is not None
    assert [value.samples for value in by_density] == [bucket.samples for bucket in finer]
    assert len(by_density) > len(evenly)


def test_no_bucket_is_joined_without_need() -> None:
    """As many buckets as a datum has values keep one each."""
    buckets = [Bucket(float(i), i + 1.0, 1) for i in range(distribution.MAX_BUCKETS)]
    total = math.fsum(bucket.lower + 0.5 for bucket in buckets)
    assert len(distribution._inner_values(buckets, total, is_explicit=False)) == distribution.MAX_BUCKETS


def test_only_the_nearest_values_share() -> None:
    """Of two values too many, the two nearest pairs become one value each, and no other changes."""
    apart = [float(10 * i) for i in range(152)]
    near = [*apart]
    near[52], near[150] = near[51] + 1, near[149] + 2
    whole = distribution.combined([distribution.Distribution.of((value, 1) for value in near)])
    kept = [value for i, value in enumerate(near) if i not in (51, 52, 149, 150)]
    assert [value for value, count in whole if count == 1] == kept
    assert [(value, count) for value, count in whole if count > 1] == [(510.5, 2), (1491.0, 2)]
