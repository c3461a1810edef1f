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
