"""A series that one slot has for itself, and what ends that: its points become one datum in every collection."""

import json
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

from otel_cloudwatch_flask.delivery.batch import series_head
from otel_cloudwatch_flask.mapping import series_cache as slots
from otel_cloudwatch_flask.mapping.cardinality import CardinalityGuard
from otel_cloudwatch_flask.mapping.mapper import Datums, Mapper
from otel_cloudwatch_flask.mapping.metric_streams import Source, Sources
from otel_cloudwatch_flask.mapping.series_cache import Run, Slot, Slots
from otel_cloudwatch_flask.model.datum import Series
from otel_cloudwatch_flask.model.rules import MetricRule, Rules
from otel_cloudwatch_flask.model.scope import NEGATIVE_KEY, FacadeMetric
from tests.support.fakes import FakeClock

SECOND = 10**9
NOW = 1_700_000_000
ANY = InstrumentationScope("m")
RULE = MetricRule(match="*", dimensions=["route"])

ONE: dict[str, Any]
OTHER: dict[str, Any]
THIRD: dict[str, Any]
ONE, OTHER, THIRD = {"route": "/", "status": 1}, {"route": "/", "status": 2}, {"route": "/", "status": 3}
"""Attribute sets, whose identity counts; all three are one series of CloudWatch's."""
ELSEWHERE: dict[str, Any] = {"route": "/cart", "status": 1}

Points = Iterable[tuple[Mapping[str, Any] | None, float]]


class Mapped:
    """A mapper, and a clock for its guard."""

    def __init__(self, *, max_metrics: int = 100, rule: MetricRule = RULE, is_fast: bool = True) -> None:
        self.clock = FakeClock()
        self.lost = 0
        sources = Sources(Rules([rule]), resource_dimensions=(), publishes=lambda _: True)
        guard = CardinalityGuard(max_metrics, self.clock)
        self._mapper = Mapper(sources, guard=guard, start_unix_nano=0, lost=self._lose, is_fast=is_fast)
        self.datums = self._mapper.datums

    def collect(
        self, *metrics: Points, scope: InstrumentationScope = ANY, seconds: int = NOW, unit: str = "1"
    ) -> Datums:
        """What becomes of a collection of counters, or of such histograms as the facade makes."""
        point_of = counted if scope is ANY else measured
        return self.datums(data_of(*(point_of(points, seconds) for points in metrics), scope=scope, unit=unit))

    def values(self, *metrics: Points) -> list[tuple[str, float]]:
        """Route and value of each datum of a collection of counters."""
        datums = map(json.loads, self.collect(*metrics).texts)
        return sorted(
            ("".join(dimension["Value"] for dimension in datum["Dimensions"]), datum["Value"]) for datum in datums
        )

    def _lose(self, points: int) -> None:
        self.lost += points


def data_of(
    *metrics: sdk.DataT, scope: InstrumentationScope = ANY, unit: str = "1", names: Iterable[str] = ("orders",)
) -> sdk.MetricsData:
    """A collection of these metrics, for each of the names."""
    made = [sdk.Metric(name, None, unit, data) for name in names for data in metrics]
    return sdk.MetricsData([sdk.ResourceMetrics(Resource({}), [sdk.ScopeMetrics(scope, made, "")], "")])


def counted(points: Points, seconds: int) -> sdk.Sum:
    """Deltas of a counter."""
    time = (seconds + 1) * SECOND - 1
    made = [sdk.NumberDataPoint(attributes, 0, time, value) for attributes, value in points]
    return sum_of(made)


def sum_of(points: Any) -> sdk.Sum:
    """Deltas of a counter, in whatever the points are held."""
    return sdk.Sum(points, sdk.AggregationTemporality.DELTA, is_monotonic=True)


def timed(nanos: Any) -> sdk.NumberDataPoint:
    """A point at this time."""
    return sdk.NumberDataPoint(ONE, 0, nanos, 1)


