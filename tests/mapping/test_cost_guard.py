"""Attribute values invented by clients create no metrics beyond the limit, and no sample is lost."""

import random
import re
from collections.abc import Iterator

import pytest
from flask import Flask
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_cloudwatch_flask import (
    CloudWatchMetricExporter,
    CloudWatchMetricReader,
    CloudWatchMetricsReporter,
    MetricRule,
)
from otel_cloudwatch_flask.flask_extension.provider_setup import SERIES_PER_METRIC
from otel_cloudwatch_flask.mapping.cardinality import overflow_capacity
from otel_cloudwatch_flask.model.datum import OVERFLOW_DIMENSIONS
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch

FORGED = 3000
MAX_METRICS = 50
OVERFLOW_SERIES = overflow_capacity(MAX_METRICS)
PLAIN_SERIES = MAX_METRICS - OVERFLOW_SERIES
NAMES = 1500


@pytest.fixture
def cloudwatch() -> FakeCloudWatch:
    """A strict fake CloudWatch."""
    return FakeCloudWatch()


@pytest.fixture
def app(cloudwatch: FakeCloudWatch) -> Iterator[Flask]:
    """An instrumented app with two routes."""
    app = Flask("shop")
    app.config["CLOUDWATCH_MAX_METRICS"] = MAX_METRICS
    app.add_url_rule("/items/<int:item>", endpoint="item", view_func=lambda item: f"item {item}")
    app.add_url_rule("/", endpoint="index", view_func=lambda: "hello")
    provider = MeterProvider(shutdown_on_exit=False)
    reporter = CloudWatchMetricsReporter(
        app, "Shop", cloudwatch, meter_provider=provider, instrument=True, flush="interval"
    )
    yield app
    reporter.shutdown()


def request_with_forged_hosts(app: Flask, number: int) -> None:
    """Send requests, each with a different Host header."""
    source = random.Random(1)
    client = app.test_client()
    for item in range(number):
        path = "/" if item % 3 else f"/items/{item}"
        with client.get(path, base_url=f"http://{source.getrandbits(64):x}.example:{1024 + item}") as response:
            assert response.status_code == 200


def reporter_of(app: Flask) -> CloudWatchMetricsReporter:
    """Return the reporter of an app."""
    reporter = app.extensions["cloudwatch_metrics"].reporter
    assert isinstance(reporter, CloudWatchMetricsReporter)
    return reporter


def test_forged_host_headers_make_no_metrics(app: Flask, cloudwatch: FakeCloudWatch) -> None:
    """The Host header is not a dimension: each route, method and status has one duration metric."""
    number = 600
    request_with_forged_hosts(app, number)
    assert reporter_of(app).flush()
    durations = [metric for metric in cloudwatch.metrics() if metric.name == "http.server.duration"]
    assert len(durations) == 2
    assert not any("example" in value for metric in durations for _, value in metric.dimensions)
    assert cloudwatch.count("http.server.duration") == number
    assert reporter_of(app).stats().metrics_overflowed == 0


def test_whoever_publishes_host_headers_is_bounded() -> None:
    """If a rule keeps a forged attribute, the limit still applies, and the rest goes to the overflow series."""
    cloudwatch = FakeCloudWatch()
    exporter = CloudWatchMetricExporter(
        "Shop", client=cloudwatch, rules=[MetricRule(exclude=())], max_metrics=MAX_METRICS
    )
    reader = CloudWatchMetricReader(exporter)
    histogram = MeterProvider([reader], shutdown_on_exit=False).get_meter("m").create_histogram("duration")
    for number in range(500):
        histogram.record(number, {"http.host": f"{number}.example"})
    assert reader.flush()
    assert len(cloudwatch.metrics()) == PLAIN_SERIES + 1
    assert cloudwatch.count("duration") == 500
    assert cloudwatch.sum("duration") == pytest.approx(sum(range(500)), rel=1e-9)
    reader.shutdown()


