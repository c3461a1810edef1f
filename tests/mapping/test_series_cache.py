"""A series has one data point per collection, whether one attribute set or several contribute to it."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics import export as sdk
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_cloudwatch_flask.histograms.values_counts import Distribution
from otel_cloudwatch_flask.mapping import series_cache as slots
from otel_cloudwatch_flask.mapping.cardinality import CardinalityGuard
from otel_cloudwatch_flask.mapping.mapper import Mapper
from otel_cloudwatch_flask.mapping.metric_streams import MetricStream, MetricStreams
from otel_cloudwatch_flask.mapping.series_cache import CacheEntry, SeriesCache
from otel_cloudwatch_flask.model.datum import Datum, Series, Statistics
from otel_cloudwatch_flask.model.rules import MetricRule, Rules
from otel_cloudwatch_flask.model.scope import NEGATIVE_KEY, FacadeMetric
from otel_cloudwatch_flask.pricing import IDLE_SECONDS
from tests.support.fakes import FakeClock

SECOND = 10**9
NOW = 1_700_000_000
ANY = InstrumentationScope("m")
RULE = MetricRule(match="*", dimensions=["route"])

ONE: dict[str, Any]
OTHER: dict[str, Any]
THIRD: dict[str, Any]
ONE, OTHER, THIRD = {"route": "/", "status": 1}, {"route": "/", "status": 2}, {"route": "/", "status": 3}
"""Attribute sets that are different objects, but the same series in CloudWatch."""
ELSEWHERE: dict[str, Any] = {"route": "/cart", "status": 1}

Points = Iterable[tuple[Mapping[str, Any] | None, float]]


class Mapped:
    """A mapper whose cardinality guard has a fake clock."""

    def __init__(self, *, max_metrics: int = 100, rule: MetricRule = RULE) -> None:
        self.clock = FakeClock()
        self.lost = 0
        streams = MetricStreams(Rules([rule]), resource_dimensions=(), publishes=lambda _: True)
        guard = CardinalityGuard(max_metrics, self.clock)
        self.mapper = Mapper(streams, guard=guard, start_unix_nano=0, lost=self._lose)
        self.datums = self.mapper.datums

    def collect(
        self, *metrics: Points, scope: InstrumentationScope = ANY, seconds: int = NOW, unit: str = "1"
    ) -> list[Datum]:
        """Return the data points for a collection of counters, or of histograms like the facade's."""
        point_of = counted if scope is ANY else measured
        return self.datums(data_of(*(point_of(points, seconds) for points in metrics), scope=scope, unit=unit))

    def values(self, *metrics: Points) -> list[tuple[str, float]]:
        """Return the route and value of each data point of a collection of counters."""
        return sorted(
            ("".join(value for _, value in datum.series.dimensions), number_of(datum))
            for datum in self.collect(*metrics)
        )

    def _lose(self, points: int) -> None:
        self.lost += points


def number_of(datum: Datum) -> float:
    """Return the number in a data point that has only one."""
    assert isinstance(datum.content, int | float)
    return datum.content


def data_of(
    *metrics: sdk.DataT, scope: InstrumentationScope = ANY, unit: str = "1", names: Iterable[str] = ("orders",)
) -> sdk.MetricsData:
    """Return a collection that has each of these metrics under each of the names."""
    made = [sdk.Metric(name, None, unit, data) for name in names for data in metrics]
    return sdk.MetricsData([sdk.ResourceMetrics(Resource({}), [sdk.ScopeMetrics(scope, made, "")], "")])


def counted(points: Points, seconds: int) -> sdk.Sum:
    """Return a counter's deltas."""
    time = (seconds + 1) * SECOND - 1
    made = [sdk.NumberDataPoint(attributes, 0, time, value) for attributes, value in points]
    return sum_of(made)


def sum_of(points: Any) -> sdk.Sum:
    """Return a counter's deltas, with these points."""
    return sdk.Sum(points, sdk.AggregationTemporality.DELTA, is_monotonic=True)


def timed(nanos: Any) -> sdk.NumberDataPoint:
    """Return a point with this time, in nanoseconds."""
    return sdk.NumberDataPoint(ONE, 0, nanos, 1)


def measured(points: Points, seconds: int) -> sdk.ExponentialHistogram:
    """Return a histogram with one sample per point."""
    empty = sdk.Buckets(0, [0])
    made = [
        sdk.ExponentialHistogramDataPoint(
            attributes, 0, seconds * SECOND, 1, value, 0, 0, sdk.Buckets(-1, [1]), empty, 0, value, value
        )
        for attributes, value in points
    ]
    return sdk.ExponentialHistogram(made, sdk.AggregationTemporality.DELTA)


