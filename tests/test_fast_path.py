"""The fast path publishes what its plain twin publishes, or, of many buckets, something as good."""

import json
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
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics import export as sdk
from otel_cloudwatch_flask.bucket_texts import blocks, scale_of
from otel_cloudwatch_flask.fast_path import histogram_text, number_text, point_text, texts_of

from otel_cloudwatch_flask import bucket_texts
from otel_cloudwatch_flask.histograms.buckets import ExponentialHistogram, Extremes, edge, filled
from otel_cloudwatch_flask.histograms.values_counts import Distribution, distribution
from otel_cloudwatch_flask.mapping.cardinality import CardinalityGuard
from otel_cloudwatch_flask.mapping.mapper import Mapper
from otel_cloudwatch_flask.mapping.metric_streams import Sources
from otel_cloudwatch_flask.model.rules import MetricRule, Rules
from otel_cloudwatch_flask.sdk.internals import FreshScaleHistogramAggregation
from tests.support.fakes import FakeClock

MAGNITUDES = st.one_of(
    st.just(0.0), st.floats(1e-3, 1e6), st.floats(99.0, 101.0), st.integers(0, 5).map(float), st.floats(1e-100, 1e-90)
)
DELTA, CUMULATIVE = sdk.AggregationTemporality.DELTA, sdk.AggregationTemporality.CUMULATIVE


def reader_of_deltas(max_size: int = 147) -> sdk.InMemoryMetricReader:
    """A reader that collects as ours does."""
    return sdk.InMemoryMetricReader(
        preferred_temporality={Histogram: DELTA, Counter: DELTA},
        preferred_aggregation={Histogram: FreshScaleHistogramAggregation(max_size=max_size)},
    )


def recorded(samples: Sequence[float], *, max_size: int = 147) -> sdk.ExponentialHistogramDataPoint:
    """What the SDK makes of these samples."""
    reader = reader_of_deltas(max_size)
    instrument = MeterProvider([reader], shutdown_on_exit=False).get_meter("m").create_histogram("h")
    for sample in samples:
        instrument.record(sample)
    data = reader.get_metrics_data()
    assert data is not None
    (point,) = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
    assert isinstance(point, sdk.ExponentialHistogramDataPoint)
    return point


COMMON = recorded([1.0, 2.0, 3.0, 10.0])


def plain(point: sdk.ExponentialHistogramDataPoint) -> Distribution:
    """What the twin makes of a point."""
    made = distribution(
        ExponentialHistogram(
            point.count,
            point.sum,
            Extremes.recorded(point.min, point.max),
            point.scale,
            point.zero_count,
            positive=filled(point.positive.offset, point.positive.bucket_counts),
        )
    )
    assert made is not None
    return made


def read(text: str | None) -> Distribution:
    """The values, which ascend, and counts of a text."""
    assert text is not None
    members = json.loads(f"{{{text}}}")
    assert members["Values"] == sorted(set(members["Values"]))
    return Distribution.of(zip(members["Values"], members["Counts"], strict=True))


def bucket_of_each_sample(point: sdk.ExponentialHistogramDataPoint) -> list[int | None]:
    """The index of the bucket that each sample fell into, ascending; ``None`` for zeros."""
    counts = enumerate(point.positive.bucket_counts, point.positive.offset)
    return [None] * point.zero_count + [index for index, count in counts for _ in range(count)]


def assert_promises_are_kept(made: Distribution, point: sdk.ExponentialHistogramDataPoint) -> None:
    """Count, minimum and maximum are exact, the sum is but for rounding, and each value is in its samples' bucket."""
    assert len(made.values) <= 150
    assert (made.count, made.values[0], made.values[-1]) == (point.count, point.min, point.max)
    assert made.sum == pytest.approx(point.sum, rel=1e-12)
    buckets = bucket_of_each_sample(point)
    for value, last in zip(made.values, accumulate(made.counts), strict=True):
        index = buckets[last - 1]
        lower, upper = (0.0, 0.0) if index is None else (edge(point.scale, index), edge(point.scale, index + 1))
        assert lower * (1 - 1e-9) <= value <= upper * (1 + 1e-9)


