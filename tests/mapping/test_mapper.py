"""From the real SDK to a strict fake CloudWatch: all measurements are published correctly."""

import logging
import math
from collections import Counter
from collections.abc import Iterable
from math import inf, nan
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import UpDownCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource

from otel_cloudwatch_flask.limits import sendable
from otel_cloudwatch_flask.model.rules import MetricRule
from otel_cloudwatch_flask.model.scope import NEGATIVE_KEY, FacadeMetric
from tests.support.programs import CUMULATIVE, Program

DELTA = AggregationTemporality.DELTA
BOUNDS = (0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 1000.0)


def explicit_view(*, bounds: Iterable[float] = BOUNDS, record_min_max: bool = True) -> View:
    """Return a view that selects explicit buckets for every histogram."""
    aggregation = ExplicitBucketHistogramAggregation(tuple(bounds), record_min_max=record_min_max)
    return View(instrument_name="*", aggregation=aggregation)


def observed(*values: float, **attributes: Any) -> Any:
    """Return a callback that observes one of these values in each collection."""
    left = iter(values)

    def callback(_options: CallbackOptions) -> Iterable[Observation]:
        yield Observation(next(left), attributes)

    return callback


def value_of(datums: list[dict[str, Any]]) -> float:
    """Return the value of the only data point."""
    (datum,) = datums
    return float(datum["Value"])


def values_by_dimensions(datums: list[dict[str, Any]]) -> dict[tuple[str, ...], float]:
    """Return the value of each data point by the values of its dimensions."""
    return {tuple(each["Value"] for each in datum["Dimensions"]): datum["Value"] for datum in datums}


