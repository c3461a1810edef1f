"""Addition, subtraction and negation of histograms, which temporality, merging and negative samples rely on."""

import math
from contextlib import nullcontext
from fractions import Fraction
from itertools import pairwise
from math import inf, nan

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from otel_cloudwatch_flask.histograms import buckets as module
from otel_cloudwatch_flask.histograms.buckets import (
    ExplicitHistogram,
    ExponentialHistogram,
    Extremes,
    edge,
    extremes_of_all,
    extremes_since,
    recorded_extremes,
    short_number_between,
)
from otel_cloudwatch_flask.limits import InvalidPointError
from tests.support.samples import UNRECORDED, explicit, exponential, rows, samples

BOUNDS = (-10.0, -1.0, 0.0, 0.5, 1.0, 10.0, 1000.0)
scales = st.integers(-3, 8)


def counts_of(histogram: ExplicitHistogram | ExponentialHistogram) -> tuple[object, ...]:
    """Return the counts of a histogram."""
    if isinstance(histogram, ExplicitHistogram):
        return (histogram.count, histogram.counts)
    return (histogram.count, histogram.zero_count, histogram.positive, histogram.negative)


def coarser_scale(*recordings: tuple[list[float], int]) -> int:
    """Return the lowest scale of the recordings; the scale of one with only zeros counts if there is no other."""
    return min([scale for recorded, scale in recordings if any(recorded)] or [scale for _, scale in recordings])


class TestExplicit:
    """Explicit-bucket histograms."""

    @given(samples(), samples())
    def test_plus(self, first: list[float], second: list[float]) -> None:
        """The sum of two histograms has the counts and extremes of a histogram of all samples."""
        together = explicit(first, BOUNDS).plus(explicit(second, BOUNDS))
        in_one = explicit([*first, *second], BOUNDS)
        assert counts_of(together) == counts_of(in_one)
        assert together.extremes == in_one.extremes

    @given(samples(), samples())
    def test_minus_undoes_plus(self, first: list[float], second: list[float]) -> None:
        """The difference of two cumulative points has the samples that were added in between."""
        a, b = explicit(first, BOUNDS), explicit(second, BOUNDS)
        added = a.plus(b).minus(a)
        assert added is not None
        assert counts_of(added) == counts_of(b)
        added.check()

    @pytest.mark.parametrize(
        ("later", "earlier"),
        [
            (explicit([1], (1, 2)), explicit([1], (1, 3))),
            (explicit([1], (1, 2)), explicit([1.5], (1, 2))),
            (explicit([1], (1, 2)), explicit([1, 1], (1, 2))),
        ],
        ids=["other-bounds", "a-bucket-lost-samples", "fewer-samples"],
    )
    def test_minus_of_no_continuation(self, later: ExplicitHistogram, earlier: ExplicitHistogram) -> None:
        """A point that does not continue the earlier one has no difference from it."""
        assert later.minus(earlier) is None

    def test_buckets(self) -> None:
        """Only non-empty buckets are listed, in ascending order; the outermost ones are open."""
        histogram = explicit([-5, 1, 1.5, 1.5, 99], (0, 1, 2, 3))
        assert rows(histogram.buckets()) == [(-inf, 0, 1), (0, 1, 1), (1, 2, 2), (3, inf, 1)]

    @pytest.mark.parametrize(
        ("counts", "bounds", "count", "total", "extremes", "contradiction"),
        [
            ((1, 1), (1.0,), 2, 3.0, recorded_extremes(1, 2), None),
            ((0, 0), (1.0,), 0, 0.0, recorded_extremes(inf, -inf), None),
            ((1, 1, 0), (1.0,), 2, 3.0, UNRECORDED, "1 bounds but 3 bucket counts"),
            ((1, 1, 0), (2.0, 1.0), 2, 3.0, UNRECORDED, "do not ascend"),
            ((1, 1, 0), (1.0, 1.0), 2, 3.0, UNRECORDED, "do not ascend"),
            ((3, -1), (1.0,), 2, 3.0, UNRECORDED, "a negative count"),
            ((1, 1), (1.0,), 3, 3.0, UNRECORDED, "a count of 3, but 2 samples"),
            ((1, 1), (1.0,), 2, nan, UNRECORDED, "a sum that is NaN or too large for a float"),
            ((1, 1), (1.0,), 2, inf, UNRECORDED, "a sum that is NaN or too large for a float"),
            ((1, 1), (1.0,), 2, 3.0, recorded_extremes(nan, 2), "that is NaN or too large for a float"),
            ((1, 1), (1.0,), 2, 3.0, recorded_extremes(-inf, 2), "that is NaN or too large for a float"),
            ((1, 1), (1.0,), 2, 3.0, recorded_extremes(1, inf), "that is NaN or too large for a float"),
            ((1, 1), (1.0,), 2, 3.0, recorded_extremes(-(10**400), 2), "that is NaN or too large for a float"),
            ((1, 1), (1.0,), 2, 3.0, recorded_extremes(None, 10**400), "that is NaN or too large for a float"),
            ((1, 1), (1.0,), 2, 3.0, recorded_extremes(2, 1), "a minimum of 2 above the maximum of 1"),
            ((1, 1), (1.0,), 2, 3.0, recorded_extremes(1.5, 2), "outside the first non-empty bucket"),
            ((1, 1), (1.0,), 2, 3.0, recorded_extremes(0, 0.5), "outside the last non-empty bucket"),
        ],
    )
    def test_contradictions(
        self,
        counts: tuple[int, ...],
        bounds: tuple[float, ...],
        count: int,
        total: float,
        extremes: Extremes,
        *,
        contradiction: str | None,
    ) -> None:
        """Contradictory numbers are detected and described."""
        with nullcontext() if contradiction is None else pytest.raises(InvalidPointError, match=contradiction):
            ExplicitHistogram(count, total, extremes, bounds, counts).check()

    def test_a_sum_beyond_every_float_contradicts_nothing_else(self) -> None:
        """A sum of ints beyond the range of floats raises the error for invalid numbers, not an OverflowError."""
        histogram = ExplicitHistogram(20, 20 * 10**308, recorded_extremes(10**308, 10**308), (1.0,), (0, 20))
        with pytest.raises(InvalidPointError, match="a sum that is NaN or too large for a float"):
            histogram.check()