def measured(points: Points, seconds: int) -> sdk.ExponentialHistogram:
    """A histogram of one sample for each point."""
    empty = sdk.Buckets(0, [0])
    made = [
        sdk.ExponentialHistogramDataPoint(
            attributes, 0, seconds * SECOND, 1, value, 0, 0, sdk.Buckets(-1, [1]), empty, 0, value, value
        )
        for attributes, value in points
    ]
    return sdk.ExponentialHistogram(made, sdk.AggregationTemporality.DELTA)


@pytest.mark.parametrize("order", [1, -1])
def test_another_slot_joins(order: int) -> None:
    """In the collection in which it comes, before or after the one that had the series, and in all that follow."""
    mapped = Mapped()
    assert [mapped.values([(ONE, 1)]) for _ in range(3)] == [[("/", 1)]] * 3
    both = [(ONE, 1), (OTHER, 10)][::order]
    assert [mapped.values(both) for _ in range(3)] == [[("/", 11)]] * 3
    assert mapped.values([(ELSEWHERE, 5), (THIRD, 100), *both]) == [("/", 111), ("/cart", 5)]
    assert mapped.values([(ONE, 1)]) == [("/", 1)]


@pytest.mark.parametrize("order", [1, -1])
def test_another_metric_joins(order: int) -> None:
    """Such as that of another meter, whose points come after those of the first are read."""
    mapped = Mapped()
    for _ in range(3):
        assert mapped.values([(ONE, 1), (ELSEWHERE, 2)]) == [("/", 1), ("/cart", 2)]
    metrics = [[(ONE, 1), (ELSEWHERE, 2)], [(OTHER, 10)]][::order]
    for _ in range(3):
        assert mapped.values(*metrics) == [("/", 11), ("/cart", 2)]


def test_a_point_comes_twice() -> None:
    """With the same attributes object, in one metric or in two."""
    mapped = Mapped()
    mapped.values([(ONE, 1)])
    assert mapped.values([(ONE, 1), (ONE, 2)]) == [("/", 3)]
    mapped = Mapped()
    mapped.values([(ONE, 1)])
    assert mapped.values([(ONE, 1)], [(ONE, 2)]) == [("/", 3)]
    assert mapped.values([(None, 1), (None, 2)]) == [("", 3)]


SAMPLES = [1.1, 2.2, 3.7, 17.4, 103.2]
ROUNDED = [1.1, 2.23, 3.75, 17.32, 103.2]


@pytest.mark.parametrize(("is_fast", "values"), [(True, ROUNDED), (False, pytest.approx(ROUNDED, rel=0.02))])
def test_what_is_remembered_is_written_as_it_comes(*, is_fast: bool, values: object) -> None:
    """From the second time on by the fast path, unless the plain one is asked for."""
    mapped = Mapped(is_fast=is_fast)
    reader = sdk.InMemoryMetricReader(
        preferred_temporality={Histogram: sdk.AggregationTemporality.DELTA},
        preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation(max_size=147)},
    )
    histogram = MeterProvider([reader], shutdown_on_exit=False).get_meter("m").create_histogram("orders")
    published = []
    for _ in range(3):
        for sample in SAMPLES:
            histogram.record(sample)
        data = reader.get_metrics_data()
        assert data is not None
        (text,) = mapped.datums(data).texts
        published.append(json.loads(text)["Values"])
    assert published[0] != ROUNDED
    assert published[1:] == [values] * 2
    assert (published[1] == ROUNDED) is is_fast


def test_times_are_whole_seconds() -> None:
    """Whatever type of number they are."""
    mapped = Mapped()
    for _ in range(3):
        (text,) = mapped.datums(data_of(sum_of([timed((NOW + 0.5) * SECOND)]))).texts
        assert f'"Timestamp":{NOW},' in text


def test_points_that_come_once_only() -> None:
    """They may be given as something that cannot be read twice."""
    mapped = Mapped()
    for _ in range(3):
        assert len(mapped.datums(data_of(sum_of(iter([timed(NOW * SECOND)])))).texts) == 1