@given(st.lists(MAGNITUDES, min_size=1, max_size=200))
@example([1.0] * 500)
@example([0.0, 0.0, 1.0])
@example([5.0, 5.0, 7.0])
@example([1.0, 1.0, 2.0, 3.0, 4.0, 7.0, 7.0, 9.0])
def test_promises(samples: list[float]) -> None:
    """Whatever was recorded, as far as the fast path takes it."""
    point = recorded(samples)
    text = histogram_text(point)
    if text is not None:
        assert_promises_are_kept(read(text), point)


@given(st.lists(MAGNITUDES, min_size=1, max_size=8))
@example([1.0, 1.0, 2.0, 3.0])
@example([0.0, 9.0, 10.0, 0.25])
def test_few_samples_are_counted_as_by_the_twin(samples: list[float]) -> None:
    """Each bucket's samples share a value, which lies in it, and the extremes are values of their own."""
    point = recorded(samples)
    text = histogram_text(point)
    if text is not None:
        made, twin = read(text), plain(point)
        assert made.counts == twin.counts
        assert_promises_are_kept(made, point)


@given(st.lists(st.floats(1e-3, 1e6), min_size=3, max_size=12, unique=True))
@example([1.1, 2.2, 3.7])
@example([1.0, 2.0, 4.0, 8.0])
@example([1.0, 1.000001, 1.0000015, 1.000003])
def test_lone_samples(samples: list[float]) -> None:
    """Samples that have a bucket each are short numbers, but for the extremes and the one that makes the sum right."""
    point = recorded(samples)
    text = histogram_text(point)
    if max(point.positive.bucket_counts) == 1 and text is not None:
        made = read(text)
        assert made.counts == (1,) * len(samples)
        assert_promises_are_kept(made, point)


def test_numbers_of_lone_samples() -> None:
    """The middles of their buckets, but for one that makes the sum right; of three, it is what is left of the sum."""
    assert histogram_text(recorded([1.1, 2.2, 3.7])) == '"Values":[1.1,2.2,3.7],"Counts":[1,1,1]'
    middle = 123456789012345.0
    assert read(histogram_text(recorded([1.0, middle, 4e14]))).values == (1.0, middle, 4e14)
    text = histogram_text(recorded([1.1, 2.2, 3.7, 17.4, 103.2]))
    assert text == '"Values":[1.1,2.23,3.75,17.32,103.2],"Counts":[1,1,1,1,1]'


def test_zeros() -> None:
    """They are a value of their own."""
    assert histogram_text(recorded([0.0, 0.0])) == '"Values":[0.0],"Counts":[2]'
    assert histogram_text(recorded([0.0, 0.0, 1.0, 3.0])) == '"Values":[0.0,1.0,3.0],"Counts":[2,1,1]'


@pytest.mark.parametrize("samples", [[1.1, 2.2, 3.7, 17.4, 103.2], [1.1, 2.2, 2.21, 2.22, 3.7, 17.4, 103.2]])
@pytest.mark.parametrize(("beside", "is_common"), [(5e-10, True), (2e-9, False)])
def test_extremes_beside_their_buckets(samples: list[float], *, beside: float, is_common: bool) -> None:
    """The SDK's rounding may put them there; what is further away contradicts the counts."""
    point = recorded(samples)
    indexes = [index for index, count in enumerate(point.positive.bucket_counts, point.positive.offset) if count]
    first, behind = indexes[0], indexes[-1] + 1
    for minimum in (edge(point.scale, first) * (1 - beside), edge(point.scale, first + 1) * (1 + beside)):
        changed = replace(point, min=minimum, sum=point.sum - point.min + minimum)
        assert (histogram_text(changed) is not None) is is_common
    for maximum in (edge(point.scale, behind - 1) * (1 - beside), edge(point.scale, behind) * (1 + beside)):
        changed = replace(point, max=maximum, sum=point.sum - point.max + maximum)
        assert (histogram_text(changed) is not None) is is_common


def test_the_coarsest_common_scale() -> None:
    """Its buckets reach from each power of two to the next."""
    point = recorded([1e-20, 2e19, 6e19, 1e20])
    assert point.scale == 0
    text = histogram_text(point)
    assert text is not None
    assert len(text) < len('"Values":[1e-20,1.234e+19,12345678901234567890,1e+20],"Counts":[1,1,1,1]')
    assert_promises_are_kept(read(text), point)


