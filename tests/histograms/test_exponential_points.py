"""Exponential histograms as the SDK collects them, and the values published for them."""

import math
import random
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics import export as sdk

from otel_cloudwatch_flask.delivery.batch import number_json
from otel_cloudwatch_flask.histograms.buckets import edge
from otel_cloudwatch_flask.histograms.values_counts import Distribution
from otel_cloudwatch_flask.limits import InvalidPointError
from otel_cloudwatch_flask.mapping.data_points import distribution_of
from otel_cloudwatch_flask.sdk.internals import FreshScaleHistogramAggregation

MAGNITUDES = st.one_of(
    st.just(0.0), st.floats(1e-3, 1e6), st.floats(99.0, 101.0), st.integers(0, 5).map(float), st.floats(1e-100, 1e-90)
)


def recorded(samples: Sequence[float], *, max_size: int = 147) -> sdk.ExponentialHistogramDataPoint:
    """Return the data point that the SDK collects for these samples."""
    reader = sdk.InMemoryMetricReader(
        preferred_temporality={Histogram: sdk.AggregationTemporality.DELTA},
        preferred_aggregation={Histogram: FreshScaleHistogramAggregation(max_size=max_size)},
    )
    instrument = MeterProvider([reader], shutdown_on_exit=False).get_meter("m").create_histogram("h")
    for sample in samples:
        instrument.record(sample)
    data = reader.get_metrics_data()
    assert data is not None
    (point,) = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
    assert isinstance(point, sdk.ExponentialHistogramDataPoint)
    return point


COMMON = recorded([1.0, 2.0, 3.0, 10.0])


def published(point: sdk.ExponentialHistogramDataPoint) -> Distribution:
    """Return the published distribution of a valid point."""
    made = distribution_of(point, 1.0)
    assert isinstance(made, Distribution)
    return made


def text(values: Sequence[float]) -> str:
    """Return the serialized values, separated by commas."""
    return ",".join(map(number_json, values))


def bucket_of_each_sample(point: sdk.ExponentialHistogramDataPoint) -> list[int | None]:
    """Return the bucket index of each sample in ascending order, which is ``None`` for zeros."""
    counts = enumerate(point.positive.bucket_counts, point.positive.offset)
    return [None] * point.zero_count + [index for index, count in counts for _ in range(count)]


def edges(point: sdk.ExponentialHistogramDataPoint, index: int | None) -> tuple[float, float]:
    """Return a bucket's edges, widened by the SDK's possible rounding error."""
    if index is None:
        return 0.0, 0.0
    return edge(point.scale, index) * (1 - 1e-9), edge(point.scale, index + 1) * (1 + 1e-9)


def assert_guarantees(made: Distribution, point: sdk.ExponentialHistogramDataPoint) -> None:
    """Assert exact count and extremes, a sum that is at most rounded, and values in the buckets of their samples."""
    assert len(made.values) == len(made.counts) <= 150
    assert all(low < high for low, high in pairwise(made.values))
    assert all(count > 0 for count in made.counts)
    assert (made.samples, made.values[0], made.values[-1]) == (point.count, point.min, point.max)
    assert made.total == pytest.approx(point.sum, rel=1e-12)
    buckets = bucket_of_each_sample(point)
    begin = 0
    for value, end in zip(made.values, accumulate(made.counts), strict=True):
        for index in {*buckets[begin:end]}:
            lower, upper = edges(point, index)
            assert lower <= value <= upper
        begin = end


@given(st.lists(MAGNITUDES, min_size=1, max_size=200))
@example([1.0] * 500)
@example([0.0, 0.0, 1.0])
@example([5.0, 5.0, 7.0])
@example([1.0, 1.0, 2.0, 3.0])
@example([0.0, 9.0, 10.0, 0.25])
@example([1.0, 1.0, 2.0, 3.0, 4.0, 7.0, 7.0, 9.0])
def test_promises(samples: list[float]) -> None:
    """All guarantees hold for arbitrary samples."""
    point = recorded(samples)
    assert_guarantees(published(point), point)


@given(st.lists(st.floats(1e-3, 1e6), min_size=3, max_size=12, unique=True))
@example([1.1, 2.2, 3.7])
@example([1.0, 2.0, 4.0, 8.0])
@example([1.0, 1.000001, 1.0000015, 1.000003])
def test_lone_samples(samples: list[float]) -> None:
    """Samples that are alone in their buckets have one value each."""
    point = recorded(samples)
    if max(point.positive.bucket_counts) == 1:
        made = published(point)
        assert made.counts == [1] * len(samples)
        assert_guarantees(made, point)