def test_statistics_stay_statistics() -> None:
    """Also of a series that is remembered."""
    mapped = Mapped(rule=MetricRule(match="*", distribution="statistics"))
    for _ in range(3):
        (datum,) = mapped.collect([(ONE, 1.0)], scope=InstrumentationScope("histograms")).texts
        assert json.loads(datum)["StatisticValues"] == {"SampleCount": 1, "Sum": 1, "Minimum": 1, "Maximum": 1}


def test_units_that_are_scaled() -> None:
    """Nothing is written as it comes that has to be multiplied first."""
    mapped = Mapped()
    for _ in range(3):
        (datum,) = mapped.collect([(ONE, 2)], unit="min").texts
        assert (json.loads(datum)["Value"], json.loads(datum)["Unit"]) == (120, "Seconds")


def test_sums_that_cannot_be_sent_are_lost_once() -> None:
    """One datum, however many points it was put together of."""
    mapped = Mapped()
    for lost in range(1, 4):
        assert mapped.values([(ONE, 2.0**360), (OTHER, 2.0**360), (ELSEWHERE, 5)]) == [("/cart", 5)]
        assert mapped.lost == lost


def test_a_point_that_cannot_be_read_is_lost_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Its attributes, value or time are no such thing; others of its series and its metric are published."""
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
        (text,) = mapped.datums(data_of(sum_of(points))).texts
        assert json.loads(text)["Value"] == 3
        assert mapped.lost == lost


def test_negative_samples_meet_the_positive_ones() -> None:
    """OpenTelemetry's histograms have them apart, as magnitudes."""
    mapped = Mapped(rule=MetricRule(match="*"))
    scope = FacadeMetric("orders", "reporter")
    facade = InstrumentationScope(scope.scope_name, attributes=scope.scope_attributes())
    positive, negative = {"route": "/"}, {"route": "/", NEGATIVE_KEY: True}
    for _ in range(3):
        (datum,) = mapped.collect([(negative, 1.0)], scope=facade).texts
        assert json.loads(datum)["Values"] == [-1.0]
    for _ in range(3):
        (datum,) = mapped.collect([(positive, 1.0)], scope=facade).texts
        assert json.loads(datum)["Values"] == [1.0]
    for _ in range(3):
        (datum,) = mapped.collect([(positive, 1.0), (negative, 1.0)], scope=facade).texts
        assert json.loads(datum)["Values"] == [-1.0, 1.0]


def test_places_are_renewed_each_minute() -> None:
    """A series that found none while there was one for it only for a while is the overflow series' until then."""
    mapped = Mapped(max_metrics=1)
    for _ in range(3):
        assert mapped.values([(ONE, 1)]) == [("/", 1)]
        assert mapped.values([(ONE, 1), (ELSEWHERE, 2)]) == [("/", 1), ("true", 2)]
        mapped.clock.advance(61)
    mapped.clock.advance(7200)
    assert mapped.values([(ELSEWHERE, 2)]) == [("/cart", 2)]
    assert mapped.values([(ELSEWHERE, 2), (ONE, 1)]) == [("/cart", 2), ("true", 1)]


