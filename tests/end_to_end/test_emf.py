"""PutMetricData requests and EMF lines, which CloudWatch Logs extracts, publish the same numbers."""

import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aws_embedded_metrics.logger.metrics_context import MetricsContext
from aws_embedded_metrics.serializers.log_serializer import LogSerializer
from aws_embedded_metrics.storage_resolution import StorageResolution
from aws_embedded_metrics.validator import validate_dimension_set, validate_metric, validate_namespace
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricResolution, MetricUnit
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider

from otel_cloudwatch_flask import (
    CloudWatchMetricExporter,
    CloudWatchMetricReader,
    CloudWatchMetricsReporter,
    MetricRule,
)
from otel_cloudwatch_flask.delivery.emf import EmfEnvelope
from otel_cloudwatch_flask.histograms.values_counts import Distribution
from otel_cloudwatch_flask.model.datum import Datum, Series
from otel_cloudwatch_flask.testing import FakeCloudWatch, LocalCloudWatch
from otel_cloudwatch_flask.testing.emf_lines import requests_of

RULES = [
    MetricRule(match="h1", rollups=[[], ["a"]], storage_resolution=1),
    MetricRule(match="h2", distribution="statistics"),
    MetricRule(match="c1", properties=["user"], exclude=["b"]),
]
PERCENTS = (50, 90, 99, 99.9)
VALUES = st.one_of(
    st.integers(-(2**40), 2**40),
    st.floats(-1e12, 1e12, allow_nan=False),
    st.sampled_from([0, 1, 0.1, 1e-300, 1e300, 1e100]),
)
NAMES = st.text(max_size=12)
ATTRIBUTES = st.dictionaries(
    st.one_of(st.sampled_from(["a", "b", "user", "http.host"]), NAMES.map("x".__add__)),
    st.one_of(NAMES, st.integers(), st.booleans(), st.floats(allow_nan=False)),
    max_size=4,
)
RECORDINGS = st.lists(
    st.tuples(st.sampled_from(["c1", "c2", "u1", "g1", "h1", "h2", "h3"]), VALUES, ATTRIBUTES, st.integers(1, 300)),
    min_size=1,
    max_size=12,
)


def record(provider: MeterProvider, recordings: list[tuple[str, Any, dict[str, Any], int]]) -> None:
    """Record numbers with every kind of instrument."""
    meter = provider.get_meter("test")
    meter.create_observable_gauge("o1", [lambda _: [Observation(5, {"a": "1"}), Observation(7, {"a": 1})]])
    record_with: dict[str, Callable[[str], Callable[..., None]]] = {
        "c": lambda name: meter.create_counter(name).add,
        "u": lambda name: meter.create_up_down_counter(name).add,
        "g": lambda name: meter.create_gauge(name).set,
        "h": lambda name: meter.create_histogram(name, unit="ms").record,
    }
    for name, value, attributes, times in recordings:
        add = record_with[name[0]](name)
        spread = random.Random(times)
        for _ in range(times if name[0] == "h" else 1):
            number = value * (1 + spread.random()) if times > 50 else value
            add(abs(number) if name[0] in "ch" else number, attributes)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(RECORDINGS)
def test_both_ways_publish_the_same(recordings: list[tuple[str, Any, dict[str, Any], int]]) -> None:
    """Names, dimensions, units and statistics are equal, and aws-embedded-metrics accepts the EMF documents."""
    by_api, by_emf, stream = FakeCloudWatch(), FakeCloudWatch(), io.StringIO()
    readers = [
        CloudWatchMetricReader(CloudWatchMetricExporter("Shop", client=by_api, rules=RULES)),
        CloudWatchMetricReader(CloudWatchMetricExporter("Shop", output="emf", stream=stream, rules=RULES)),
    ]
    provider = MeterProvider(metric_readers=readers, shutdown_on_exit=False)
    try:
        record(provider, recordings)
        assert all(reader.flush(30) for reader in readers)
    finally:
        provider.shutdown()
    by_emf.stream.write(stream.getvalue())
    for line in stream.getvalue().splitlines():
        validate(json.loads(line))
    assert by_emf.validation_errors == by_api.validation_errors == []
    assert set(by_emf.metrics()) == set(by_api.metrics())
    for metric in by_api.metrics():
        series = (metric.name, dict(metric.dimensions))
        assert by_emf.count(*series) == by_api.count(*series)
        assert by_emf.sum(*series) == pytest.approx(by_api.sum(*series), rel=1e-12, abs=1e-9)
        assert by_emf.minimum(*series) == by_api.minimum(*series)
        assert by_emf.maximum(*series) == by_api.maximum(*series)
        if metric.name != "h2":
            for percent in PERCENTS:
                found, expected = (way.percentile(metric.name, percent, series[1]) for way in (by_emf, by_api))
                assert found == pytest.approx(expected, rel=0.01)