@pytest.mark.parametrize("digits", [1, 2, 3])
@pytest.mark.parametrize("third", [3.2, 3.3, 3.45, 3.7, 3.85, 3.98])
def test_a_remainder_that_leaves_its_bucket(third: float, digits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much rounding leaves to the last of the lone samples, it is published only where it may be."""
    point = recorded([1.1, 1.7, 2.2, third, 17.4])
    monkeypatch.setattr(scale_of(point.scale), "_template", f"%.{digits}g")
    values = read(histogram_text(point)).values
    counts = enumerate(point.positive.bucket_counts, point.positive.offset)
    *_, index, _ = (index for index, count in counts if count)
    assert edge(point.scale, index) <= values[-2] <= edge(point.scale, index + 1)
    assert math.fsum(values) == pytest.approx(point.sum, rel=1e-12)


@pytest.mark.parametrize("number", range(1, 15))
def test_counts_of_lone_samples(number: int) -> None:
    """However many have a bucket each."""
    point = recorded([3.0**place for place in range(number)])
    assert set(filter(None, point.positive.bucket_counts)) == {1}
    assert_promises_are_kept(read(histogram_text(point)), point)


@pytest.mark.parametrize("number", [3, 7, 12, 50, 200, 900])
@given(seed=st.integers(0, 2**32), most=st.sampled_from([30, 10_000, 10**9]))
def test_sums_of_whole_numbers_are_exact(number: int, seed: int, most: int) -> None:
    """To the last digit, as whoever counts things expects."""
    state = random.Random(seed)
    point = recorded([state.randint(1, most) for _ in range(number)])
    text = histogram_text(point)
    if text is not None:
        assert read(text).sum == point.sum


@pytest.mark.parametrize("number", [4, 20, 200, 2000])
@given(seed=st.integers(0, 2**32), spread=st.sampled_from([0.01, 0.3, 1.0]))
def test_percentiles_are_as_good(number: int, seed: int, spread: float) -> None:
    """A percentile is in the bucket that the twin has it in."""
    state = random.Random(seed)
    point = recorded([state.lognormvariate(3, spread) for _ in range(number)])
    made, buckets = read(histogram_text(point)), bucket_of_each_sample(point)
    assert_promises_are_kept(made, point)
    counted = list(accumulate(made.counts))
    for share in (0.5, 0.9, 0.99):
        rank = math.ceil(share * number)
        index = buckets[rank - 1]
        assert index is not None
        assert edge(point.scale, index) * (1 - 1e-9) <= made.values[bisect_left(counted, rank)]
        assert made.values[bisect_left(counted, rank)] <= edge(point.scale, index + 1) * (1 + 1e-9)


@pytest.mark.parametrize("fraction", [0.0085, 0.5, 0.99])
def test_a_value_that_takes_up_rounding_stays_in_its_bucket(fraction: float) -> None:
    """Also where it has to take up that of a hundred others, none of which has more room."""
    growth = 2 ** (1 / 16) - 1
    point = recorded([2 ** (index / 16) * (1 + fraction * growth) for index in range(100)])
    assert set(point.positive.bucket_counts) == {0, 1}
    assert_promises_are_kept(read(histogram_text(point)), point)


@pytest.mark.parametrize(
    ("samples", "values"),
    [
        ([2.0, 2.0000000000001, 1e6], None),
        ([2.0, 2.0000000000000004, 2.000000000000001, 1e6], None),
        ([1.0, 2.0, 4.0], (1.0, 2.0, 4.0)),
        ([1, 4, 16, 16, 64], (1.0, 4.0, 16.0, 64.0)),
    ],
)
def test_remainders_on_edges(samples: list[float], values: tuple[float, ...] | None) -> None:
    """What makes the sum right may be on the edge of its bucket, where a power of two is, but not on an extreme."""
    point = recorded(samples)
    made = read(histogram_text(point))
    assert_promises_are_kept(made, point)
    assert values is None or (made.values[0], made.values[-1]) == (values[0], values[-1])
    assert all(low < high for low, high in pairwise(made.values))


@pytest.mark.parametrize("scale", [0, 6, 9, 12])
@pytest.mark.parametrize("samples", [100, 900, 20_000])
def test_parts_of_a_crowd_are_told_apart(scale: int, samples: int) -> None:
    """However few numbers of so many digits there are in its bucket."""
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
        text = histogram_text(point)
        assert text is not None
        made = read(text)
        assert_promises_are_kept(made, point)
        assert all(low < high for low, high in pairwise(made.values))


@pytest.mark.parametrize("number", [500, 1000, 3000])
def test_crowds_are_divided_as_by_the_twin(number: int) -> None:
    """Into as many parts, with as many samples in each."""
    state = random.Random(number)
    point = recorded([state.lognormvariate(3, 0.5) for _ in range(number)])
    assert max(point.positive.bucket_counts) >= 12
    assert read(histogram_text(point)).counts == plain(point).counts


@pytest.mark.parametrize(
    "samples",
    [
        [1.003 + sample / 200 for sample in range(2000)],
        [1.0, 1.3, *[2.5] * 20, 2.51],
        [*range(1, 500)],
        [*[0.0] * 30, *[1.5] * 30, *[1.6] * 3, *[2.5] * 20],
    ],
    ids=["first", "last", "both", "zeros"],
)
def test_crowds_that_an_extreme_was_taken_out_of(samples: list[float]) -> None:
    """Of these only the part of the bucket beyond the extreme is divided, as by the twin."""
    point = recorded(samples, max_size=20)
    made, twin = read(histogram_text(point)), plain(point)
    assert made.counts == twin.counts
    assert made.values == pytest.approx(twin.values, rel=1e-3)
    assert_promises_are_kept(made, point)


@pytest.mark.parametrize(("buckets", "is_common"), [(136, True), (138, True), (139, False), (148, False), (149, False)])
def test_room_for_parts(buckets: int, *, is_common: bool) -> None:
    """Where there is none beside so many buckets, the twin divides those that are read most."""
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
    text = histogram_text(point)
    assert (text is not None) is is_common
    if text is not None:
        assert_promises_are_kept(read(text), point)
        assert read(text).counts == plain(point).counts


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many buckets and counts there are, and also in the middle of a histogram that uses them."""
    monkeypatch.setattr(bucket_texts, "MAX_ENTRIES", 50)
    for place in range(40):
        point = recorded([place * 10 + 1 + sample / 7 for sample in range(60)])
        assert_promises_are_kept(read(histogram_text(point)), point)
        assert blocks.entries <= 50 + bucket_texts._ENTRIES_OF_BLOCK


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([1, 2, -3], ['"Value":1', '"Value":2', '"Value":-3']),
        ([1, 2.5, True], ['"Value":1', '"Value":2.5', None]),
        ([10**15], ['"Value":1000000000000000.0']),
        ([1, 10**400], ['"Value":1', None]),
        ([], []),
    ],
)
def test_numbers_all_at_once(values: list[Any], texts: list[str | None]) -> None:
    """The same as one after the other; nothing, if one of them is not common."""
    points = [sdk.NumberDataPoint({}, 0, 0, value) for value in values]
    assert [*map(number_text, points)] == texts
    written = texts_of(number_text, points)
    assert (written is None) is (None in texts)
    if written is not None:
        begin, ends = written
        assert [f"{begin}{end}" for end in ends] == texts


