"""The statistics that CloudWatch derives from published values and counts are those of the recorded samples."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from otel_cloudwatch_flask.histograms.buckets import (
    ExplicitHistogram,
    Extremes,
    Histogram,
    edge,
    recorded_extremes,
)
from otel_cloudwatch_flask.histograms.values_counts import MAX_BUCKETS, Distribution, combined, distribution
from otel_cloudwatch_flask.limits import MAX_VALUES_PER_DATUM, InvalidPointError
from tests.support.samples import UNRECORDED, Row, explicit, exponential, rows, samples

bounds = st.one_of(
    st.just((0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1000.0)),
    st.just(()),
    st.lists(st.integers(-4000, 4000).map(lambda quarters: quarters / 4), max_size=12, unique=True).map(
        lambda each: tuple(sorted(each))
    ),
    st.just(tuple(float(each) for each in range(-20, 300))),
)


def one_sided(recorded: Sequence[float], *, has_minimum: bool, has_maximum: bool) -> Extremes:
    """Return the extremes of a data point that may lack a minimum or maximum."""
    return recorded_extremes(min(recorded) if has_minimum else None, max(recorded) if has_maximum else None)


@st.composite
def histograms(draw: st.DrawFn, *, min_size: int = 1, max_size: int = 60) -> tuple[Histogram, list[float]]:
    """Draw samples, some of them repeated to fill a bucket, and a histogram of them."""
    recorded = draw(samples(min_size=min_size, max_size=max_size))
    recorded += recorded[:5] * draw(st.sampled_from([0, 0, 3, 50]))
    extremes = one_sided(recorded, has_minimum=draw(st.booleans()), has_maximum=draw(st.booleans()))
    if draw(st.booleans()):
        return explicit(recorded, draw(bounds), extremes=extremes), recorded
    return exponential(recorded, draw(st.integers(-3, 12)), extremes=extremes), recorded


def each_sample(made: Distribution) -> list[float]:
    """Return the value of each sample, in ascending order."""
    return [value for value, count in zip(*made, strict=True) for _ in range(count)]


def by_rank(made: Distribution, buckets: Sequence[Row]) -> Iterator[tuple[float, Row]]:
    """Yield each value with each bucket that contains any of its samples, by rank."""
    ends = list(accumulate(bucket.samples for bucket in buckets))
    start = 0
    for value, count in zip(*made, strict=True):
        first, last = bisect_right(ends, start), bisect_left(ends, start + count)
        yield from ((value, buckets[i]) for i in range(first, last + 1))
        start += count


def assert_sum(made: Distribution, total: float, *, rounding: float = 0.0) -> None:
    """Assert that the error of the sum is within the promised fraction of the sum of magnitudes."""
    weight = math.fsum(abs(value) * count for value, count in zip(*made, strict=True))
    assert abs(math.fsum([made.total, -total])) <= 1e-9 * weight + rounding


class TestProperties:
    """Properties of every histogram of real samples."""

    @given(histograms())
    def test_count_and_form(self, case: tuple[Histogram, list[float]]) -> None:
        """Counts are positive ints whose sum is the number of samples; values ascend, and there are at most 150."""
        histogram, recorded = case
        made = distribution(histogram)
        assert made.samples == histogram.count == len(recorded)
        assert all(type(count) is int and count > 0 for count in made.counts)
        assert all(low < high for low, high in pairwise(made.values))
        assert len(made.values) == len(made.counts) <= MAX_VALUES_PER_DATUM

    @given(histograms())
    def test_sum(self, case: tuple[Histogram, list[float]]) -> None:
        """The sum equals the recorded sum."""
        histogram, _ = case
        assert_sum(distribution(histogram), histogram.sum)

    @given(histograms())
    def test_extremes(self, case: tuple[Histogram, list[float]]) -> None:
        """Recorded extremes are the smallest and the largest value, bit for bit."""
        histogram, _ = case
        made = distribution(histogram)
        minimum, maximum, _, _ = histogram.extremes
        if minimum is not None:
            assert made.values[0] == minimum
        if maximum is not None:
            assert made.values[-1] == maximum

    @given(histograms())
    def test_values_lie_in_the_buckets_of_their_samples(self, case: tuple[Histogram, list[float]]) -> None:
        """By rank, every value is in the bucket of its sample, edges included."""
        histogram, _ = case
        buckets = rows(histogram.buckets())
        if len(buckets) <= MAX_BUCKETS:
            for value, bucket in by_rank(distribution(histogram), buckets):
                assert bucket.lower <= value <= bucket.upper

    @given(
        st.lists(st.integers(-1500, 1500), min_size=149, max_size=700, unique=True),
        st.lists(st.integers(1, 30), min_size=1, max_size=9),
        st.booleans(),
        st.booleans(),
    )
    def test_more_buckets_than_values(
        self,
        indices: list[int],
        repeats: list[int],
        has_minimum: bool,  # noqa: FBT001 - drawn by hypothesis
        has_maximum: bool,  # noqa: FBT001 - drawn by hypothesis
    ) -> None:
        """Beyond 148 non-empty buckets, neighbors share values; at least 75 remain, and statistics are exact."""
        recorded = [
            math.copysign(math.sqrt(edge(3, abs(index)) * edge(3, abs(index) + 1)), index)
            for place, index in enumerate(indices)
            for _ in range(repeats[place % len(repeats)])
        ]
        histogram = exponential(
            recorded, 3, extremes=one_sided(recorded, has_minimum=has_minimum, has_maximum=has_maximum)
        )
        made = distribution(histogram)
        assert made.samples == len(recorded)
        assert 75 <= len(made.values) <= MAX_VALUES_PER_DATUM
        assert_sum(made, histogram.sum)
        assert not has_minimum or made.values[0] == min(recorded)
        assert not has_maximum or made.values[-1] == max(recorded)

    @given(histograms(), st.sampled_from([0.001, 60.0, 86400.0, 1.024**4]))
    def test_scaled(self, case: tuple[Histogram, list[float]], factor: float) -> None:
        """A factor scales every value."""
        histogram, recorded = case
        assume(max(map(abs, recorded)) < 2.0**320)
        made = distribution(replace(histogram, factor=factor))
        assert made.samples == histogram.count
        assert_sum(made, histogram.sum * factor)
        minimum, _, _, _ = histogram.extremes
        if minimum is not None:
            assert made.values[0] == minimum * factor

    @given(histograms())
    def test_percentiles_are_within_a_bucket(self, case: tuple[Histogram, list[float]]) -> None:
        """The value of each rank is in the bucket of the rank's sample, so it is off by at most the bucket's width."""
        histogram, recorded = case
        buckets = rows(histogram.buckets())
        if len(buckets) > MAX_BUCKETS:
            return
        made = distribution(histogram)
        values = each_sample(made)
        ends = list(accumulate(bucket.samples for bucket in buckets))
        for rank, sample in enumerate(sorted(recorded)):
            bucket = buckets[bisect_right(ends, rank)]
            assert abs(values[rank] - sample) <= bucket.upper - bucket.lower


class TestFewSamples:
    """Samples that the histogram's numbers determine completely are exact."""

    @pytest.mark.parametrize("sample", [0.0, 7.3, -7.3, 1e100, 5.0])
    @pytest.mark.parametrize("extremes", [None, UNRECORDED])
    def test_one(self, sample: float, extremes: Extremes | None) -> None:
        """A single sample is exact, with or without minimum and maximum."""
        for histogram in (
            explicit([sample], (5.0, 10.0), extremes=extremes),
            exponential([sample], 0, extremes=extremes),
        ):
            assert distribution(histogram) == Distribution([sample], [1])

    def test_two(self) -> None:
        """Two samples are the minimum and the maximum."""
        assert distribution(explicit([3.3, 4.4], (10.0,))) == Distribution([3.3, 4.4], [1, 1])

    def test_three(self) -> None:
        """The third of three samples follows from the sum."""
        assert distribution(explicit([3.0, 3.5, 4.5], (10.0,))) == Distribution([3.0, 3.5, 4.5], [1, 1, 1])

    def test_equal_samples(self) -> None:
        """Equal samples become one value."""
        assert distribution(explicit([4.0] * 1000, (3.0, 5.0))) == Distribution([4.0], [1000])
        assert distribution(exponential([4.0] * 1000, 5)) == Distribution([4.0], [1000])