def test_numbers_of_lone_samples() -> None:
    """Values are near the middle of their buckets, except one that corrects the sum; three samples are exact."""
    assert published(recorded([1.1, 2.2, 3.7])) == Distribution([1.1, 2.2, 3.7], [1, 1, 1])
    middle = 123456789012345.0
    assert published(recorded([1.0, middle, 4e14])).values == [1.0, middle, 4e14]
    assert text(published(recorded([1.1, 2.2, 3.7, 17.4, 103.2])).values) == "1.1,2.23,3.75,17.32,103.2"


@pytest.mark.parametrize("number", [5, 20, 100])
def test_numbers_are_short(number: int) -> None:
    """Apart from the extremes and the few values that correct the sum, values have at most four digits."""
    state = random.Random(number)
    for _ in range(20):
        values = published(recorded([state.lognormvariate(3, 0.5) for _ in range(number)])).values
        long = [value for value in values if len(number_json(value).replace(".", "").strip("0")) > 4]
        assert len(long) <= 2 + 8


@pytest.mark.parametrize("where", ["first", "last"])
def test_numbers_are_short_where_samples_crowd_at_an_end(where: str) -> None:
    """If most samples are near one end, at most three values have more than eight digits."""
    state = random.Random(where)
    samples = [state.paretovariate(1.1) if where == "first" else state.uniform(1, 1000) for _ in range(1000)]
    point = recorded(samples)
    made = published(point)
    long = [value for value in made.values if len(number_json(value).replace(".", "").strip("0")) > 8]
    assert len(long) <= 3
    assert_guarantees(made, point)


def test_zeros() -> None:
    """Zeros are published as the value 0."""
    assert published(recorded([0.0, 0.0])) == Distribution([0.0], [2])
    assert published(recorded([0.0, 0.0, 1.0, 3.0])) == Distribution([0.0, 1.0, 3.0], [2, 1, 1])


@pytest.mark.parametrize("samples", [[1.1, 2.2, 3.7, 17.4, 103.2], [1.1, 2.2, 2.21, 2.22, 3.7, 17.4, 103.2]])
@pytest.mark.parametrize(("beside", "is_true"), [(5e-10, True), (2e-9, False)])
def test_extremes_beside_their_buckets(samples: list[float], *, beside: float, is_true: bool) -> None:
    """Extremes may be outside their buckets by the SDK's rounding error; beyond that, they contradict the counts."""
    point = recorded(samples)
    indexes = [index for index, count in enumerate(point.positive.bucket_counts, point.positive.offset) if count]
    first, behind = indexes[0], indexes[-1] + 1
    minima = edge(point.scale, first) * (1 - beside), edge(point.scale, first + 1) * (1 + beside)
    maxima = edge(point.scale, behind - 1) * (1 - beside), edge(point.scale, behind) * (1 + beside)
    for changed in (
        *(replace(point, min=each, sum=point.sum - point.min + each) for each in minima),
        *(replace(point, max=each, sum=point.sum - point.max + each) for each in maxima),
    ):
        if is_true:
            assert_guarantees(published(changed), changed)
        else:
            with pytest.raises(InvalidPointError, match=r"outside the (first|last) non-empty bucket"):
                distribution_of(changed, 1.0)


def test_a_coarse_scale() -> None:
    """At scale 0, where each bucket extends to the next power of two, all guarantees hold."""
    point = recorded([1e-20, 2e19, 6e19, 1e20])
    assert point.scale == 0
    made = published(point)
    assert len(text(made.values)) < len("1e-20,1.234e+19,12345678901234567890,1e+20")
    assert_guarantees(made, point)


@pytest.mark.parametrize("samples", [[1e-13, 0.005, 3524.75], [0.0, 12.002969591583241], [1e-12, 2.5, 40.0, 1502.5]])
def test_buckets_far_wider_than_the_sum(samples: list[float]) -> None:
    """The sum is right where one bucket spans 64 powers of two and the extremes are unknown."""
    point = replace(recorded([1e-13, *samples], max_size=2), min=math.inf, max=-math.inf)
    assert point.scale <= -5
    assert published(point).total == pytest.approx(point.sum, rel=1e-9)


@pytest.mark.parametrize("third", [3.2, 3.3, 3.45, 3.7, 3.85, 3.98])
def test_a_remainder_that_leaves_its_bucket(third: float) -> None:
    """If the correction of the sum would move a value out of its bucket, another value absorbs the rest."""
    point = recorded([1.1, 1.7, 2.2, third, 17.4])
    assert_guarantees(published(point), point)