class TestInstruments:
    """Each kind of instrument is published as documented."""

    def test_counter(self) -> None:
        """A counter publishes its delta, and nothing if nothing was added."""
        program = Program()
        counter = program.meter.create_counter("Orders", "{order}")
        counter.add(2)
        counter.add(3)
        (datum,) = program.publish()
        assert (datum["MetricName"], datum["Value"], datum["Unit"]) == ("orders", 5, "Count")
        assert program.publish() == []
        counter.add(4)
        assert value_of(program.publish()) == 4

    def test_up_down_counter(self) -> None:
        """An up-down counter publishes its current value in each collection."""
        program = Program()
        counter = program.meter.create_up_down_counter("queue")
        counter.add(5)
        assert value_of(program.publish()) == 5
        counter.add(-2)
        assert value_of(program.publish()) == 3
        assert value_of(program.publish()) == 3

    def test_merged_up_down_counter_that_arrives_as_deltas(self) -> None:
        """The current value of a merged metric includes every series, even those that did not change."""
        rule = MetricRule(dimensions=["k"], rollups=[[]])
        program = Program(temporality={UpDownCounter: DELTA}, rules=[rule])
        counter = program.meter.create_up_down_counter("queue")
        counter.add(5, {"k": 1})
        counter.add(3, {"k": "1"})
        counter.add(-4, {"k": "a", "user": 7})
        assert values_by_dimensions(program.publish()) == {(): 4, ("1",): 8, ("a",): -4}
        counter.add(-2, {"k": "1"})
        assert values_by_dimensions(program.publish()) == {(): 2, ("1",): 6}
        assert program.publish() == []

    @given(st.lists(st.lists(st.tuples(st.sampled_from("xy"), st.sampled_from([1, "1", "a"]), st.integers(-9, 9)))))
    def test_up_down_counters_that_arrive_as_deltas(self, collections: list[list[tuple[str, int | str, int]]]) -> None:
        """A metric that several scopes and series share has the sum of all their changes."""
        program = Program(temporality={UpDownCounter: DELTA}, rules=[MetricRule(dimensions=["k"], rollups=[[]])])
        counters = {scope: program.provider.get_meter(scope).create_up_down_counter("queue") for scope in "xy"}
        totals: Counter[tuple[str, ...]] = Counter()
        for changes in collections:
            for scope, k, change in changes:
                counters[scope].add(change, {"k": k})
                totals[str(k),] += change
                totals[()] += change
            published = values_by_dimensions(program.publish())
            assert published == {key: totals[key] for key in published}
            assert {(str(k),) for _, k, _ in changes} <= published.keys()

    def test_gauge(self) -> None:
        """A gauge publishes the last value that was set."""
        program = Program()
        gauge = program.meter.create_gauge("temperature")
        gauge.set(20)
        gauge.set(-3.5)
        assert value_of(program.publish()) == -3.5

    def test_observable_counter(self) -> None:
        """An observable counter publishes the difference from the previous observation."""
        program = Program()
        program.meter.create_observable_counter("bytes", [observed(10, 25, 25, 30)], "By")
        assert [sum(datum["Value"] for datum in program.publish()) for _ in range(4)] == [10, 15, 0, 5]

    def test_observable_up_down_counter(self) -> None:
        """An observable up-down counter publishes the observed value."""
        program = Program()
        program.meter.create_observable_up_down_counter("threads", [observed(10, 4, 4)])
        assert [value_of(program.publish()) for _ in range(3)] == [10, 4, 4]

    def test_observable_gauge(self) -> None:
        """An observable gauge publishes the observed value, including zero and negative ones."""
        program = Program()
        program.meter.create_observable_gauge("load", [observed(0.5, 0, -1)])
        assert [value_of(program.publish()) for _ in range(3)] == [0.5, 0, -1]

    def test_histogram(self) -> None:
        """A histogram publishes values and counts, with percentiles in a narrow bucket, and nothing if empty."""
        program = Program()
        histogram = program.meter.create_histogram("latency", "ms")
        for i in range(1, 1001):
            histogram.record(i)
        (datum,) = program.publish()
        assert datum["Unit"] == "Milliseconds"
        assert program.cloudwatch.count("latency") == 1000
        assert program.cloudwatch.percentile("latency", 99) == pytest.approx(990, rel=0.05)
        assert program.publish() == []

    def test_explicit_histogram(self) -> None:
        """Samples are spread within the buckets that a view selects."""
        program = Program(views=[explicit_view()])
        histogram = program.meter.create_histogram("latency", "ms")
        for i in range(1, 1001):
            histogram.record(i)
        program.publish()
        assert program.cloudwatch.count("latency") == 1000
        assert program.cloudwatch.sum("latency") == pytest.approx(500_500)
        assert program.cloudwatch.percentile("latency", 50) == pytest.approx(500, rel=0.1)

    def test_histogram_without_minimum_and_maximum(self) -> None:
        """Count and sum are correct if a view omits minimum and maximum."""
        program = Program(views=[explicit_view(record_min_max=False)])
        histogram = program.meter.create_histogram("latency")
        for value in (1, 7, 3000):
            histogram.record(value)
        program.publish()
        assert program.cloudwatch.count("latency") == 3
        assert program.cloudwatch.sum("latency") == pytest.approx(3008)