def validate(document: dict[str, Any]) -> None:
    """Validate a document with aws-embedded-metrics, which raises an exception if it would not write the document."""
    (directive,) = document["_aws"]["CloudWatchMetrics"]
    validate_namespace(directive["Namespace"])
    for names in directive["Dimensions"]:
        validate_dimension_set({name: document[name] for name in names})
    for metric in directive["Metrics"]:
        resolution = StorageResolution(metric.get("StorageResolution", 60))
        for number in numbers_of(document[metric["Name"]]):
            validate_metric(metric["Name"], number, metric["Unit"], resolution, {})


def numbers_of(target: Any) -> list[float]:
    """Return the numbers in a metric's member of a document."""
    if isinstance(target, dict):
        return [number for each in target.values() for number in numbers_of(each)]
    return target if isinstance(target, list) else [target]


def test_other_libraries_write_the_same_document() -> None:
    """aws-embedded-metrics and Powertools write the same members for the same metrics."""
    dimensions = (("Page", "Index"),)
    latency = Datum(Series("Latency", dimensions, "Milliseconds", 1), 60, Distribution([1.5, 7], [2, 1]))
    (ours,) = EmfEnvelope("Shop").texts([Datum(Series("Orders", dimensions, "Count"), 60, 3.0), latency])
    context = MetricsContext(namespace="Shop")
    context.put_dimensions({"Page": "Index"})
    powertools = EphemeralMetrics(namespace="Shop")
    powertools.add_dimension("Page", "Index")
    context.put_metric("Orders", 3, "Count")
    powertools.add_metric("Orders", MetricUnit.Count, 3)
    for sample in (1.5, 1.5, 7):
        context.put_metric("Latency", sample, "Milliseconds", StorageResolution.HIGH)
        powertools.add_metric("Latency", MetricUnit.Milliseconds, sample, MetricResolution.High)
    (theirs,) = LogSerializer.serialize(context)
    assert comparable(json.loads(ours)) == comparable(json.loads(theirs))
    assert comparable(json.loads(ours)) == comparable(dict(powertools.serialize_metric_set()))


def comparable(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document without its timestamp, and with every metric in its long form."""
    (directive,) = document.pop("_aws")["CloudWatchMetrics"]
    metrics = {each["Name"]: {"StorageResolution": 60, **each} for each in directive.pop("Metrics")}
    values = {name: numbers_of(document[name]) for name in metrics}
    return {**document, **values, "directive": directive, "metrics": metrics}


def test_properties() -> None:
    """An attribute that a rule makes a property is in the document, but does not make separate series."""
    cloudwatch = FakeCloudWatch()
    lines = io.StringIO()
    rules = [MetricRule(properties=["user*"])]
    exporters = [
        CloudWatchMetricExporter("Shop", output="emf", stream=lines, rules=rules),
        CloudWatchMetricExporter("Shop", client=cloudwatch, rules=rules),
    ]
    readers = list(map(CloudWatchMetricReader, exporters))
    provider = MeterProvider(metric_readers=readers, shutdown_on_exit=False)
    counter = provider.get_meter("test").create_counter("orders")
    counter.add(1, {"page": "index", "user.id": "Zoë"})
    counter.add(2, {"page": "index", "user.id": 7})
    assert all(reader.flush() for reader in readers)
    provider.shutdown()
    (line,) = lines.getvalue().splitlines()
    document = json.loads(line)
    assert (document["orders"], document["page"], document["user.id"]) == (3, "index", "7")
    assert document["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["page"]]
    assert cloudwatch.sum("orders", page="index") == 3


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    """An app that the environment configures for EMF."""
    monkeypatch.setenv("OTEL_EXPORTER_CLOUDWATCH_OUTPUT", "emf")
    app = Flask("shop")
    reporter = CloudWatchMetricsReporter(app, "Shop", meter_provider=MeterProvider(shutdown_on_exit=False))

    @app.get("/")
    def index() -> str:
        reporter.add_metric("Orders", 2, "Count")
        return "ordered"

    yield app
    reporter.shutdown(timeout_seconds=1)


def test_the_pytest_fixture(app: Flask, request: pytest.FixtureRequest) -> None:
    """The pytest fixture receives the EMF lines of an app."""
    cloudwatch = request.getfixturevalue("cloudwatch")
    app.test_client().get("/")
    cloudwatch.assert_published("Orders", sum=2, count=1)
    cloudwatch.assert_no_losses()


def test_a_failing_stream_is_retried() -> None:
    """An error queued in the fake is raised by its stream, and the line is written again."""
    cloudwatch = FakeCloudWatch()
    cloudwatch.fail_next(OSError("gone"))
    reader = CloudWatchMetricReader(CloudWatchMetricExporter("Shop", output="emf", stream=cloudwatch.stream))
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    provider.get_meter("test").create_counter("orders").add(2)
    assert reader.flush(30)
    provider.shutdown()
    assert (cloudwatch.sum("orders"), reader.exporter.stats().requests_failed) == (2, 1)


def test_local_cloudwatch_reads_lines() -> None:
    """A child process's output can be written to the emulator, which then returns its metrics."""
    program = """
from otel_cloudwatch_flask import CloudWatchMetricReader, CloudWatchMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
provider = MeterProvider(metric_readers=[CloudWatchMetricReader()])
print("started")
provider.get_meter("test").create_counter("orders").add(2, {"page": "index"})
"""
    environment = {**os.environ, "CLOUDWATCH_OUTPUT": "emf", "CLOUDWATCH_NAMESPACE": "Shop"}
    with LocalCloudWatch() as cloudwatch:
        output = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=True
        ).stdout
        cloudwatch.stream.write(output)
        cloudwatch.stream.write('{"_aws":{}}\n')
        assert cloudwatch.published.sum("orders", page="index") == 2
        found = cloudwatch.client().list_metrics(Namespace="Shop")["Metrics"]
        assert [each["MetricName"] for each in found] == ["orders"]
        assert [each.code for each in cloudwatch.validation_errors] == ["InvalidEmf"]


