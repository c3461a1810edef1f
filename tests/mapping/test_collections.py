"""Whole collections: how numbers are serialized, and which series are merged, rolled up or kept apart."""

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics import export as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_cloudwatch_flask.delivery import batch as wire
from otel_cloudwatch_flask.delivery.batch import encoded, number_json
from otel_cloudwatch_flask.histograms.values_counts import Distribution
from otel_cloudwatch_flask.mapping.cardinality import CardinalityGuard
from otel_cloudwatch_flask.mapping.data_points import is_delta_histogram, is_published_unchanged
from otel_cloudwatch_flask.mapping.mapper import Mapper
from otel_cloudwatch_flask.mapping.metric_streams import MetricStreams
from otel_cloudwatch_flask.model.datum import Datum, Series, Statistics
from otel_cloudwatch_flask.model.rules import MetricRule, Rules
from otel_cloudwatch_flask.sdk.internals import FreshScaleHistogramAggregation
from tests.support.fakes import FakeClock

DELTA, CUMULATIVE = sdk.AggregationTemporality.DELTA, sdk.AggregationTemporality.CUMULATIVE


def mapper(rules: Sequence[MetricRule] = ()) -> Mapper:
    """Return a mapper with these rules that publishes every metric."""
    streams = MetricStreams(Rules(rules), resource_dimensions=(), publishes=lambda _: True)
    return Mapper(streams, guard=CardinalityGuard(1000, FakeClock()), start_unix_nano=0, lost=lambda _: None)


def gauges(values: Sequence[Any]) -> sdk.MetricsData:
    """Return a collection with one gauge, which has a point for each value."""
    points = [sdk.NumberDataPoint({"n": n}, 0, 0, value) for n, value in enumerate(values)]
    metrics = [sdk.Metric("m", None, "1", sdk.Gauge(points))]
    scope = sdk.ScopeMetrics(InstrumentationScope("tests"), metrics, "")
    return sdk.MetricsData([sdk.ResourceMetrics(Resource({}), [scope], "")])


def written(values: Sequence[Any]) -> list[str]:
    """Return the serialized values of the second of two collections, when the series are already cached."""
    mapping, data = mapper(), gauges(values)
    first, second = (
        [encoded(datum).rpartition('"Value":')[2].removesuffix("}") for datum in mapping.datums(data)] for _ in range(2)
    )
    assert sorted(first) == sorted(second)
    return second


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5, "5"),
        (5.0, "5"),
        (-0.25, "-0.25"),
        (2**60, "1.152921504606847e+18"),
        (True, "1"),
        (0, "0"),
        (0.0, "0"),
        (-0.0, "0"),
        (10**15 - 1, "999999999999999"),
        (1 - 10**15, "-999999999999999"),
        (2.0**360, "2.3485425827738332e+108"),
        (-(2.0**-360), "-4.257959840008151e-109"),
        (1e-200, "0"),
        (math.nan, None),
        (math.inf, None),
        (2.0**361, None),
        (10**400, None),
    ],
)
def test_numbers(value: Any, text: str | None) -> None:
    """Valid numbers are serialized in their shortest form; invalid ones are lost."""
    assert written([value]) == ([] if text is None else [text])


@pytest.mark.parametrize(
    "values",
    [
        [1, 2, -3],
        [1, 2.5, True],
        [0.0, -0.0, 0, 7.5],
        [10**15, 1],
        [1, 10**400],
        [1, math.nan, 2],
        [1, 1e-200, 2],
        [2.0**360, 3],
        [],
    ],
)
def test_numbers_all_at_once(values: list[Any]) -> None:
    """Numbers collected together are serialized like each number alone."""
    assert sorted(written(values)) == sorted(text for value in values for text in written([value]))


@pytest.mark.parametrize(
    ("data", "as_it_is", "delta_histogram"),
    [
        (sdk.Sum([], DELTA, is_monotonic=True), True, False),
        (sdk.Sum([], CUMULATIVE, is_monotonic=False), True, False),
        (sdk.Sum([], CUMULATIVE, is_monotonic=True), False, False),
        (sdk.Sum([], DELTA, is_monotonic=False), False, False),
        (sdk.Gauge([]), True, False),
        (sdk.ExponentialHistogram([], DELTA), False, True),
        (sdk.ExponentialHistogram([], CUMULATIVE), False, False),
        (sdk.Histogram([], DELTA), False, True),
        (sdk.Histogram([], CUMULATIVE), False, False),
    ],
    ids=lambda each: type(each).__name__,  # identical in every run
)
def test_what_needs_no_memory(*, data: sdk.DataT, as_it_is: bool, delta_histogram: bool) -> None:
    """Only points that can be published without earlier points are recognized as such."""
    assert (is_published_unchanged(data), is_delta_histogram(data)) == (as_it_is, delta_histogram)


class Odd(float):
    """A number type of another library, with its own ``repr``."""

    def __repr__(self) -> str:
        return f"Odd({float(self)})"