@pytest.mark.parametrize("number", range(1, 15))
def test_counts_of_lone_samples(number: int) -> None:
    """All guarantees hold for any number of samples, each alone in its bucket."""
    point = recorded([3.0**place for place in range(number)])
    assert set(filter(None, point.positive.bucket_counts)) == {1}
    assert_guarantees(published(point), point)


@pytest.mark.parametrize("number", [3, 7, 12, 50, 200, 900])
@given(seed=st.integers(0, 2**32), most=st.sampled_from([30, 10_000, 10**9]))
def test_sums_of_whole_numbers_are_exact(number: int, seed: int, most: int) -> None:
    """Sums of integers are exact to the last digit."""
    state = random.Random(seed)
    point = recorded([state.randint(1, most) for _ in range(number)])
    assert published(point).total == point.sum


@pytest.mark.parametrize("number", [4, 20, 200, 2000])
@given(seed=st.integers(0, 2**32), spread=st.sampled_from([0.01, 0.3, 1.0]))
def test_percentiles_are_in_their_bucket(number: int, seed: int, spread: float) -> None:
    """The value at each percentile's rank is in the bucket of the sample of that rank."""
    state = random.Random(seed)
    point = recorded([state.lognormvariate(3, spread) for _ in range(number)])
    made, buckets = published(point), bucket_of_each_sample(point)
    assert_guarantees(made, point)
    counted = list(accumulate(made.counts))
    for share in (0.5, 0.9, 0.99):
        rank = math.ceil(share * number)
        lower, upper = edges(point, buckets[rank - 1])
        assert lower <= made.values[bisect_left(counted, rank)] <= upper


@pytest.mark.parametrize("fraction", [0.0085, 0.5, 0.99])
def test_a_value_that_takes_up_rounding_stays_in_its_bucket(fraction: float) -> None:
    """A value stays in its bucket even if it absorbs the rounding errors of a hundred others."""
    growth = 2 ** (1 / 16) - 1
    point = recorded([2 ** (index / 16) * (1 + fraction * growth) for index in range(100)])
    assert set(point.positive.bucket_counts) == {0, 1}
    assert_guarantees(published(point), point)


@pytest.mark.parametrize(
    "samples",
    [
        [2.0, 2.0000000000001, 1e6],
        [2.0, 2.0000000000000004, 2.000000000000001, 1e6],
        [1.0, 2.0, 4.0],
        [1, 4, 16, 16, 64],
    ],
)
def test_remainders_on_edges(samples: list[float]) -> None:
    """The value that corrects the sum may be on an edge of its bucket (a power of two), but not equal to an extreme."""
    point = recorded(samples)
    assert_guarantees(published(point), point)