class TestDeltas:
    """Differences of cumulative histograms."""

    @given(
        st.lists(st.floats(1e-3, 1e12), min_size=1, max_size=30),
        st.floats(1e-3, 1e12),
        st.one_of(st.none(), st.integers(-3, 12)),
    )
    def test_one_sample_is_in_its_bucket(self, before: list[float], sample: float, scale: int | None) -> None:
        """A single sample stays in its bucket even if the difference of two large sums is inexact."""
        bounds = (0.01, 1.0, 100.0, 1e6)

        def total_of(recorded: list[float]) -> Histogram:
            made = explicit(recorded, bounds) if scale is None else exponential(recorded, scale)
            return replace(made, sum=sum(recorded))

        added = total_of([*before, sample]).minus(total_of(before))
        assert added is not None
        made = distribution(added)
        assert (made.samples, len(made.values)) == (1, 1)
        (bucket,) = rows(added.buckets())
        assert bucket.lower <= made.values[0] <= bucket.upper
        assert made.values[0] <= max([*before, sample])

    @given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=30), st.lists(st.floats(1e-3, 1e6), max_size=30))
    def test_zeros_only_do_not_coarsen(self, before: list[float], added: list[float]) -> None:
        """A point with only zeros has the SDK's scale 0; merging the point only adds to the count of zeros."""
        fine = exponential([*before, *added], 10)
        merged = distribution(fine.plus(exponential([0.0] * 7, 0)))
        alone = distribution(exponential([*before, *added, *[0.0] * 7], 10))
        assert merged == alone
        assert merged.counts[0] == 7