def test_totals_beside_what_is_for_itself() -> None:
    """A slot may have its finest series for itself, and share its total."""
    mapped = Mapped(rule=MetricRule(match="*", rollups=[["route", "status"], []]))
    for _ in range(3):
        datums = [json.loads(text) for text in mapped.collect([(ONE, 1), (OTHER, 10)]).texts]
        assert sorted((len(datum["Dimensions"]), datum["Value"]) for datum in datums) == [(0, 11), (2, 1), (2, 10)]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects that come once only do not stay; forgetting changes nothing of what is published."""
    monkeypatch.setattr(slots, "_MAX_REMEMBERED", 10)
    mapped = Mapped()
    for _ in range(3):
        for _ in range(8):
            assert mapped.values([(ONE, 1), ({"route": "/"}, 2), ({"route": "/"}, 4)]) == [("/", 7)]
        assert mapped._mapper._slots._number <= 13


def test_bounds_are_those_of_all_points() -> None:
    """Whether they were written as they came or put together."""
    mapped = Mapped()
    assert mapped.collect([(ONE, 1)], seconds=NOW).bounds == (NOW, NOW)
    assert mapped.collect([(ONE, 1)], seconds=NOW + 60).bounds == (NOW + 60, NOW + 60)
    assert mapped.collect([(ONE, 1), (OTHER, 1)], seconds=NOW + 90).bounds == (NOW + 90, NOW + 90)
    assert mapped.collect([]).bounds is None


def test_points_of_several_times() -> None:
    """Each datum has the time of its own point, or of the newest if there are several."""
    mapped = Mapped()
    for _ in range(2):
        times = ((ONE, 5), (ELSEWHERE, 1), (OTHER, 3))
        datums = mapped.datums(data_of(*(counted([(attributes, 1)], NOW + seconds) for attributes, seconds in times)))
        assert sorted(json.loads(text)["Timestamp"] for text in datums.texts) == [NOW + 1, NOW + 5]
        assert datums.bounds == (NOW + 1, NOW + 5)


@pytest.mark.parametrize("odd", [math.nan, 10**400, 1e-200])
def test_one_uncommon_point_among_others(odd: float) -> None:
    """All others are what they are without it."""
    mapped = Mapped()
    for _ in range(3):
        assert mapped.values([(ONE, 1), (ELSEWHERE, 2)]) == [("/", 1), ("/cart", 2)]
    lost = 0 if odd == 1e-200 else 1
    rest = [("/cart", 2)] if lost else [("/", 0), ("/cart", 2)]
    assert mapped.values([(ONE, odd), (ELSEWHERE, 2)]) == rest
    assert mapped.lost == lost
    assert mapped.values([(ONE, 1), (ELSEWHERE, 2)]) == [("/", 1), ("/cart", 2)]


def test_points_of_two_times_among_those_that_come_alike() -> None:
    """Each keeps its own."""
    mapped = Mapped()
    for _ in range(2):
        mapped.collect([(ONE, 1), (ELSEWHERE, 2)])
    first, second = counted([(ONE, 1)], NOW), counted([(ELSEWHERE, 2)], NOW + 5)
    both = replace(first, data_points=[*first.data_points, *second.data_points])
    datums = mapped.datums(data_of(both))
    assert [json.loads(datum)["Timestamp"] for datum in datums.texts] == [NOW, NOW + 5]
    assert datums.bounds == (NOW, NOW + 5)


class CountingGuard(CardinalityGuard):
    """A guard that counts how often it is asked whether a series may stay."""

    renewals = 0

    def renew(self, series: Series) -> bool:
        """Whether this series has a place."""
        self.renewals += 1
        return super().renew(series)


class Remembering:
    """Slots, and how often it was worked out what a point is published as."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.guard = CountingGuard(100, self.clock)
        self.sources = Sources(Rules([RULE]), resource_dimensions=(), publishes=lambda _: True)
        self.slots = Slots(self.guard, self._series_of)
        self.asked = 0

    def collect(self, *attributes: Mapping[str, Any] | None, names: Iterable[str] = ("orders",)) -> list[Slot]:
        """The slots of a collection of points with these attributes, for each metric of these names."""
        self.slots.begin_collection()
        data = data_of(counted([(each, 1) for each in attributes], NOW), names=names)
        return [slot for source in self.sources.of(data) for slot in self.slots.of(source, source.data.data_points)]

    def admit(self, *slots: Slot) -> None:
        """Let the guard have a place for the series of these, as whoever publishes them does."""
        for slot in slots:
            assert [self.guard.admit(series) for series in slot.series] == [*slot.series]

    def _series_of(self, source: Source, attributes: Mapping[str, Any]) -> tuple[Series, ...]:
        self.asked += 1
        return self.sources.series(source, attributes)