@pytest.mark.parametrize("order", [1, -1])
def test_another_attribute_set_joins(order: int) -> None:
    """A second attribute set of the same series is merged, whether it comes first or last."""
    mapped = Mapped()
    assert [mapped.values([(ONE, 1)]) for _ in range(3)] == [[("/", 1)]] * 3
    both = [(ONE, 1), (OTHER, 10)][::order]
    assert [mapped.values(both) for _ in range(3)] == [[("/", 11)]] * 3
    assert mapped.values([(ELSEWHERE, 5), (THIRD, 100), *both]) == [("/", 111), ("/cart", 5)]
    assert mapped.values([(ONE, 1)]) == [("/", 1)]


@pytest.mark.parametrize("order", [1, -1])
def test_another_metric_joins(order: int) -> None:
    """Points of another metric in the same series, such as one of another meter, are merged in either order."""
    mapped = Mapped()
    for _ in range(3):
        assert mapped.values([(ONE, 1), (ELSEWHERE, 2)]) == [("/", 1), ("/cart", 2)]
    metrics = [[(ONE, 1), (ELSEWHERE, 2)], [(OTHER, 10)]][::order]
    for _ in range(3):
        assert mapped.values(*metrics) == [("/", 11), ("/cart", 2)]


def test_a_point_comes_twice() -> None:
    """Points with the same attributes object are merged, within one metric or across two."""
    mapped = Mapped()
    mapped.values([(ONE, 1)])
    assert mapped.values([(ONE, 1), (ONE, 2)]) == [("/", 3)]
    mapped = Mapped()
    mapped.values([(ONE, 1)])
    assert mapped.values([(ONE, 1)], [(ONE, 2)]) == [("/", 3)]
    assert mapped.values([(None, 1), (None, 2)]) == [("", 3)]


def test_the_same_samples_are_the_same_values() -> None:
    """The same samples have the same published values in the first and in later collections."""
    mapped = Mapped()
    reader = sdk.InMemoryMetricReader(
        preferred_temporality={Histogram: sdk.AggregationTemporality.DELTA},
        preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation(max_size=147)},
    )
    histogram = MeterProvider([reader], shutdown_on_exit=False).get_meter("m").create_histogram("orders")
    published = []
    for _ in range(3):
        for sample in [1.1, 2.2, 3.7, 17.4, 103.2]:
            histogram.record(sample)
        data = reader.get_metrics_data()
        assert data is not None
        (datum,) = mapped.datums(data)
        published.append(datum.content)
    assert published == [Distribution([1.1, 2.23, 3.75, 17.32, 103.2], [1] * 5)] * 3


def test_times_are_whole_seconds() -> None:
    """Timestamps are truncated to whole seconds, whatever their number type."""
    mapped = Mapped()
    for _ in range(3):
        (datum,) = mapped.datums(data_of(sum_of([timed((NOW + 0.5) * SECOND)])))
        assert repr(datum.unix_seconds) == str(NOW)


def test_points_that_come_once_only() -> None:
    """Points may be given as an iterator, which can be consumed only once."""
    mapped = Mapped()
    for _ in range(3):
        assert len(mapped.datums(data_of(sum_of(iter([timed(NOW * SECOND)]))))) == 1


def test_statistics_stay_statistics() -> None:
    """Cached series with the statistics form are also published as statistics."""
    mapped = Mapped(rule=MetricRule(match="*", distribution="statistics"))
    for _ in range(3):
        (datum,) = mapped.collect([(ONE, 1.0)], scope=InstrumentationScope("histograms"))
        assert datum.content == Statistics(1, 1.0, 1.0, 1.0)


def test_units_that_are_scaled() -> None:
    """The values of cached series are also scaled to CloudWatch's unit."""
    mapped = Mapped()
    for _ in range(3):
        (datum,) = mapped.collect([(ONE, 2)], unit="min")
        assert (datum.content, datum.series.unit) == (120, "Seconds")


def test_sums_that_cannot_be_sent_are_lost_once() -> None:
    """A sum that cannot be sent counts as one lost data point, not one per merged point."""
    mapped = Mapped()
    for lost in range(1, 4):
        assert mapped.values([(ONE, 2.0**360), (OTHER, 2.0**360), (ELSEWHERE, 5)]) == [("/cart", 5)]
        assert mapped.lost == lost