DIRECTIVE = '{"Namespace":"Shop","Dimensions":[["Page"]],"Metrics":[{"Name":"Orders"}]}'
TIMED = '{"_aws":{"Timestamp":60000,"CloudWatchMetrics":[%s]},' % DIRECTIVE  # noqa: UP031 - braces


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (" " + TIMED + '"Page":"a","Orders":1}', "before the JSON object"),
        (TIMED + '"Page":"a","Orders":1', "delimiter"),
        (TIMED + '"Page":"a","Orders":NaN}', "NaN is not JSON"),
        (TIMED + '"Page":"a","Page":"b","Orders":1}', "a duplicate member name"),
        (TIMED + '"Orders":1}', "Page"),
        (TIMED + '"Page":"a"}', "Orders"),
        (TIMED + '"Page":"a","Orders":[]}', "1 to 100 values"),
        (TIMED + f'"Page":"a","Orders":{[1] * 101}}}', "1 to 100 values"),
        (
            TIMED + '"Page":"a","Orders":{"Values":[1],"Counts":[2],"Min":1,"Max":1,"Sum":3,"Count":2}}',
            "Count, Sum, Min or Max does not match",
        ),
        (
            TIMED + '"Page":"a","Orders":{"Values":[1],"Counts":[2],"Min":1,"Max":1,"Sum":2,"Count":3}}',
            "Count, Sum, Min or Max does not match",
        ),
        (
            TIMED + '"Page":"a","Orders":{"Values":[1],"Counts":[3000000000],"Min":1,"Max":1,"Sum":3e9,'
            '"Count":3000000001}}',
            "Count, Sum, Min or Max does not match",
        ),
        (
            TIMED + '"Page":"a","Orders":{"Values":[1],"Counts":[2],"Min":0.9999999999,"Max":1,"Sum":2,"Count":2}}',
            "Count, Sum, Min or Max does not match",
        ),
        (TIMED.replace("60000", "60000.5") + '"Page":"a","Orders":1}', "not a whole number"),
        (TIMED.replace('{"Name":"Orders"}', "") + '"Page":"a","Orders":1}', "1 to 100 metrics"),
        (TIMED + f'"Page":"a","Orders":1,"x":"{"x" * 262144}"}}', "longer than 256 KB"),
    ],
)
def test_the_reader_is_strict(line: str, reason: str) -> None:
    """A line that CloudWatch Logs would not extract completely is rejected with the reason."""
    with pytest.raises((ValueError, LookupError, TypeError), match=reason):
        list(requests_of(line))


def test_lines_that_requests_would_refuse() -> None:
    """The metrics in a line are validated like those in a request."""
    cloudwatch = FakeCloudWatch()
    cloudwatch.stream.write(TIMED + '"Page":"a","Orders":true}\n')
    (error,) = cloudwatch.validation_errors
    assert "The value true for parameter MetricData.member.1.Value is invalid." in error.message
    assert "specify a time within the past two weeks" in error.message