def test_a_slot_is_found_again() -> None:
    """By the identity of its attributes and by its metric; what it is published as is worked out once."""
    remembering = Remembering()
    first = remembering.collect(ONE, ELSEWHERE, None)
    assert [slot.series for slot in first] == [
        (Series("orders", dimensions, "None"),) for dimensions in ((("route", "/"),), (("route", "/cart"),), ())
    ]
    assert [slot.attributes for slot in first] == [ONE, ELSEWHERE, None]
    for _ in range(3):
        again = remembering.collect(None, ELSEWHERE, ONE)
        assert all(slot is other for slot, other in zip(again, reversed(first), strict=True))
    assert remembering.asked == 3
    both = remembering.collect(ONE, names=["orders", "returns"])
    assert [slot.series[0].name for slot in both] == ["orders", "returns"]
    assert remembering.asked == 4


def test_a_slot_has_its_series_for_itself() -> None:
    """From the collection on that finds it published already, until another one has the same."""
    remembering = Remembering()
    (slot,) = remembering.collect(ONE)
    assert (slot.heads, slot.shared) == ((), ())
    remembering.admit(slot)
    (slot,) = remembering.collect(ONE)
    assert (slot.heads, slot.shared) == ((series_head(slot.series[0]),), ())
    place = remembering.slots.index_of(slot.series[0])
    for together in ((ONE, OTHER), (ONE, OTHER, THIRD), (THIRD, ONE), (ONE,)):
        found = remembering.collect(*together)
        assert [(each.heads, each.shared) for each in found] == [((), (place,))] * len(together)


def test_a_slot_with_two_points_shares_with_itself() -> None:
    """And with nobody else."""
    remembering = Remembering()
    remembering.admit(*remembering.collect(ONE, ELSEWHERE))
    slot, _, elsewhere = remembering.collect(ONE, ONE, ELSEWHERE)
    assert (slot.heads, slot.shared) == ((), ())
    assert elsewhere.heads
    slot, elsewhere = remembering.collect(ONE, ELSEWHERE)
    assert (slot.heads, slot.shared) == ((), (remembering.slots.index_of(slot.series[0]),))
    assert elsewhere.heads


def test_series_are_renewed_once_a_minute() -> None:
    """What was found stays as long as the guard lets it."""
    remembering = Remembering()
    remembering.admit(*remembering.collect(ONE, ELSEWHERE))
    remembering.guard.renewals = 0
    for minute in range(1, 4):
        found = {slot.heads for _ in range(3) for slot in remembering.collect(ONE, ELSEWHERE)}
        assert (len(found), remembering.guard.renewals) == (2, 2 * minute)
        remembering.clock.advance(61)
    remembering.guard = remembering.slots._guard = CountingGuard(100, remembering.clock)
    assert [(slot.heads, slot.shared) for slot in remembering.collect(ONE, ELSEWHERE)] == [((), ())] * 2