def test_a_point_that_cannot_be_read_is_lost_alone(caplog: pytest.LogCaptureFixture) -> None:
    """A point with unreadable attributes, value or time is lost; the other points of its metric are published."""
    mapped = Mapped()
    bad: Any = [("route", "/")]
    for lost in range(1, 4):
        assert mapped.values([(bad, 1), (ONE, 2), (ELSEWHERE, 3)]) == [("/", 2), ("/cart", 3)]
        assert mapped.lost == lost
    (said,) = caplog.records
    assert said.exc_info
    assert str(said.exc_info[1]) == "'list' object has no attribute 'items'"
    mapped = Mapped()
    much: Any = "much"
    assert mapped.values([(ONE, much), (ELSEWHERE, 3)]) == [("/cart", 3)]
    assert mapped.lost == 1
    assert mapped.values([(ONE, 2), (ELSEWHERE, 3)]) == [("/", 2), ("/cart", 3)]
    for lost, nanos in enumerate([much, None, math.nan, math.inf, -math.inf, 10**21, 10**5000], start=2):
        points = [timed(nanos), sdk.NumberDataPoint(ELSEWHERE, 0, NOW * SECOND, 3)]
        (datum,) = mapped.datums(data_of(sum_of(points)))
        assert datum.content == 3
        assert mapped.lost == lost


def test_negative_samples_meet_the_positive_ones() -> None:
    """Negative samples, which OpenTelemetry stores separately as magnitudes, are merged with positive ones."""
    mapped = Mapped(rule=MetricRule(match="*"))
    scope = FacadeMetric("orders", "reporter")
    facade = InstrumentationScope(scope.scope_name, attributes=scope.scope_attributes())
    positive, negative = {"route": "/"}, {"route": "/", NEGATIVE_KEY: True}
    for _ in range(3):
        (datum,) = mapped.collect([(negative, 1.0)], scope=facade)
        assert datum.content == Distribution([-1.0], [1])
    for _ in range(3):
        (datum,) = mapped.collect([(positive, 1.0)], scope=facade)
        assert datum.content == Distribution([1.0], [1])
    for _ in range(3):
        (datum,) = mapped.collect([(positive, 1.0), (negative, 1.0)], scope=facade)
        assert datum.content == Distribution([-1.0, 1.0], [1, 1])


def test_places_are_renewed_each_minute() -> None:
    """Admission is renewed once a minute; a series without room stays in the overflow series until there is room."""
    mapped = Mapped(max_metrics=2)
    for _ in range(3):
        assert mapped.values([(ONE, 1)]) == [("/", 1)]
        assert mapped.values([(ONE, 1), (ELSEWHERE, 2)]) == [("/", 1), ("true", 2)]
        mapped.clock.advance(61)
    mapped.clock.advance(7200)
    assert mapped.values([(ELSEWHERE, 2)]) == [("/cart", 2)]
    assert mapped.values([(ELSEWHERE, 2), (ONE, 1)]) == [("/cart", 2), ("true", 1)]


def test_a_place_is_kept_for_an_hour_after_the_last_use() -> None:
    """A series that is published long after its renewal, in the same minute, gives up its place only an hour later."""
    mapped = Mapped(max_metrics=2)
    mapped.clock.now = 0
    for _ in range(2):
        assert mapped.values([(ONE, 1)]) == [("/", 1)]
    mapped.clock.now = 59
    assert mapped.values([(ONE, 1)]) == [("/", 1)]
    mapped.clock.now += IDLE_SECONDS - 1
    assert mapped.values([(ELSEWHERE, 1)]) == [("true", 1)]