class TestExponential:
    """Exponential histograms."""

    @given(samples(), samples(), scales, scales)
    def test_plus(self, first: list[float], second: list[float], one: int, other: int) -> None:
        """The sum of two histograms has the counts of a histogram of all samples at the coarser scale."""
        assume(any(first) and any(second))  # The scale of zeros alone is ignored: see TestScaleOfZeros.
        together = exponential(first, one).plus(exponential(second, other))
        in_one = exponential([*first, *second], coarser_scale((first, one), (second, other)))
        assert together.scale == in_one.scale
        assert counts_of(together) == counts_of(in_one)
        assert together.extremes == in_one.extremes

    @given(samples(), samples(), scales, scales)
    def test_minus_undoes_plus(self, first: list[float], second: list[float], one: int, other: int) -> None:
        """The difference of two cumulative points has the samples added in between, even if the scale changed."""
        a, b = exponential(first, one), exponential(second, other)
        added = a.plus(b).minus(a)
        assert added is not None
        assert counts_of(added) == counts_of(exponential(second, coarser_scale((first, one), (second, other))))
        added.check()

    @given(samples(), scales)
    def test_buckets_hold_their_samples(self, recorded: list[float], scale: int) -> None:
        """Buckets are non-empty, ascend and contain all samples, and each contains the samples of its ranks."""
        buckets = rows(exponential(recorded, scale).buckets())
        assert sum(count for _, _, count in buckets) == len(recorded)
        assert all(upper <= next_lower for (_, upper, _), (next_lower, _, _) in pairwise(buckets))
        ranked = iter(sorted(recorded))
        for lower, upper, count in buckets:
            assert count > 0
            assert all(lower <= next(ranked) <= upper for _ in range(count))

    def test_minus_of_no_continuation(self) -> None:
        """A point with fewer samples in a bucket, in the zero bucket or in total is not a continuation."""
        assert exponential([1], 0).minus(exponential([4], 0)) is None
        assert exponential([-1], 0).minus(exponential([-4], 0)) is None
        assert exponential([4], 0).minus(exponential([0], 0)) is None
        assert exponential([4], 0).minus(exponential([4, 4], 0)) is None

    def test_zero_threshold_is_a_bucket(self) -> None:
        """The zero bucket extends to its threshold on both sides."""
        histogram = ExponentialHistogram(3, 0.0, UNRECORDED, 0, zero_count=3, zero_threshold=0.25)
        assert rows(histogram.buckets()) == [(-0.25, 0.25, 3)]

    def test_negative_count(self) -> None:
        """A bucket with a negative count is contradictory."""
        histogram = ExponentialHistogram(0, 0.0, UNRECORDED, 0, 1, 0.0, {1: -1})
        with pytest.raises(InvalidPointError, match="a negative count"):
            histogram.check()


