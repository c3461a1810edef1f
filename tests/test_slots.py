"""A series that one slot has for itself, and what ends that: its points become one datum in every collection."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from opentelemetry.sdk.metrics import export as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_cloudwatch_flask import slots
from otel_cloudwatch_flask.cardinality import CardinalityGuard
from otel_cloudwatch_flask.facade_scope import NEGATIVE_KEY, FacadeMetric
from otel_cloudwatch_flask.mapping import Datums, Mapper
from otel_cloudwatch_flask.rules import MetricRule, Rules
from otel_cloudwatch_flask.sources import Sources
from tests.fakes import FakeClock

SECOND = 10**9
NOW = 1_700_000_000
ANY = InstrumentationScope("m")
RULE = MetricRule(match="*", dimensions=["route"])

ONE, OTHER, THIRD = {"route": "/", "status": 1}, {"route": "/", "status": 2}, {"route": "/", "status": 3}
"""Attribute sets, whose identity counts; all three are one series of CloudWatch's."""
ELSEWHERE = {"route": "/cart", "status": 1}

Points = Iterable[tuple[Mapping[str, Any] | None, float]]


class Mapped:
    """A mapper, and a clock for its guard."""

    def __init__(self, *, max_metrics: int = 100, rule: MetricRule = RULE) -> None:
        self.clock = FakeClock()
        self.lost = 0
        sources = Sources(Rules([rule]), resource_dimensions=(), publishes=lambda _: True)
        guard = CardinalityGuard(max_metrics, self.clock)
        self._mapper = Mapper(sources, guard=guard, start_unix_nano=0, lost=self._lose)

    def collect(self, *metrics: Points, scope: InstrumentationScope = ANY, seconds: int = NOW) -> Datums:
        """What becomes of a collection of counters, or of such histograms as the facade makes."""
        point_of = counted if scope is ANY else measured
        made = [sdk.Metric("orders", None, "1", point_of(points, seconds)) for points in metrics]
        of_scope = sdk.ScopeMetrics(scope, made, "")
        return self._mapper.datums(sdk.MetricsData([sdk.ResourceMetrics(Resource({}), [of_scope], "")]))

    def values(self, *metrics: Points) -> list[tuple[str, float]]:
        """Route and value of each datum of a collection of counters."""
        datums = map(json.loads, self.collect(*metrics).texts)
        return sorted(
            ("".join(dimension["Value"] for dimension in datum["Dimensions"]), datum["Value"]) for datum in datums
        )

    def _lose(self, points: int) -> None:
        self.lost += points


def counted(points: Points, seconds: int) -> sdk.Sum:
    """Deltas of a counter."""
    made = [sdk.NumberDataPoint(attributes, 0, seconds * SECOND, value) for attributes, value in points]
    return sdk.Sum(made, sdk.AggregationTemporality.DELTA, is_monotonic=True)


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


def test_negative_samples_meet_the_positive_ones() -> None:
    """OpenTelemetry's histograms have them apart."""
    mapped = Mapped(rule=MetricRule(match="*"))
    scope = FacadeMetric("orders", "reporter")
    facade = InstrumentationScope(scope.scope_name, attributes=scope.scope_attributes())
    positive, negative = {"route": "/"}, {"route": "/", NEGATIVE_KEY: True}
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
        metrics = [
            sdk.Metric("orders", None, "1", counted([(attributes, 1)], NOW + seconds))
            for attributes, seconds in ((ONE, 5), (ELSEWHERE, 1), (OTHER, 3))
        ]
        scope = sdk.ScopeMetrics(ANY, metrics, "")
        datums = mapped._mapper.datums(sdk.MetricsData([sdk.ResourceMetrics(Resource({}), [scope], "")]))
        assert sorted(json.loads(text)["Timestamp"] for text in datums.texts) == [NOW + 1, NOW + 5]
        assert datums.bounds == (NOW + 1, NOW + 5)