@pytest.mark.parametrize("flushes", [1, 6])
def test_values_of_a_user_dimension(flushes: int) -> None:
    """Any number of users stays within the limit, in any number of collections, and every order is counted."""
    cloudwatch = FakeCloudWatch()
    exporter = CloudWatchMetricExporter("Shop", client=cloudwatch, max_metrics=MAX_METRICS)
    reader = CloudWatchMetricReader(exporter)
    counter = MeterProvider([reader], shutdown_on_exit=False).get_meter("m").create_counter("orders")
    for start in range(0, FORGED, FORGED // flushes):
        for user in range(start, start + FORGED // flushes):
            counter.add(user % 7, {"user.id": str(user)})
        assert reader.flush()
    metrics = cloudwatch.metrics()
    assert len(metrics) == PLAIN_SERIES + 1
    assert sum(metric.dimensions == OVERFLOW_DIMENSIONS for metric in metrics) == 1
    assert cloudwatch.sum("orders") == sum(user % 7 for user in range(FORGED))
    stats = exporter.stats()
    assert (stats.metrics_active, stats.metrics_overflowed) == (PLAIN_SERIES + 1, FORGED - PLAIN_SERIES)
    reader.shutdown()


def bounded_reporter(cloudwatch: FakeCloudWatch) -> CloudWatchMetricsReporter:
    """Return a reporter with a limit of ``MAX_METRICS`` metrics."""
    app = Flask("shop")
    app.config["CLOUDWATCH_MAX_METRICS"] = MAX_METRICS
    provider = MeterProvider(shutdown_on_exit=False)
    return CloudWatchMetricsReporter(app, "Shop", cloudwatch, meter_provider=provider, flush="interval")


def test_values_of_a_dimension_given_to_add_metric(
    cloudwatch: FakeCloudWatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Unbounded dimension values given to add_metric create no metrics beyond the limit, and log one warning."""
    reporter = bounded_reporter(cloudwatch)
    for start in range(0, FORGED, 1000):
        for user in range(start, start + 1000):
            reporter.add_metric("Orders", user % 7 - 3, "Count", {"User": str(user)})
        assert reporter.flush()
    metrics = cloudwatch.metrics()
    assert len(metrics) == PLAIN_SERIES + 1
    assert sum(metric.dimensions == OVERFLOW_DIMENSIONS for metric in metrics) == 1
    assert cloudwatch.count("Orders") == FORGED
    assert cloudwatch.sum("Orders") == pytest.approx(sum(user % 7 - 3 for user in range(FORGED)), abs=1e-9 * 3 * FORGED)
    (said,) = (message for message in caplog.messages if message.startswith("add_metric has"))
    assert said == (
        f"add_metric has reached its limit of {SERIES_PER_METRIC * MAX_METRICS} dimension combinations: new "
        "combinations of Orders are recorded as that metric's overflow series (otel.metric.overflow=true). Remove IDs "
        "and other variable parts from dimensions, or raise max_metrics."
    )
    reporter.shutdown()


def test_names_of_metrics_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """Unbounded metric names create a limited number of metrics and log messages, and every order is counted."""
    cloudwatch = FakeCloudWatch()
    exporter = CloudWatchMetricExporter("Shop", client=cloudwatch, max_metrics=MAX_METRICS)
    reader = CloudWatchMetricReader(exporter)
    meter = MeterProvider([reader], shutdown_on_exit=False).get_meter("m")
    counters = [meter.create_counter(f"orders.{user}", unit=("s", "By")[user % 2]) for user in range(NAMES)]
    for _ in range(2):
        for counter in counters:
            counter.add(3)
        assert reader.flush()
    billed = {(metric.name, metric.dimensions) for metric in cloudwatch.metrics()}
    assert len(billed) == MAX_METRICS
    assert sum(dimensions == OVERFLOW_DIMENSIONS for _, dimensions in billed) == OVERFLOW_SERIES
    rest = NAMES - MAX_METRICS + 1
    assert cloudwatch.sum("otel.metric.overflow", {"otel.metric.overflow": "true"}) == 2 * 3 * rest
    assert sum(cloudwatch.sum(name) for name in {name for name, _ in billed}) == 2 * 3 * NAMES
    stats = exporter.stats()
    assert (stats.metrics_active, stats.metrics_overflowed) == (MAX_METRICS, 2 * (NAMES - PLAIN_SERIES))
    said = [message for message in caplog.messages if "max_metrics" in message]
    assert len(said) == OVERFLOW_SERIES
    assert said[0] == (
        f"max_metrics has been reached: new dimension combinations of orders.{PLAIN_SERIES} are published as its "
        "overflow series (otel.metric.overflow=true). Drop a dimension with a MetricRule, or raise max_metrics; each "
        "additional metric costs up to $0.30 a month."
    )
    assert said[-1] == (
        "max_metrics has been reached, and there is no room for further overflow series: new dimension combinations of "
        f"orders.{MAX_METRICS - 1} and other metrics are published together as the metric otel.metric.overflow. "
        "Remove IDs and other variable parts from metric names and dimensions, or raise max_metrics."
    )
    reader.shutdown()


def test_names_given_to_add_metric_are_bounded(cloudwatch: FakeCloudWatch, caplog: pytest.LogCaptureFixture) -> None:
    """Names passed to add_metric are bounded in the SDK's memory too, for samples of either sign."""
    reporter = bounded_reporter(cloudwatch)
    for user in range(NAMES):
        reporter.add_metric(f"Login {user}", user % 7 - 3)
    assert reporter.flush()
    names = {metric.name for metric in cloudwatch.metrics()}
    assert len(cloudwatch.metrics()) == MAX_METRICS
    (said,) = (message for message in caplog.messages if message.startswith("add_metric has"))
    limit = SERIES_PER_METRIC * MAX_METRICS
    assert said == (
        f"add_metric has reached its limit of {limit} dimension combinations: Login {limit} and other new metrics are "
        "recorded together as the metric otel.metric.overflow. Remove IDs and other variable parts from metric names "
        "and dimensions, or raise max_metrics."
    )
    assert sum(cloudwatch.count(name) for name in names) == NAMES
    total = sum(user % 7 - 3 for user in range(NAMES))
    assert sum(cloudwatch.sum(name) for name in names) == pytest.approx(total, abs=1e-9 * 3 * NAMES)
    reporter.shutdown()


def test_one_warning_for_each_metric_name(caplog: pytest.LogCaptureFixture) -> None:
    """Overflow is logged once per metric name, not once per sample."""
    reader = CloudWatchMetricReader(CloudWatchMetricExporter("Shop", client=FakeCloudWatch(), max_metrics=300))
    meter = MeterProvider([reader], shutdown_on_exit=False).get_meter("m")
    orders, errors = meter.create_counter("orders"), meter.create_counter("errors")
    for _ in range(3):
        for user in range(300):
            orders.add(1, {"user.id": user})
            errors.add(1, {"user.id": user})
        assert reader.flush()
    warnings = [record.getMessage() for record in caplog.records if "max_metrics" in record.getMessage()]
    assert len(warnings) == 2
    combinations_of = re.compile("new dimension combinations of (.+) are published")
    assert {name for warning in warnings for name in combinations_of.findall(warning)} == {"orders", "errors"}
    reader.shutdown()


def test_other_readers_see_every_attribute(app: Flask) -> None:
    """Attributes that are not published to CloudWatch still reach the provider's other exporters."""
    other = InMemoryMetricReader()
    reporter_provider = MeterProvider([other], shutdown_on_exit=False)
    app = Flask("other")
    app.add_url_rule("/", endpoint="index", view_func=lambda: "hello")
    reporter = CloudWatchMetricsReporter(
        app, "Shop", FakeCloudWatch(), meter_provider=reporter_provider, instrument=True, flush="interval"
    )
    with app.test_client().get("/", base_url="http://forged.example") as response:
        assert response.status_code == 200
    data = other.get_metrics_data()
    assert data is not None
    attributes = [
        dict(point.attributes or {})
        for scope in data.resource_metrics[0].scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
        if metric.name == "http.server.duration"
    ]
    assert [each["http.host"] for each in attributes] == ["forged.example"]
    reporter.shutdown()


def test_totals_keep_their_places() -> None:
    """When the limit is reached, rollups are admitted first, and a point's overflow is counted once."""
    cloudwatch = FakeCloudWatch()
    rule = MetricRule(rollups=[["route"], []])
    exporter = CloudWatchMetricExporter("Shop", client=cloudwatch, rules=[rule], max_metrics=5)
    reader = CloudWatchMetricReader(exporter)
    counter = MeterProvider([reader], shutdown_on_exit=False).get_meter("shop").create_counter("requests")
    for user in range(4):
        counter.add(1, {"user": user, "route": "/"})
    assert reader.flush()
    assert cloudwatch.sum("requests", {}) == 4
    assert cloudwatch.sum("requests", {"route": "/"}) == 4
    assert cloudwatch.sum("requests", {"user": "0", "route": "/"}) == 1
    assert cloudwatch.sum("requests", {"otel.metric.overflow": "true"}) == 3
    reader.shutdown()


def test_rollups_without_room() -> None:
    """A rollup without room is not published, and does not count as overflow."""
    cloudwatch = FakeCloudWatch()
    exporter = CloudWatchMetricExporter(
        "Shop", client=cloudwatch, rules=[MetricRule(rollups=[["route"]])], max_metrics=4
    )
    reader = CloudWatchMetricReader(exporter)
    counter = MeterProvider([reader], shutdown_on_exit=False).get_meter("shop").create_counter("requests")
    for number in range(5):
        counter.add(1, {"user": number, "route": f"/{number}"})
    assert reader.flush()
    assert len(cloudwatch.metrics()) == 3
    assert cloudwatch.sum("requests", {"route": "/0"}) == 1
    assert cloudwatch.sum("requests", {"otel.metric.overflow": "true"}) == exporter.stats().metrics_overflowed == 4
    reader.shutdown()