class TestExtremes:
    """Known and unknown minima and maxima."""

    @pytest.mark.parametrize(
        ("now", "then", "since"),
        [
            ((1, 9), (2, 8), (1, 9)),
            ((1, 9), (1, 8), (None, 9)),
            ((1, 9), (2, 9), (1, None)),
            ((1, 9), (1, 9), (None, None)),
        ],
    )
    def test_since(
        self, now: tuple[float, float], then: tuple[float, float], since: tuple[float | None, float | None]
    ) -> None:
        """A cumulative extreme is the delta's extreme only if it changed; otherwise, it only bounds the delta."""
        extremes = extremes_since(recorded_extremes(*now), recorded_extremes(*then))
        assert extremes == (*since, *now)

    def test_unrecorded(self) -> None:
        """The SDK's inf and -inf, and ``None``, mean that no extremes were recorded."""
        assert recorded_extremes(inf, -inf) == recorded_extremes(None, None) == UNRECORDED

    def test_union_with_unknown(self) -> None:
        """The extremes of a union are known only if both sides' are; its bounds enclose those of both sides."""
        assert extremes_of_all(recorded_extremes(1, 2), recorded_extremes(None, 5)) == (None, 5, -inf, 5)


def neighbors_to_the_power(scale: int, value: float) -> tuple[Fraction, Fraction]:
    """Return the neighbors of a double, raised to the power that turns the exact edge into a power of two."""
    below, above = math.nextafter(value, 0), math.nextafter(value, inf)
    return Fraction(below) ** (1 << scale), Fraction(above) ** (1 << scale)


class TestEdge:
    """The edges of exponential buckets."""

    @pytest.mark.parametrize("scale", [1, 2, 3, 5, 7])
    @pytest.mark.parametrize("index", [-700, -333, -5, -1, 0, 1, 2, 3, 31, 97, 500])
    def test_within_one_unit_in_the_last_place(self, scale: int, index: int) -> None:
        """The exact edge, 2^(index / 2^scale), lies between the neighbors of the double."""
        low, high = neighbors_to_the_power(scale, edge(scale, index))
        assert low < Fraction(2) ** index < high

    @pytest.mark.parametrize("scale", [0, -1, -4])
    @pytest.mark.parametrize("index", [-60, -1, 0, 1, 63])
    def test_exact_powers(self, scale: int, index: int) -> None:
        """At scales up to 0, every edge is an exact power of two."""
        assert Fraction(edge(scale, index)) == Fraction(2) ** (index << -scale)

    @pytest.mark.parametrize(
        ("scale", "index", "expected"),
        [
            (0, 1024, inf),
            (-10, 1, inf),
            (-10, -2, 0.0),
            (0, -1022, 2.0**-1022),
            (0, -1023, 0.0),
            (20, 1024 << 20, inf),
            (20, -1100 << 20, 0.0),
        ],
    )
    def test_beyond_floats(self, scale: int, index: int, expected: float) -> None:
        """An edge outside the range of normal floats is 0 or inf."""
        assert edge(scale, index) == expected

    @given(st.integers(-10, 20), st.data())
    def test_ascends(self, scale: int, data: st.DataObject) -> None:
        """Edges ascend with the index, strictly so within the range of floats."""
        reach = 1000 << scale if scale >= 0 else 1000 >> -scale
        index = data.draw(st.integers(-reach, reach))
        assert edge(scale, index) < edge(scale, index + 1)

    def test_scales_agree(self) -> None:
        """An edge of a coarse scale is also an edge of every finer scale."""
        for index in range(-40, 40):
            assert edge(2, index) == edge(6, index << 4) == edge(20, index << 18)


class TestSides:
    """The buckets on one side of zero."""

    @given(st.dictionaries(st.integers(-3000, 3000), st.integers(0, 5), max_size=30), scales)
    def test_consecutive_buckets(self, samples: dict[int, int], scale: int) -> None:
        """Empty buckets of a consecutive range are left out."""
        first, last = min(samples, default=0), max(samples, default=0)
        counts = [samples.get(index, 0) for index in range(first, last + 1)]
        filled = {index: count for index, count in samples.items() if count}
        histogram = ExponentialHistogram(sum(counts), 0.0, UNRECORDED, scale, positive=filled)
        assert module.consecutive_buckets(scale, first, counts) == histogram.buckets()

    @given(st.dictionaries(st.integers(-3000, 3000), st.integers(1, 5), max_size=30), st.integers(1, 6))
    def test_coarser(self, samples: dict[int, int], steps: int) -> None:
        """Each bucket of a coarser scale has the samples of the buckets it covers, on both sides of zero."""
        coarser = module._coarser(samples, steps)
        for index, count in coarser.items():
            assert count == sum(samples.get(each, 0) for each in range(index << steps, (index + 1) << steps))
        assert sum(coarser.values()) == sum(samples.values())