def test_numbers_of_other_libraries() -> None:
    """Numbers of other libraries, such as NumPy's, are serialized as JSON numbers everywhere in a point."""
    point = sdk.HistogramDataPoint({}, 0, 0, 4, Odd(7.5), [1, 3], [Odd(1.5)], Odd(1.25), Odd(2.25))
    scope = InstrumentationScope("tests")
    for data in (sdk.Gauge([sdk.NumberDataPoint({}, 0, 0, Odd(1.5))]), sdk.Histogram([point], DELTA)):
        metrics = sdk.ScopeMetrics(scope, [sdk.Metric("m", None, "1", data)], "")
        (datum,) = mapper().datums(sdk.MetricsData([sdk.ResourceMetrics(Resource({}), [metrics], "")]))
        assert "Odd" not in encoded(datum)
        assert json.loads(encoded(datum))


def test_texts_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache of serialized numbers is bounded; evictions do not affect the output, even within one data point."""
    monkeypatch.setattr(wire, "_MAX_CACHED_NUMBERS", 50)
    texts = wire._NumberCache()
    monkeypatch.setattr(wire, "cached_json", texts.__getitem__)
    for first in range(0, 1000, 90):
        values = [first + n / 7 for n in range(90)]
        datum = Datum(Series("m", (), "None"), 0, Distribution(values, [*range(1, 91)]))
        members = json.loads(encoded(datum))
        assert (members["Values"], members["Counts"]) == (values, [*range(1, 91)])
        assert len(texts) <= 50


@given(st.one_of(st.floats(-(2.0**360), 2.0**360), st.integers(-(2**53), 2**53)))
def test_every_number_is_read_back(value: float) -> None:
    """Every serialized number is parsed as the same double, and has no redundant ``.0``."""
    text = number_json(value)
    assert json.loads(text) == value
    assert not text.endswith(".0")
    assert text != "-0"


RULES = [
    MetricRule(match="one.route*", dimensions=["route"]),
    MetricRule(match="rolled.*", rollups=[["route"], []]),
    MetricRule(match="statistics*", distribution="statistics"),
    MetricRule(match="*"),
]
NAMES = ["plain", "one.route", "rolled.up", "statistics"]

Event = tuple[str, str, str, int]
"""Metric, route, status and value."""


def expected_series(event: Event) -> list[tuple[str, tuple[tuple[str, str], ...]]]:
    """Return the name and dimensions of every series that an event belongs to."""
    name, route, status, _ = event
    full, by_route = (("route", route), ("status", status)), (("route", route),)
    if name == "one.route":
        return [(name, by_route)]
    return [(name, each) for each in ([full, by_route, ()] if name == "rolled.up" else [full])]


def summary(content: float | Distribution | Statistics) -> tuple[int, float, float, float]:
    """Return count, sum, minimum and maximum."""
    if isinstance(content, Statistics):
        return content.count, content.sum, content.minimum, content.maximum
    if isinstance(content, Distribution):
        return content.samples, content.total, content.values[0], content.values[-1]
    return 1, content, content, content


@given(
    st.lists(
        st.tuples(st.sampled_from(NAMES), st.sampled_from("abc"), st.sampled_from(["x", "y"]), st.integers(0, 1000)),
        max_size=60,
    )
)
def test_every_series_has_what_was_recorded(events: list[Event]) -> None:
    """Merged, rolled-up and separate series each have one data point per collection, with all their samples."""
    reader = sdk.InMemoryMetricReader(
        preferred_temporality={Histogram: DELTA, Counter: DELTA},
        preferred_aggregation={Histogram: FreshScaleHistogramAggregation(max_size=147)},
    )
    meter = MeterProvider([reader], shutdown_on_exit=False).get_meter("m")
    counters = {name: meter.create_counter(name) for name in NAMES}
    histograms = {name: meter.create_histogram(f"{name}.size") for name in NAMES}
    mapping = mapper(RULES)
    for part in (events[place::4] for place in range(4)):
        samples: dict[tuple[str, tuple[tuple[str, str], ...]], list[int]] = defaultdict(list)
        for event in part:
            name, route, status, value = event
            counters[name].add(value, {"route": route, "status": status})
            histograms[name].record(value, {"route": route, "status": status})
            for series in expected_series(event):
                samples[series].append(value)
        data = reader.get_metrics_data()
        datums = [] if data is None else mapping.datums(data)
        found = {(datum.series.name, datum.series.dimensions): datum.content for datum in datums}
        assert len(found) == len(datums) == 2 * len(samples)
        for (name, dimensions), recorded in samples.items():
            assert found[name, dimensions] == sum(recorded)
            content = found[f"{name}.size", dimensions]
            assert isinstance(content, Statistics) is (name == "statistics")
            count, total, *extremes = summary(content)
            assert (count, extremes) == (len(recorded), [min(recorded), max(recorded)])
            assert total == pytest.approx(sum(recorded))