@pytest.mark.parametrize(
    "changes",
    [
        {"min": math.inf, "max": -math.inf},
        {"min": 11.0},
        {"max": 9e99},
        {"max": 12.0, "sum": 18.0},
        {"min": 0.9, "sum": 15.9},
        {"min": 0.5},
        {"count": 5},
        {"sum": math.nan},
        {"sum": 2.0**361},
        {"sum": 9.0},
        {"max": "10"},
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
        {"scale": 21, "positive": sdk.Buckets(0, [1, 1, 1, 1]), "min": 1.0, "max": 1.0000013, "sum": 4.000003},
        {"scale": 10**6},
        {"positive": sdk.Buckets(COMMON.positive.offset, [5, -1])},
        {"positive": sdk.Buckets(0, [1] * 200), "count": 200},
        {"min": 0.0, "zero_count": 4, "positive": sdk.Buckets(0, [0])},
    ],
    ids=str,
)
def test_what_is_not_common_is_left_to_the_twin(changes: dict[str, Any]) -> None:
    """The fast path takes nothing that it is not made for, and makes nothing up."""
    assert histogram_text(COMMON) is not None
    assert histogram_text(replace(COMMON, **changes)) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5, '"Value":5'),
        (5.0, '"Value":5'),
        (-0.25, '"Value":-0.25'),
        (2**60, '"Value":1.152921504606847e+18'),
        (True, None),
        (0, '"Value":0'),
        (0.0, '"Value":0'),
        (-0.0, '"Value":0'),
        (10**15 - 1, '"Value":999999999999999'),
        (1 - 10**15, '"Value":-999999999999999'),
        (2.0**360, '"Value":2.3485425827738332e+108'),
        (-(2.0**-360), '"Value":-4.257959840008151e-109'),
        (1e-200, None),
        (math.nan, None),
        (math.inf, None),
        (2.0**361, None),
        (10**400, None),
    ],
)
def test_numbers(value: Any, text: str | None) -> None:
    """Numbers that CloudWatch takes as they are; the twin mends others, or refuses them."""
    assert number_text(sdk.NumberDataPoint({}, 0, 0, value)) == text