class TestRuns:
    """What a metric's slots have in common is remembered as long as its points come in the same order."""

    @pytest.fixture
    def remembering(self) -> Remembering:
        """Slots that have two series for themselves."""
        remembering = Remembering()
        remembering.admit(*remembering.collect(ONE, ELSEWHERE))
        return remembering

    @staticmethod
    def run(remembering: Remembering, *attributes: Mapping[str, Any] | None, unit: str = "1") -> Run:
        """The slots of one metric that comes in a collection of its own, once all of them are found."""
        remembering.slots.begin_collection()
        data = data_of(counted([(each, 1) for each in attributes], NOW), unit=unit)
        (source,) = remembering.sources.of(data)
        run = remembering.slots.of(source, source.data.data_points)
        remembering.slots.heads(run)
        return run

    def test_the_same_points(self, remembering: Remembering) -> None:
        """They have the same run, in each collection, with the beginning of each datum."""
        run = self.run(remembering, ONE, ELSEWHERE)
        assert remembering.slots.heads(run) == [slot.heads[0] for slot in run]
        assert all(self.run(remembering, ONE, ELSEWHERE) is run for _ in range(3))

    @pytest.mark.parametrize("attributes", [(ELSEWHERE, ONE), (ONE,), (ONE, ELSEWHERE, None), (ONE, {**ELSEWHERE}), ()])
    def test_other_points(self, remembering: Remembering, attributes: tuple[Mapping[str, Any] | None, ...]) -> None:
        """In another order, fewer, more, or equal ones of another identity: they have a run of their own."""
        run = self.run(remembering, ONE, ELSEWHERE)
        other = self.run(remembering, *attributes)
        assert other is not run
        assert [slot.attributes for slot in other] == [*attributes]

    def test_a_series_that_comes_to_be_shared(self, remembering: Remembering) -> None:
        """In the very collection that another metric brings it in, and from then on."""
        run = self.run(remembering, ONE, ELSEWHERE)
        remembering.collect(ONE, ELSEWHERE)
        assert remembering.slots.heads(run)
        remembering.slots.begin_collection()
        data = data_of(counted([(ONE, 1), (ELSEWHERE, 1)], NOW), counted([(OTHER, 1)], NOW))
        for source in remembering.sources.of(data):
            remembering.slots.of(source, source.data.data_points)
        assert remembering.slots.heads(run) is None
        again = self.run(remembering, ONE, ELSEWHERE)
        assert again is not run
        assert remembering.slots.heads(again) is None
        assert [bool(slot.shared) for slot in again] == [True, False]

    def test_a_metric_that_comes_twice(self, remembering: Remembering) -> None:
        """What both have is shared, also if the first was found to be as it always is."""
        self.run(remembering, ONE, ELSEWHERE)
        remembering.slots.begin_collection()
        data = data_of(counted([(ONE, 1), (ELSEWHERE, 1)], NOW), counted([(ONE, 1)], NOW))
        first, second = (
            remembering.slots.of(source, source.data.data_points) for source in remembering.sources.of(data)
        )
        assert (remembering.slots.heads(first), remembering.slots.heads(second)) == (None, None)
        assert [bool(slot.heads) for slot in first] == [False, True]

    def test_another_minute(self, remembering: Remembering) -> None:
        """The guard is asked again, and what it refuses has no datum for itself any more."""
        run = self.run(remembering, ONE, ELSEWHERE)
        remembering.clock.advance(61)
        assert self.run(remembering, ONE, ELSEWHERE) is not run
        remembering.guard = remembering.slots._guard = CountingGuard(100, remembering.clock)
        remembering.clock.advance(61)
        assert remembering.slots.heads(self.run(remembering, ONE, ELSEWHERE)) is None

    def test_another_unit(self, remembering: Remembering) -> None:
        """It makes another series, and so another run."""
        run = self.run(remembering, ONE, ELSEWHERE)
        assert self.run(remembering, ONE, ELSEWHERE, unit="s") is not run


def test_attributes_that_cannot_be_read() -> None:
    """They are left to whoever reads the point, and nothing is remembered of them."""
    remembering = Remembering()
    bad: Any = [("route", "/")]
    (slot,) = remembering.collect(bad)
    assert slot.series == ()
    assert remembering.collect(bad) != [slot]


def test_forgetting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between collections only, and of slots and places alike, when there are more than so many."""
    monkeypatch.setattr(slots, "_MAX_REMEMBERED", 2)
    remembering = Remembering()
    pair = remembering.collect(ONE, ELSEWHERE)
    assert remembering.collect(ONE, ELSEWHERE) == pair
    *same, new = remembering.collect(ONE, ELSEWHERE, OTHER)
    assert same == pair
    assert new not in remembering.collect(ONE, ELSEWHERE, OTHER)
    pair = remembering.collect(ONE, ELSEWHERE)
    assert remembering.collect(ONE, ELSEWHERE) == pair
    total = Series("orders", (), "Count")
    place = remembering.slots.index_of(total)
    for name in "ab":
        assert remembering.slots.index_of(total) is place
        remembering.slots.index_of(Series(name, (), "Count"))
    remembering.slots.begin_collection()
    assert remembering.slots.index_of(total) is not place