class TestNumbers:
    """Numbers that CloudWatch does not accept."""

    @pytest.mark.parametrize("value", [nan, inf, -inf, 2.0**361, -(2.0**361), 10**400])
    def test_one_bad_number_costs_no_other(self, value: float) -> None:
        """An invalid observation is lost; everything else in the collection is published."""
        program = Program()
        program.meter.create_counter("orders").add(1)
        program.meter.create_observable_gauge("sick", [observed(value)])
        program.meter.create_observable_gauge("healthy", [observed(7)])
        program.publish()
        assert program.cloudwatch.sum("orders") == 1
        assert program.cloudwatch.sum("healthy") == 7
        assert program.cloudwatch.count("sick") == 0
        assert set(program.lost()) <= {"invalid"}  # some SDK versions drop infinities

    def test_sums_of_whole_numbers_beyond_every_float(self) -> None:
        """A sum of ints beyond the range of floats is lost, but no other sum."""
        program = Program(views=[explicit_view()])
        sick, healthy = program.meter.create_histogram("sick"), program.meter.create_histogram("healthy")
        for _ in range(20):
            sick.record(10**308)
        healthy.record(5)
        program.publish()
        assert program.cloudwatch.values("healthy") == {5: 1}
        assert program.lost() == {"invalid": 1}

    @pytest.mark.parametrize("tiny", [5e-324, 1e-320, 1e-308, 2.0**-1022, 1e-200])
    @pytest.mark.parametrize("views", [[], [explicit_view()]], ids=["exponential", "explicit"])
    def test_too_small(self, tiny: float, views: list[View]) -> None:
        """Values below 2^-360 are sent as 0, and affect no other sample."""
        program = Program(views=views)
        histogram = program.meter.create_histogram("latency")
        for value in (tiny, 1.0, 2.0):
            histogram.record(value)
        program.publish()
        assert program.cloudwatch.values("latency") == {0: 1, 1: 1, 2: 1}
        assert program.lost() == {}

    def test_merged_numbers_beyond_the_range(self, caplog: pytest.LogCaptureFixture) -> None:
        """If merging numbers exceeds the range, their sum is lost and logged; everything else is published."""
        program = Program(rules=[MetricRule("sick", dimensions=())])
        sick, healthy = program.meter.create_counter("sick"), program.meter.create_counter("healthy")
        for worker in (1, 2):
            sick.add(2.0**360, {"worker": worker})
        healthy.add(7)
        program.publish()
        assert program.cloudwatch.sum("healthy") == 7
        assert program.lost() == {"invalid": 1}
        assert "Lost a data point of sick: it has a value outside ±2^360." in caplog.text

    @pytest.mark.parametrize("is_cumulative", [False, True])
    def test_a_point_beyond_the_range_costs_no_other_that_it_meets(self, is_cumulative: bool) -> None:  # noqa: FBT001
        """If a point's sum is too large for CloudWatch, its samples are lost, but no others of the metric."""
        program = Program(
            views=[explicit_view(record_min_max=False)],
            rules=[MetricRule(dimensions=())],
            temporality=CUMULATIVE if is_cumulative else None,
        )
        histogram = program.meter.create_histogram("latency")
        for value, worker in ((5.0, 1), (1e150, 2)):
            histogram.record(value, {"worker": worker})
        program.publish()
        histogram.record(6.0, {"worker": 1})
        program.publish()
        assert (program.cloudwatch.count("latency"), program.cloudwatch.sum("latency")) == (2, 11)
        assert program.lost() == {"invalid": 1}

    def test_said_once_a_minute(self, caplog: pytest.LogCaptureFixture) -> None:
        """An invalid number is counted each time, but logged at most once per minute and metric."""
        program = Program()
        program.meter.create_observable_gauge("sick", [observed(*[2.0**361] * 5)])
        for _ in range(5):
            program.publish()
        assert program.lost() == {"invalid": 5}
        assert len([message for message in caplog.messages if "sick" in message]) == 1

    def test_scaled_units_apply_to_every_number(self) -> None:
        """Unit scaling applies to counters, gauges and histograms."""
        program = Program()
        program.meter.create_counter("counter", "h").add(2)
        program.meter.create_gauge("gauge", "h").set(0.5)
        program.meter.create_histogram("histogram", "h").record(3)
        assert {datum["Unit"] for datum in program.publish()} == {"Seconds"}
        assert program.cloudwatch.sum("counter") == 7200
        assert program.cloudwatch.sum("gauge") == 1800
        assert program.cloudwatch.values("histogram") == {10800: 1}

    def test_unknown_unit(self, caplog: pytest.LogCaptureFixture) -> None:
        """An unknown unit is published as ``None``, and each unit causes one warning."""
        program = Program()
        counters = [program.meter.create_counter(name, "furlong") for name in ("one", "two")]
        for _ in range(2):
            for counter in counters:
                counter.add(1)
            assert {datum["Unit"] for datum in program.publish()} == {"None"}
        assert len([message for message in caplog.messages if "'furlong'" in message]) == 1