@pytest.mark.parametrize(
    ("data", "reader"),
    [
        (sdk.Sum([], DELTA, is_monotonic=True), number_text),
        (sdk.Sum([], CUMULATIVE, is_monotonic=False), number_text),
        (sdk.Sum([], CUMULATIVE, is_monotonic=True), None),
        (sdk.Sum([], DELTA, is_monotonic=False), None),
        (sdk.Gauge([]), number_text),
        (sdk.ExponentialHistogram([], DELTA), histogram_text),
        (sdk.ExponentialHistogram([], CUMULATIVE), None),
        (sdk.Histogram([], DELTA), None),
    ],
    ids=lambda each: type(each).__name__,  # what is the same in every run
)
def test_what_needs_no_memory(data: sdk.DataT, reader: object) -> None:
    """Points that say by themselves what has to be sent; none of them in a unit that has to be scaled."""
    assert point_text(data, 1.0) is reader
    assert point_text(data, 60.0) is None


RULES = [
    MetricRule(match="one.route", dimensions=["route"]),
    MetricRule(match="rolled.*", rollups=[["route"], []]),
    MetricRule(match="statistics*", distribution="statistics"),
    MetricRule(match="*"),
]
NAMES = ["plain", "one.route", "rolled.up", "statistics"]


@given(
    st.lists(
        st.tuples(st.sampled_from(NAMES), st.sampled_from("abc"), st.sampled_from(["x", "y"]), st.integers(0, 1000)),
        max_size=60,
    )
)
def test_collections_are_those_of_the_plain_mapper(events: list[tuple[str, str, str, int]]) -> None:
    """Series that meet, roll up or are told apart: the same datums of the same series, in each of four collections."""
    reader = reader_of_deltas()
    meter = MeterProvider([reader], shutdown_on_exit=False).get_meter("m")
    counters = {name: meter.create_counter(name) for name in NAMES}
    histograms = {name: meter.create_histogram(name + ".size") for name in NAMES}
    mappers = [mapper(is_fast=True), mapper(is_fast=False)]
    for part in (events[place::4] for place in range(4)):
        for name, route, status, value in part:
            counters[name].add(value, {"route": route, "status": status})
            histograms[name].record(value, {"route": route, "status": status})
        data = reader.get_metrics_data()
        if data is not None:
            fast, twin = ([json.loads(datum) for datum in each.datums(data).texts] for each in mappers)
            assert sorted(map(comparable, fast)) == sorted(map(comparable, twin))


def mapper(*, is_fast: bool) -> Mapper:
    """A mapper that publishes everything."""
    sources = Sources(Rules(RULES), resource_dimensions=(), publishes=lambda _: True)
    guard = CardinalityGuard(1000, FakeClock())
    return Mapper(sources, guard=guard, start_unix_nano=0, lost=lambda _: None, is_fast=is_fast)


def comparable(datum: dict[str, Any]) -> str:
    """A datum without what the two paths may do differently."""
    values = datum.pop("Values", [])
    counts = datum.pop("Counts", [])
    datum["count"], datum["extremes"] = sum(counts), (min(values, default=0), max(values, default=0))
    datum["sum"] = f"{math.fsum(value * count for value, count in zip(values, counts, strict=True)):.6g}"
    if "StatisticValues" not in datum and "Value" in datum:
        datum["Value"] = float(datum["Value"])
    return json.dumps(datum, sort_keys=True)