class TestOpenBuckets:
    """Without a recorded minimum and maximum, an open bucket extends as far as the sum requires."""

    def test_upper(self) -> None:
        """Samples above the last bound have the mean that results from the sum."""
        made = distribution(explicit([5.0, 100.0, 100.0], (10.0,), extremes=UNRECORDED))
        assert made.total == pytest.approx(205)
        assert made.values[0] <= 10
        assert made.values[-1] == pytest.approx(100, rel=0.1)

    def test_lower_stays_above_zero(self) -> None:
        """If the first bound is not negative, values are not negative unless the sum requires it."""
        made = distribution(explicit([1.0, 2.0, 6.0], (5.0, 10.0), extremes=UNRECORDED))
        assert made.values[0] >= 0
        assert made.total == pytest.approx(9)

    def test_lower_goes_below_zero_for_the_sum(self) -> None:
        """Values are negative if the sum requires it."""
        made = distribution(explicit([-50.0, 1.0, 6.0], (5.0, 10.0), extremes=UNRECORDED))
        assert made.values[0] < 0
        assert made.total == pytest.approx(-43)

    def test_single_bucket(self) -> None:
        """Without bounds, only the mean is known."""
        assert distribution(explicit([1.0, 2.0, 6.0], (), extremes=UNRECORDED)).total == pytest.approx(9)


class TestExplicitSpread:
    """Samples are spread within an explicit bucket, so percentiles are interpolated."""

    def test_median_of_a_uniform_bucket(self) -> None:
        """The median of evenly distributed samples in one bucket is near the bucket's middle."""
        recorded = [i / 10 for i in range(1001)]
        values = each_sample(distribution(explicit(recorded, (0.0, 100.0))))
        assert values[500] == pytest.approx(50, abs=1)
        assert values[900] == pytest.approx(90, abs=1)

    def test_a_density_that_falls(self) -> None:
        """Where the density falls, most samples of a bucket are near the fuller neighbor."""
        recorded = [10 / (1 - 0.9 * i / 1000) for i in range(1001)]
        values = each_sample(distribution(explicit(recorded, (10.0, 30.0, 100.0))))
        for rank in (100, 370, 600, 800, 900):
            assert values[rank] == pytest.approx(recorded[rank], rel=0.03)

    def test_at_most_150_values(self) -> None:
        """The values fit in a data point for any number of samples and buckets."""
        recorded = [i / 7 for i in range(5000)]
        assert 75 <= len(distribution(explicit(recorded, tuple(float(i) for i in range(0, 700, 5)))).values) <= 150


class TestUnsendable:
    """Histograms with numbers that CloudWatch does not accept are not sent."""

    @pytest.mark.parametrize(
        "histogram",
        [
            explicit([1.0, 1e150], (10.0,)),
            explicit([-1e150, 1.0], (10.0,)),
            explicit([1.0, 1e150], (10.0,), extremes=UNRECORDED),
            exponential([1e150], 0),
            ExplicitHistogram(2, 4e108, recorded_extremes(1e108, 2e108), (), (2,), factor=86400.0),
            ExplicitHistogram(4, 1.7e308, recorded_extremes(-1.7e308, 1.7e308), (0.0,), (2, 2), factor=0.5),
            exponential([-1.7e308, 1.7e308, 1.7e308], 3),
        ],
        ids=["maximum", "minimum", "sum", "single", "after-scaling", "both", "exponential"],
    )
    def test_beyond_the_range(self, histogram: Histogram) -> None:
        """A histogram with a number beyond 2^360, before or after scaling, has no distribution."""
        with pytest.raises(InvalidPointError, match="a value outside ±2"):
            distribution(histogram)

    def test_too_small_is_zero(self) -> None:
        """Samples below 2^-360 are sent as 0."""
        assert distribution(exponential([1e-200, 1e-200, 1.0], 0)) == Distribution([0.0, 1.0], [2, 1])


distributions = st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(1, 1000)), min_size=1, max_size=120).map(
    Distribution.of
)