class TestDimensions:
    """Attributes, rules and merging."""

    def test_points_that_become_the_same(self) -> None:
        """Points that differ only in excluded attributes, or as ``1`` and ``"1"``, become one data point."""
        program = Program()
        counter = program.meter.create_counter("orders")
        given_attributes: list[dict[str, Any]] = [
            {"a": 1},
            {"a": "1"},
            {"a": 1, "http.host": "evil.example"},
            {"b": True},  # next to "a": 1, the oldest supported SDK would treat it as equal
        ]
        for attributes in given_attributes:
            counter.add(1, attributes)
        datums = {datum["Dimensions"][0]["Value"]: datum["Value"] for datum in program.publish()}
        assert datums == {"1": 3, "true": 1}

    def test_gauges_that_become_the_same(self) -> None:
        """Gauges with the same dimensions keep each value."""
        program = Program(rules=[MetricRule(dimensions=())])
        gauge = program.meter.create_gauge("load")
        for worker, load in enumerate([0.5, 0.7, 0.5]):
            gauge.set(load, {"worker": worker})
        program.publish()
        assert program.cloudwatch.values("load", {}) == {0.5: 2, 0.7: 1}

    def test_cumulative_points_are_differences_before_they_are_merged(self) -> None:
        """Cumulative points become deltas before merging, so the restart of one series does not reset others."""
        program = Program(rules=[MetricRule(dimensions=())], temporality=CUMULATIVE)
        counter = program.meter.create_counter("orders")
        counter.add(5, {"worker": 1})
        assert value_of(program.publish()) == 5
        counter.add(1, {"worker": 2})
        assert value_of(program.publish()) == 1

    def test_rollups(self) -> None:
        """Each rollup is published once, and its total equals that of the original series."""
        rules = [MetricRule(rollups=[["route"], []])]
        program = Program(rules=rules)
        counter = program.meter.create_counter("requests")
        for route in range(3):
            for status in range(4):
                counter.add(1, {"route": route, "status": status})
        assert len(program.publish()) == 12 + 3 + 1
        assert program.cloudwatch.sum("requests", {}) == 12
        assert program.cloudwatch.sum("requests", {"route": 1}) == 4

    def test_drop_resolution_and_statistics(self) -> None:
        """A rule can drop a metric, set its resolution to a second, or publish statistics instead of values."""
        rules = [MetricRule(match="noise", drop=True), MetricRule(storage_resolution=1, distribution="statistics")]
        program = Program(rules=rules)
        program.meter.create_counter("noise").add(1)
        histogram = program.meter.create_histogram("latency")
        histogram.record(1)
        histogram.record(2)
        (datum,) = program.publish()
        assert datum["StorageResolution"] == 1
        assert datum["StatisticValues"] == {"SampleCount": 2, "Sum": 3, "Minimum": 1, "Maximum": 2}

    def test_more_than_30(self, caplog: pytest.LogCaptureFixture) -> None:
        """The same thirty dimensions are kept for any order of attributes, with one warning per metric."""
        program = Program(rules=[MetricRule(dimensions=["z", "a*"])])
        counter = program.meter.create_counter("orders")
        attributes = {f"a{i:02}": i for i in range(40)} | {"z": 1}
        counter.add(1, attributes)
        counter.add(1, dict(reversed(attributes.items())))
        (datum,) = program.publish()
        assert [each["Name"] for each in datum["Dimensions"]] == [*[f"a{i:02}" for i in range(29)], "z"]
        assert datum["Value"] == 2
        assert len([message for message in caplog.messages if "orders has 41 attributes" in message]) == 1

    def test_more_than_30_with_an_old_name(self) -> None:
        """An attribute is kept first also if the rule names it by its new name."""
        program = Program(rules=[MetricRule(dimensions=["*", "http.route"])])
        program.meter.create_counter("orders").add(1, {"http.target": "/"} | {f"a{i:02d}": "x" for i in range(40)})
        (datum,) = program.publish()
        assert datum["Dimensions"][-1] == {"Name": "http.target", "Value": "/"}

    def test_resource_dimensions(self) -> None:
        """Selected resource attributes become dimensions, unless the point has an attribute of the same name."""
        resource = {"service.name": "shop", "host.name": "a", "secret": "x"}
        program = Program(resource=resource, resource_dimensions=["service.name", "host.name", "not there"])
        counter = program.meter.create_counter("orders")
        counter.add(1)
        counter.add(2, {"host.name": "b"})
        program.publish()
        assert program.cloudwatch.sum("orders", {"service.name": "shop", "host.name": "a"}) == 1
        assert program.cloudwatch.sum("orders", {"service.name": "shop", "host.name": "b"}) == 2

    @pytest.mark.skipif(
        "cloud" not in Resource({"cloud": {"zone": "a"}}).attributes,
        reason="this SDK drops attributes that are mappings",
    )
    def test_a_resource_dimension_that_is_a_mapping(self) -> None:
        """A resource attribute of any type that OpenTelemetry allows becomes a dimension."""
        program = Program(resource={"cloud": {"zones": ["a", "b"]}}, resource_dimensions=["cloud"])
        program.meter.create_counter("orders").add(1)
        program.publish()
        assert program.cloudwatch.sum("orders", {"cloud": '{"zones": ["a", "b"]}'}) == 1

    def test_overflow(self, caplog: pytest.LogCaptureFixture) -> None:
        """Beyond the limit, all samples go to the overflow series; none is lost, and one warning is logged."""
        program = Program(max_metrics=10)
        counter = program.meter.create_counter("orders")
        for i in range(100):
            counter.add(1, {"user": i})
        assert len(program.publish()) == 9
        assert program.cloudwatch.sum("orders") == 100
        assert program.cloudwatch.sum("orders", {"otel.metric.overflow": "true"}) == 92
        stats = program.exporter.stats()
        assert (stats.metrics_active, stats.metrics_overflowed) == (9, 92)
        assert len([message for message in caplog.messages if "max_metrics" in message]) == 1