class TestScaleOfZeros:
    """A histogram of zeros only has the SDK's scale 0, which must not affect other points."""

    @given(samples(), scales, st.integers(1, 100), st.integers(-10, 20))
    def test_merging_with_zeros_only(self, recorded: list[float], scale: int, zeros: int, scale_of_zeros: int) -> None:
        """Merged with zeros in either order, the other point keeps its scale and buckets."""
        point, nothing = exponential(recorded, scale), exponential([0.0] * zeros, scale_of_zeros)
        expected = exponential([*recorded, *[0.0] * zeros], scale)
        for together in (point.plus(nothing), nothing.plus(point)):
            assert counts_of(together) == counts_of(expected)
            assert together.buckets() == expected.buckets()

    @given(samples(), scales, st.integers(1, 100))
    def test_a_delta_from_zeros_only(self, recorded: list[float], scale: int, zeros: int) -> None:
        """The difference from a cumulative point with only zeros keeps the scale of the later point."""
        before, now = exponential([0.0] * zeros, 0), exponential([*[0.0] * zeros, *recorded], scale)
        added = now.minus(before)
        assert added is not None
        assert counts_of(added) == counts_of(exponential(recorded, scale))
        assert added.buckets() == exponential(recorded, scale).buckets()


class TestReferences:
    """Each bucket has a cached reference value: a short number near its middle."""

    @given(st.floats(1e-100, 1e100), st.floats(1e-9, 1.0))
    def test_short_and_near_the_middle(self, lower: float, width: float) -> None:
        """The reference is inside its bucket and near the middle, and has no more digits than necessary."""
        upper = lower * (1 + width)
        number = short_number_between(lower, upper)
        assert lower + 0.37 * (upper - lower) <= number <= lower + 0.63 * (upper - lower)
        assert len(repr(number).removesuffix(".0")) <= max(len(f"{(lower + upper) / 2:.17g}"), 7)

    @given(st.floats(-1e100, 1e100), st.floats(0, 1e100))
    def test_within_any_bucket(self, lower: float, width: float) -> None:
        """The reference is inside its bucket, whatever the bucket's sign and width."""
        assert lower <= short_number_between(lower, lower + width) <= lower + width

    @given(st.integers(-1, 12), st.integers(-2000, 2000))
    def test_inside_its_bucket(self, scale: int, index: int) -> None:
        """The reference is not an edge of its bucket if there is another number between the edges."""
        found = ExponentialHistogram(1, 0.0, UNRECORDED, scale, positive={index: 1}).buckets()
        _, ((lower, upper, reference),) = found
        if lower > 0 and upper < inf:
            assert lower < reference < upper

    def test_asked_for_again(self) -> None:
        """Histograms with the same buckets share the cached bucket objects."""
        first, second = (exponential([1.0, 2.5, 9.0], 3).buckets()[1] for _ in range(2))
        assert all(one is other for one, other in zip(first, second, strict=True))

    @pytest.mark.parametrize("scale", [3, 20])
    def test_any_number_of_buckets(self, scale: int) -> None:
        """Buckets are correct even if there are more of them than the cache can hold, at any index."""
        number = module._MAX_CACHED_BUCKETS + 7
        for first in (-5000, -1, 0, 255):
            found = module.consecutive_buckets(scale, first, [1] * number)
            assert rows(found) == [
                (edge(scale, index), edge(scale, index + 1), 1) for index in range(first, first + number)
            ]

    def test_the_cache_is_bounded(self) -> None:
        """The number of cached scales and of cached buckets per scale is bounded."""
        for scale in range(-2, 21):
            module.consecutive_buckets(scale, 0, [1] * (module._MAX_CACHED_BUCKETS + 7))
            assert 0 < len(module._cached_buckets(scale)) <= module._MAX_CACHED_BUCKETS
        assert module._cached_buckets.cache_info().currsize <= module._MAX_CACHED_SCALES
