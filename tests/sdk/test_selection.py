"""The SDK stores only the instruments and attributes that a CloudWatch reader publishes."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.metrics.view import View

from otel_cloudwatch_flask import CloudWatchMetricExporter, CloudWatchMetricReader, MetricRule
from otel_cloudwatch_flask.model.scope import NEGATIVE_KEY, FacadeMetric
from otel_cloudwatch_flask.sdk import internals
from otel_cloudwatch_flask.testing import FakeCloudWatch
from tests.support.fakes import in_threads, join_all

RULES = [
    MetricRule(match="Orders", dimensions=["payment"]),
    MetricRule(match="http.*", exclude=["user"]),
    MetricRule(match="Gr%C3%B6%C3%9Fe", dimensions=["user"]),
]
ATTRIBUTES: dict[str, str | bool] = {"payment": "card", "user": "u1", "http.host": "evil.example", NEGATIVE_KEY: True}


class Program:
    """A provider with a CloudWatch reader."""

    def __init__(self, views: list[View] | None = None) -> None:
        self.cloudwatch = FakeCloudWatch()
        self.exporter = CloudWatchMetricExporter("Shop", client=self.cloudwatch, rules=RULES)
        self.exporter.reporters.add("Shop")
        self.reader = CloudWatchMetricReader(self.exporter, export_interval_seconds=3600)
        self.provider = MeterProvider([self.reader], views=views or [], shutdown_on_exit=False)

    def stored(self, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
        """Return the attributes of each data point that the SDK stores for the reader."""
        seen: list[MetricsData] = []
        with monkeypatch.context() as patched:
            patched.setattr(self.exporter, "accept", seen.append)
            self.reader.collect()
        return [
            dict(point.attributes or {})
            for data in seen
            for scope in data.resource_metrics[0].scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        ]

    def count(self, scope: str | FacadeMetric, instrument: str) -> None:
        """Add 1 to a counter, with all attributes."""
        if isinstance(scope, FacadeMetric):
            meter = self.provider.get_meter(scope.scope_name, attributes=scope.scope_attributes())
        else:
            meter = self.provider.get_meter(scope)
        meter.create_counter(instrument).add(1, ATTRIBUTES)


@pytest.fixture
def program() -> Iterator[Program]:
    """A program without views."""
    program = Program()
    yield program
    program.reader.shutdown()


@pytest.mark.parametrize(
    ("scope", "instrument", "kept"),
    [
        ("shop", "http.requests", {"payment", "http.host", NEGATIVE_KEY}),
        ("shop", "orders", {"payment", "user", NEGATIVE_KEY}),
        (FacadeMetric("Orders", "Shop"), "orders", {"payment", NEGATIVE_KEY}),
        (FacadeMetric("Clicks", "Shop"), "clicks", {"payment", "user", NEGATIVE_KEY}),
        (FacadeMetric("Größe", "Shop"), "groesse", {"user", NEGATIVE_KEY}),
        (FacadeMetric("Orders", "Cafe"), "orders", None),
    ],
)
def test_each_instrument_keeps_what_its_rule_keeps(
    program: Program, monkeypatch: pytest.MonkeyPatch, scope: Any, instrument: str, kept: set[str] | None
) -> None:
    """The SDK stores the attributes that a rule keeps; metrics of another exporter's reporter are not stored."""
    program.count(scope, instrument)
    assert [set(each) for each in program.stored(monkeypatch)] == ([] if kept is None else [kept])


def test_gauges_keep_every_attribute(program: Program) -> None:
    """Gauges that differ only in unpublished attributes stay apart in the SDK; the exporter publishes each value."""
    gauge = program.provider.get_meter("shop").create_gauge("temperature")
    for host in range(3):
        gauge.set(host, {"http.host": f"{host}.example"})
    assert program.reader.flush()
    assert program.cloudwatch.count("temperature") == 3


def test_two_threads_record_the_first_measurement(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements that two threads record to a new instrument at the same time both count.

    Both have the selected attributes.
    """
    both, kept_attributes = threading.Barrier(2, timeout=30), program.reader.kept_attributes

    def wait_for_the_other(instrument: Any, name: str) -> Any:
        both.wait()
        return kept_attributes(instrument, name)

    counter = program.provider.get_meter("shop").create_counter("http.requests")
    monkeypatch.setattr(program.reader, "kept_attributes", wait_for_the_other)
    join_all(in_threads(*[lambda: counter.add(1, ATTRIBUTES)] * 2))
    assert program.stored(monkeypatch) == [{name: ATTRIBUTES[name] for name in ("payment", "http.host", NEGATIVE_KEY)}]
    counter.add(1, ATTRIBUTES)
    assert program.reader.flush()
    assert program.cloudwatch.count("http.requests") == 1


def test_views_of_the_program_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A view that selects attributes takes precedence, except for the mark of negative samples.

    Other views still have their effects.
    """
    program = Program([View(instrument_name="orders", attribute_keys={"user"}), View(instrument_name="x", name="y")])
    program.count("shop", "orders")
    assert program.stored(monkeypatch) == [{"user": "u1", NEGATIVE_KEY: True}]
    program.count("shop", "x")
    assert program.reader.flush()
    assert program.cloudwatch.sum("y") == 1
    program.reader.shutdown()


def test_rules_match_the_name_that_a_view_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a view renames a metric, the rule for the new name decides which attributes are stored."""
    program = Program([View(instrument_name="x", name="http.x")])
    program.count("shop", "x")
    assert [set(each) for each in program.stored(monkeypatch)] == [{"payment", "http.host", NEGATIVE_KEY}]
    program.reader.shutdown()


def test_also_after_a_fork(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """The storage after a fork applies the same selection."""
    program.count("shop", "orders")
    program.reader.forget_measurements()
    program.count(FacadeMetric("Orders", "Cafe"), "orders")
    program.count(FacadeMetric("Orders", "Shop"), "orders")
    assert [set(each) for each in program.stored(monkeypatch)] == [{"payment", NEGATIVE_KEY}]


@pytest.mark.parametrize("selects", [True, False])
def test_what_is_published_is_the_same_without_selection(
    monkeypatch: pytest.MonkeyPatch,
    selects: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """The same metrics are published if an unsupported SDK stores all attributes."""
    if not selects:
        monkeypatch.setattr(internals.SelectiveReader, "_select_instruments", lambda _: None)
    program = Program()
    for scope in ("shop", FacadeMetric("Orders", "Shop"), FacadeMetric("Orders", "Cafe")):
        program.count(scope, "orders")
    assert program.reader.flush()
    assert {(metric.name, metric.dimensions) for metric in program.cloudwatch.metrics()} == {
        ("orders", ((NEGATIVE_KEY, "true"), ("payment", "card"), ("user", "u1"))),
        ("Orders", (("payment", "card"),)),
    }
    program.reader.shutdown()