class TestFacade:
    """Metrics of a reporter."""

    def test_name_and_sign(self) -> None:
        """The metric has the name in its scope; marked samples are negative, and are merged with positive ones."""
        program = Program()
        program.exporter.reporters.add("shop")
        metric = FacadeMetric("Request Balance", "shop")
        meter = program.provider.get_meter(metric.scope_name, attributes=metric.scope_attributes())
        histogram = meter.create_histogram("request_balance")
        histogram.record(5)
        histogram.record(0)
        histogram.record(5, {NEGATIVE_KEY: True})
        (datum,) = program.publish()
        assert datum["MetricName"] == "Request Balance"
        assert datum["Dimensions"] == []
        assert program.cloudwatch.values("Request Balance") == {-5: 1, 0: 1, 5: 1}

    def test_the_marker_of_others_is_an_attribute(self) -> None:
        """Outside the facade, the marker is an ordinary attribute."""
        program = Program()
        program.meter.create_counter("orders").add(1, {NEGATIVE_KEY: True})
        (datum,) = program.publish()
        assert datum["Value"] == 1


recordings = st.lists(
    st.one_of(
        st.floats(0, 1e4),
        st.floats(0, 2.0**359),
        st.floats(0, 1e-300),
        st.integers(0, 10**15),
        st.integers(-40, 40).map(lambda exponent: 2.0**exponent),
        st.sampled_from([0, 0.0, 5, 10, 1000, 5e-324, 2.0**359]),
    ),
    min_size=1,
    max_size=40,
)


def record_all(histogram: Any, values: list[float]) -> None:
    """Record the samples. Discard examples near powers of two for which the SDK itself fails."""
    try:
        for value in values:
            histogram.record(value)
    except IndexError:
        assume(False)  # noqa: FBT003 - hypothesis's own signature


def assert_published(program: Program, name: str, values: list[float]) -> None:
    """Assert that the fake CloudWatch received the recorded samples."""
    expected = [sendable(value) for value in values]
    cloudwatch = program.cloudwatch
    assert cloudwatch.count(name) == len(expected)
    assert cloudwatch.minimum(name) == min(expected)
    assert cloudwatch.maximum(name) == max(expected)
    assert math.isclose(cloudwatch.sum(name), math.fsum(values), rel_tol=1e-9, abs_tol=2.0**-300)
    assert program.lost() == {}