@pytest.mark.parametrize("scale", [0, 6, 9, 12])
@pytest.mark.parametrize("samples", [100, 900, 20_000])
def test_parts_of_an_over_full_bucket_are_told_apart(scale: int, samples: int) -> None:
    """The parts of an over-full bucket have distinct values, even if the bucket has few numbers with short digits."""
    for index in (5, 13, 77, 300):
        lower, upper = edge(scale, index), edge(scale, index + 1)
        extremes = [edge(scale, index - 4) * 1.000001, edge(scale, index + 5) * 1.000001]
        point = replace(
            COMMON,
            scale=scale,
            positive=sdk.Buckets(index - 4, [1, 0, 0, 3, samples, 2, 0, 0, 0, 1]),
            count=samples + 7,
            min=extremes[0],
            max=extremes[1],
            sum=sum(extremes)
            + 3 * (edge(scale, index - 1) + lower) / 2
            + samples * (lower + upper) / 2
            + 2 * (upper + edge(scale, index + 2)) / 2,
        )
        made = published(point)
        assert_guarantees(made, point)
        assert sum(lower <= value <= upper for value in made.values) >= min(samples // 6, 100)


@pytest.mark.parametrize("number", [500, 1000, 3000])
def test_over_full_buckets_are_divided(number: int) -> None:
    """Over-full buckets are divided, so there are more values than filled buckets, with fewer samples each."""
    state = random.Random(number)
    point = recorded([state.lognormvariate(3, 0.5) for _ in range(number)])
    assert max(point.positive.bucket_counts) >= 12
    made = published(point)
    assert len(made.values) > sum(map(bool, point.positive.bucket_counts)) + 2
    assert max(made.counts) < max(point.positive.bucket_counts)


@pytest.mark.parametrize(
    "samples",
    [
        [1.003 + sample / 200 for sample in range(2000)],
        [1.0, 1.3, *(2.4 + sample / 200 for sample in range(20)), 2.51],
        [*range(1, 500)],
        [*[0.0] * 30, *[1.5] * 30, *[1.6] * 3, *[2.5] * 20],
    ],
    ids=["first", "last", "both", "zeros"],
)
def test_over_full_buckets_of_the_extremes(samples: list[float]) -> None:
    """An over-full bucket that contains an extreme is divided only within the extremes."""
    point = recorded(samples, max_size=20)
    made = published(point)
    assert_guarantees(made, point)
    assert len(made.values) > sum(map(bool, point.positive.bucket_counts)) + 2


def test_samples_at_one_place_of_an_over_full_bucket() -> None:
    """If a divided over-full bucket could not preserve the sum, its samples share one value."""
    point = recorded([1.0, 1.3, *[2.5] * 20, 2.51], max_size=20)
    made = published(point)
    assert_guarantees(made, point)
    assert made.counts == [1, 1, 20, 1]


@pytest.mark.parametrize("buckets", [136, 138, 139, 147, 148, 149, 150, 151, 160])
def test_room_for_parts(buckets: int) -> None:
    """An over-full bucket is divided if the other buckets leave room; the guarantees hold in both cases."""
    counts = [1] * (buckets // 2) + [30] + [1] * (buckets - 1 - buckets // 2)
    middles = [1.01 * edge(4, index) for index in range(buckets)]
    point = replace(
        COMMON,
        scale=4,
        positive=sdk.Buckets(0, counts),
        count=sum(counts),
        sum=math.fsum(count * middle for count, middle in zip(counts, middles, strict=True)),
        min=middles[0],
        max=middles[-1],
    )
    made = published(point)
    if buckets <= 150:
        assert_guarantees(made, point)
        assert len(made.values) >= buckets
    assert (made.samples, made.values[0], made.values[-1]) == (point.count, point.min, point.max)
    assert made.total == pytest.approx(point.sum, rel=1e-12)
    assert 75 <= len(made.values) <= 150


def test_without_extremes() -> None:
    """Without a recorded minimum and maximum, all other guarantees hold."""
    made = published(replace(COMMON, min=math.inf, max=-math.inf))
    assert (made.samples, made.total) == (4, 16.0)
    assert [(lower <= value <= upper) for value, (lower, upper) in zip(made.values, buckets_of_common(), strict=True)]


def buckets_of_common() -> list[tuple[float, float]]:
    """Return the edges of the four buckets of ``COMMON``."""
    return [edges(COMMON, index) for index in bucket_of_each_sample(COMMON)]


@pytest.mark.parametrize(
    "changes",
    [
        {"min": 11.0},
        {"max": 9e99},
        {"max": 12.0, "sum": 18.0},
        {"min": 0.9, "sum": 15.9},
        {"min": 0.5},
        {"count": 5},
        {"sum": math.nan},
        {"negative": sdk.Buckets(0, [1])},
        {"count": 1, "max": 1.0, "sum": 1.0},
        {"count": 2, "sum": 11.0},
        {"count": 3, "max": 1.0, "sum": 3.0},
        {"count": 4, "max": 1.0, "sum": 4.0},
        {"zero_count": 1},
        {"zero_count": 1, "min": 0.0},
        {"positive": sdk.Buckets(COMMON.positive.offset, [2, *COMMON.positive.bucket_counts[1:]])},
        {"positive": sdk.Buckets(COMMON.positive.offset, [300, *COMMON.positive.bucket_counts[1:]])},
        {"scale": -1},
        {"scale": 10**6},
        {"positive": sdk.Buckets(COMMON.positive.offset, [5, -1])},
        {"positive": sdk.Buckets(0, [1] * 200), "count": 200},
        {"min": 0.0, "zero_count": 4, "positive": sdk.Buckets(0, [0])},
    ],
    ids=str,
)
def test_contradictions(changes: dict[str, Any]) -> None:
    """A point that contradicts itself is rejected as invalid."""
    assert distribution_of(COMMON, 1.0) is not None
    with pytest.raises(InvalidPointError):
        distribution_of(replace(COMMON, **changes), 1.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"sum": 2.0**361},
        {"sum": 9.0},
        {"scale": 21, "positive": sdk.Buckets(0, [1, 1, 1, 1]), "min": 1.0, "max": 1.0000013, "sum": 4.000003},
        {"max": "10"},
    ],
    ids=str,
)
def test_numbers_that_hardly_fit(changes: dict[str, Any]) -> None:
    """If the buckets do not allow the sum, or a number is a string, count and extremes are still exact."""
    point = replace(COMMON, **changes)
    made = published(point)
    assert (made.samples, made.values[0]) == (point.count, point.min)
    assert all(low < high for low, high in pairwise(made.values))
    assert made.values[-1] == float(point.max)