def test_totals_beside_what_is_for_itself() -> None:
    """An attribute set can have its most detailed series alone, and share its total with others."""
    mapped = Mapped(rule=MetricRule(match="*", rollups=[["route", "status"], []]))
    for _ in range(3):
        datums = mapped.collect([(ONE, 1), (OTHER, 10)])
        assert sorted((len(datum.series.dimensions), datum.content) for datum in datums) == [(0, 11), (2, 1), (2, 10)]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of cached attribute sets is bounded, and evictions do not change the published values."""
    monkeypatch.setattr(slots, "_MAX_ENTRIES", 10)
    mapped = Mapped()
    for _ in range(3):
        for _ in range(8):
            assert mapped.values([(ONE, 1), ({"route": "/"}, 2), ({"route": "/"}, 4)]) == [("/", 7)]
        assert sum(map(len, mapped.mapper._cache._entries.values())) <= 13


def test_points_of_several_times() -> None:
    """Each data point has the timestamp of its point, or the latest timestamp of several."""
    mapped = Mapped()
    for _ in range(2):
        times = ((ONE, 5), (ELSEWHERE, 1), (OTHER, 3))
        datums = mapped.datums(data_of(*(counted([(attributes, 1)], NOW + seconds) for attributes, seconds in times)))
        assert sorted(datum.unix_seconds for datum in datums) == [NOW + 1, NOW + 5]


@pytest.mark.parametrize("odd", [math.nan, 10**400, 1e-200])
def test_one_uncommon_point_among_others(odd: float) -> None:
    """An invalid or tiny number does not affect the other points."""
    mapped = Mapped()
    for _ in range(3):
        assert mapped.values([(ONE, 1), (ELSEWHERE, 2)]) == [("/", 1), ("/cart", 2)]
    lost = 0 if odd == 1e-200 else 1
    rest = [("/cart", 2)] if lost else [("/", 0), ("/cart", 2)]
    assert mapped.values([(ONE, odd), (ELSEWHERE, 2)]) == rest
    assert mapped.lost == lost
    assert mapped.values([(ONE, 1), (ELSEWHERE, 2)]) == [("/", 1), ("/cart", 2)]


def test_points_of_two_times_among_those_that_come_alike() -> None:
    """Points of one metric with different timestamps keep them."""
    mapped = Mapped()
    for _ in range(2):
        mapped.collect([(ONE, 1), (ELSEWHERE, 2)])
    first, second = counted([(ONE, 1)], NOW), counted([(ELSEWHERE, 2)], NOW + 5)
    both = replace(first, data_points=[*first.data_points, *second.data_points])
    datums = mapped.datums(data_of(both))
    assert [datum.unix_seconds for datum in datums] == [NOW, NOW + 5]


class CountingGuard(CardinalityGuard):
    """A guard that counts calls of ``renew``."""

    renewals = 0

    def renew(self, series: Series) -> bool:
        """Count the call, and return whether this series is admitted."""
        self.renewals += 1
        return super().renew(series)


class Remembering:
    """A series cache that counts how often it computes the series of a point."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.guard = CountingGuard(100, self.clock)
        self.streams = MetricStreams(Rules([RULE]), resource_dimensions=(), publishes=lambda _: True)
        self.cache = SeriesCache(self.guard, self._series_of)
        self.asked = 0

    def collect(self, *attributes: Mapping[str, Any] | None, names: Iterable[str] = ("orders",)) -> list[CacheEntry]:
        """Return the entries for points with these attributes, for each of the metric names."""
        return self.collect_all(data_of(counted([(each, 1) for each in attributes], NOW), names=names))

    def collect_all(self, data: sdk.MetricsData) -> list[CacheEntry]:
        """Return the entries for all points of a collection."""
        self.cache.begin_collection()
        return [
            entry for stream in self.streams.of(data) for entry in self.cache.entries(stream, stream.data.data_points)
        ]

    def admit(self, *entries: CacheEntry) -> None:
        """Admit the series of these entries, as publishing does."""
        for entry in entries:
            assert [self.guard.admit(series) for series in entry.series] == [*entry.series]

    def _series_of(self, stream: MetricStream, attributes: Mapping[str, Any]) -> tuple[Series, ...]:
        self.asked += 1
        return self.streams.series(stream, attributes)


def test_an_entry_is_found_again() -> None:
    """Entries are found by metric and attributes, and their series are computed once."""
    remembering = Remembering()
    first = remembering.collect(ONE, ELSEWHERE, None)
    assert [entry.series for entry in first] == [
        (Series("orders", dimensions, "None"),) for dimensions in ((("route", "/"),), (("route", "/cart"),), ())
    ]
    assert [entry.attributes for entry in first] == [ONE, ELSEWHERE, None]
    for _ in range(3):
        again = remembering.collect(None, ELSEWHERE, ONE)
        assert all(entry is other for entry, other in zip(again, reversed(first), strict=True))
    assert remembering.asked == 3
    both = remembering.collect(ONE, names=["orders", "returns"])
    assert [entry.series[0].name for entry in both] == ["orders", "returns"]
    assert remembering.asked == 4


def test_an_entry_is_found_by_equal_attributes() -> None:
    """An entry is found again if a collection has a new attributes object, but values of other types are different."""
    remembering = Remembering()
    values: list[Any] = ["1", 1, 1.0, True, b"1", None]
    first = remembering.collect({}, *({"route": value} for value in values))
    for _ in range(3):
        again = remembering.collect({}, *({"route": value} for value in values))
        assert all(entry is other for entry, other in zip(again, first, strict=True))
    assert remembering.asked == len(first)
    assert sum(map(len, remembering.cache._entries.values())) == len(first)
    assert remembering.collect({"route": [1]}) != remembering.collect({"route": [1]})