class TestCombined:
    """Distributions merged into one data point."""

    @given(st.lists(distributions, min_size=1, max_size=8))
    def test_preserves_the_statistics(self, parts: list[Distribution]) -> None:
        """Count, sum, minimum and maximum are those of all samples, with at most 150 values."""
        whole = combined(parts)
        assert whole.samples == sum(part.samples for part in parts)
        assert_sum(whole, math.fsum(part.total for part in parts))
        assert whole.values[0] == min(part.values[0] for part in parts)
        assert whole.values[-1] == max(part.values[-1] for part in parts)
        assert all(low < high for low, high in pairwise(whole.values))
        distinct = {value for part in parts for value in part.values}
        assert len(whole.values) <= MAX_VALUES_PER_DATUM
        assert len(whole.values) >= min(75, len(distinct))

    @given(distributions, distributions)
    def test_exact_where_there_is_room(self, one: Distribution, other: Distribution) -> None:
        """If there are at most 150 distinct values, the result is exact."""
        both = Distribution.of([*zip(*one, strict=True), *zip(*other, strict=True)])
        if len(both.values) <= MAX_VALUES_PER_DATUM:
            assert combined([one, other]) == both

    @given(
        st.lists(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400, unique=True), min_size=1, max_size=3),
        st.lists(st.integers(1, 1000), min_size=1, max_size=3),
    )
    def test_zeros_stay_zeros(self, parts: list[list[float]], zeros: list[int]) -> None:
        """Zeros stay zeros, and other samples never become 0, no matter how many values are merged."""
        distributions = [Distribution.of((value, 1) for value in values if value) for values in parts]
        distributions += [Distribution([0.0], [number]) for number in zeros]
        whole = combined(distributions)
        assert dict(zip(*whole, strict=True))[0.0] == sum(zeros)
        assert len(whole.values) <= MAX_VALUES_PER_DATUM

    @pytest.mark.parametrize("number", [300, 301, 5000])
    def test_signs_are_kept(self, number: int) -> None:
        """Negative and positive neighbors are never merged, so no zero appears that was not recorded."""
        whole = combined([Distribution.of((float(i), 1) for i in range(-2, number + 1) if i)])
        assert 0.0 not in whole.values
        assert sum(count for value, count in zip(*whole, strict=True) if value < 0) == 2

    @pytest.mark.parametrize("sign", [1, -1])
    def test_tiny_values(self, sign: int) -> None:
        """Values whose product is too small for a float are merged like others."""
        whole = combined([Distribution.of((sign * 1e-200 * (100 + i), 1) for i in range(160))])
        assert (whole.samples, len(whole.values)) == (160, MAX_VALUES_PER_DATUM)

    @pytest.mark.parametrize("number", [151, 299, 300, 301, 5000])
    def test_nearest_share(self, number: int) -> None:
        """The closest neighbors share a value, but the minimum and the maximum do not."""
        whole = combined([Distribution.of((float(i), 1) for i in range(number))])
        assert 75 <= len(whole.values) <= 150
        assert (whole.values[0], whole.counts[0]) == (0.0, 1)
        assert (whole.values[-1], whole.counts[-1]) == (number - 1.0, 1)

    @pytest.mark.parametrize("sign", [1.0, -1.0])
    def test_values_that_span_decades(self, sign: float) -> None:
        """Values far apart relative to their size are kept if other values are close to each other."""
        small, dense = [1e-6 * 1.2**i for i in range(75)], [1000.0 + i for i in range(125)]
        whole = combined([Distribution.of((sign * value, 1) for value in part) for part in (small, dense)])
        assert len(whole.values) == MAX_VALUES_PER_DATUM
        assert {sign * value for value in small} <= set(whole.values)

    @pytest.mark.parametrize("number", [151, 299, 300, 1000, 5000])
    def test_common_percentiles_are_exact(self, number: int) -> None:
        """Values at the ranks of common percentiles are not merged with others."""
        whole = each_sample(combined([Distribution.of((float(i), 1) for i in range(number))]))
        ranks = [math.ceil(thousandth * number / 1000) - 1 for thousandth in (500, 750, 900, 950, 990, 999)]
        assert [whole[rank] for rank in ranks] == ranks

    def test_nothing(self) -> None:
        """Merging no distributions yields an empty distribution."""
        assert combined([]) == Distribution([], [])


def test_equal_values_are_one() -> None:
    """Values are sorted, and equal values are merged; negative zero counts as zero."""
    made = Distribution.of([(2.0, 1), (0.0, 1), (1.0, 3), (2.0, 4), (-0.0, 2)])
    assert made == Distribution([0.0, 1.0, 2.0], [3, 3, 5])
    assert (made.samples, made.total) == (11, 13.0)


def test_values_that_scaling_makes_equal() -> None:
    """If scaling rounds two values to the same number, they become one value."""
    recorded = [505.7785367590208, math.nextafter(505.7785367590208, math.inf)]
    scaled = recorded[0] * 0.001
    assert scaled == recorded[1] * 0.001
    assert distribution(replace(exponential(recorded, 0), factor=0.001)) == Distribution([scaled], [2])