class TestProperties:
    """Properties of everything that the SDK accepts."""

    @given(recordings, st.sampled_from(["exponential", "explicit", "one bucket", "many buckets"]))
    def test_histograms(self, values: list[float], kind: str) -> None:
        """The published count, sum, minimum and maximum are those of the recorded samples."""
        bounds = {"explicit": BOUNDS, "one bucket": (), "many buckets": tuple(range(0, 3000, 10))}
        program = Program(views=[explicit_view(bounds=bounds[kind])] if kind in bounds else [])
        record_all(program.meter.create_histogram("latency"), values)
        program.publish()
        assert_published(program, "latency", values)

    # The SDK fails to collect cumulative exponential histograms with some very small samples.
    @given(
        st.lists(
            st.lists(st.floats(1e-3, 1e6) | st.integers(0, 10**6), min_size=1, max_size=20), min_size=1, max_size=4
        ),
        st.booleans(),
    )
    def test_cumulative_histograms(self, intervals: list[list[float]], is_explicit: bool) -> None:  # noqa: FBT001
        """With cumulative temporality, the published samples of all intervals are the recorded ones."""
        program = Program(views=[explicit_view()] if is_explicit else [], temporality=CUMULATIVE)
        histogram = program.meter.create_histogram("latency")
        for values in intervals:
            record_all(histogram, values)
            program.publish()
        everything = [value for values in intervals for value in values]
        assert program.cloudwatch.count("latency") == len(everything)
        assert math.isclose(program.cloudwatch.sum("latency"), math.fsum(everything), rel_tol=1e-6, abs_tol=1e-6)
        assert program.lost() == {}

    @given(st.lists(st.lists(st.integers(0, 2**70), max_size=4), min_size=1, max_size=4), st.booleans())
    def test_counters(self, intervals: list[list[int]], is_cumulative: bool) -> None:  # noqa: FBT001
        """With any temporality, CloudWatch's sum of a counter equals the added amounts."""
        program = Program(temporality=CUMULATIVE if is_cumulative else None)
        counter = program.meter.create_counter("bytes")
        for added in intervals:
            for each in added:
                counter.add(each)
            program.publish()
        assert math.isclose(program.cloudwatch.sum("bytes"), sum(map(sum, intervals)), rel_tol=1e-15)

    @given(
        st.from_regex(r"[a-zA-Z][-_./a-zA-Z0-9]{0,40}", fullmatch=True),
        st.text(st.characters(max_codepoint=127), max_size=63),
        st.dictionaries(
            st.text(st.characters(), max_size=12),
            st.one_of(
                st.text(st.characters(), max_size=12),
                st.booleans(),
                st.integers(),
                st.floats(),
                st.lists(st.text(max_size=5), max_size=3).map(tuple),
            ),
            max_size=35,
        ),
        st.one_of(st.floats(), st.integers(), st.integers(-(2**400), 2**400)),
    )
    def test_nothing_is_refused(self, name: str, unit: str, attributes: dict[str, Any], value: float) -> None:
        """No name, unit, attribute or value that the SDK accepts results in a request that CloudWatch rejects."""
        program = Program()
        meter = program.meter
        try:
            meter.create_counter(name + "1", unit).add(value, attributes)
            meter.create_up_down_counter(name + "2", unit).add(value, attributes)
            meter.create_histogram(name + "3", unit).record(value, attributes)
            meter.create_gauge(name + "4", unit).set(value, attributes)
        except IndexError:
            assume(False)  # noqa: FBT003 - hypothesis's own signature
        meter.create_observable_gauge(name + "5", [observed(value, **attributes)], unit)
        meter.create_observable_counter(name + "6", [observed(value, **attributes)], unit)
        meter.create_observable_up_down_counter(name + "7", [observed(value, **attributes)], unit)
        program.publish()
        stats = program.exporter.stats()
        assert stats.datums_pending == 0
        assert set(stats.datums_lost) <= {"invalid"}


def test_loggers_belong_to_the_package(caplog: pytest.LogCaptureFixture) -> None:
    """Messages are logged under the package's name."""
    program = Program()
    program.meter.create_counter("orders", "furlong").add(1)
    program.publish()
    assert {record.name for record in caplog.records if record.levelno >= logging.WARNING} == {
        "otel_cloudwatch_flask.mapping.metric_streams"
    }


def test_one_name_with_two_units_is_two_running_totals() -> None:
    """Cumulative series with the same name but different units do not affect each other."""
    program = Program(temporality=CUMULATIVE)
    totals = [program.meter.create_counter("worked", unit=unit) for unit in ("s", "ms")]
    for total, worked in zip(totals, (10, 1000), strict=True):
        total.add(worked)
    program.publish()
    for total in totals:
        total.add(1)
    program.publish()
    assert program.cloudwatch.values("worked") == {10: 1, 1: 2, 1000: 1}