def test_equal_attributes_in_one_collection() -> None:
    """An entry with two equal attributes objects in a collection shares its series with itself."""
    remembering = Remembering()
    remembering.admit(*remembering.collect(ONE))
    assert [(entry.own, entry.shared) for entry in remembering.collect(ONE, {**ONE})] == [
        ((), remembering.collect(ONE)[0].series)
    ] * 2


def test_another_unit_is_another_series() -> None:
    """The same attributes object with another unit results in another series."""
    remembering = Remembering()
    (one,) = remembering.collect(ONE)
    (other,) = remembering.collect_all(data_of(counted([(ONE, 1)], NOW), unit="s"))
    assert [entry.series[0].unit for entry in (one, other)] == ["None", "Seconds"]


def test_an_entry_has_its_series_for_itself() -> None:
    """An entry owns its series from its second collection on, until another entry has the same series."""
    remembering = Remembering()
    (entry,) = remembering.collect(ONE)
    assert (entry.own, entry.shared) == ((), ())
    remembering.admit(entry)
    (entry,) = remembering.collect(ONE)
    assert (entry.own, entry.shared) == (entry.series, ())
    for together in ((ONE, OTHER), (ONE, OTHER, THIRD), (THIRD, ONE), (ONE,)):
        found = remembering.collect(*together)
        assert [(each.own, each.shared) for each in found] == [((), entry.series)] * len(together)


def test_an_entry_with_two_points_shares_with_itself() -> None:
    """An entry with two points in a collection shares its series from then on; other entries still own theirs."""
    remembering = Remembering()
    remembering.admit(*remembering.collect(ONE, ELSEWHERE))
    entry, _, elsewhere = remembering.collect(ONE, ONE, ELSEWHERE)
    assert (entry.own, entry.shared) == ((), entry.series)
    assert elsewhere.own
    entry, elsewhere = remembering.collect(ONE, ELSEWHERE)
    assert (entry.own, entry.shared) == ((), entry.series)
    assert elsewhere.own


@pytest.mark.parametrize("joining", [OTHER, ONE], ids=["another entry", "the same again"])
def test_a_series_that_comes_to_be_shared(joining: Mapping[str, Any]) -> None:
    """If a later metric contributes to an owned series, the series becomes shared in the same collection."""
    remembering = Remembering()
    remembering.admit(*remembering.collect(ONE, ELSEWHERE))
    first, elsewhere = remembering.collect(ONE, ELSEWHERE)
    assert first.own
    data = data_of(counted([(ONE, 1), (ELSEWHERE, 1)], NOW), counted([(joining, 1)], NOW))
    first, elsewhere, other = remembering.collect_all(data)
    assert [(each.own, each.shared) for each in (first, other)] == [((), first.series)] * 2
    assert elsewhere.own == elsewhere.series


def test_series_are_renewed_once_a_minute() -> None:
    """Ownership is renewed once a minute, and lost if the guard no longer admits the series."""
    remembering = Remembering()
    remembering.admit(*remembering.collect(ONE, ELSEWHERE))
    remembering.guard.renewals = 0
    for minute in range(1, 4):
        found = {entry.own for _ in range(3) for entry in remembering.collect(ONE, ELSEWHERE)}
        assert (len(found), remembering.guard.renewals) == (2, 2 * minute)
        remembering.clock.advance(61)
    remembering.guard = remembering.cache._guard = CountingGuard(100, remembering.clock)
    assert [(entry.own, entry.shared) for entry in remembering.collect(ONE, ELSEWHERE)] == [((), ())] * 2


def test_attributes_that_cannot_be_read() -> None:
    """Unreadable attributes result in an entry without series, which is not cached."""
    remembering = Remembering()
    bad: Any = [("route", "/")]
    (entry,) = remembering.collect(bad)
    assert entry.series == ()
    assert remembering.collect(bad) != [entry]


def test_forgetting(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the cache exceeds its limit, it is cleared together with the owned series, but only between collections."""
    monkeypatch.setattr(slots, "_MAX_ENTRIES", 2)
    remembering = Remembering()
    pair = remembering.collect(ONE, ELSEWHERE)
    assert remembering.collect(ONE, ELSEWHERE) == pair
    *same, new = remembering.collect(ONE, ELSEWHERE, OTHER)
    assert same == pair
    assert new not in remembering.collect(ONE, ELSEWHERE, OTHER)
    pair = remembering.collect(ONE, ELSEWHERE)
    assert remembering.collect(ONE, ELSEWHERE) == pair
    remembering.admit(*pair)
    assert [entry.own for entry in remembering.collect(ONE, ELSEWHERE)] == [entry.series for entry in pair]
