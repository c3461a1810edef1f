"""A reporter measures its own delivery if ``self_metrics`` is set."""

from flask import Flask
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_cloudwatch_flask import CloudWatchMetricsReporter
from otel_cloudwatch_flask.sdk.self_metrics import METER_NAME
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch


def reporter_on(app: Flask, provider: MeterProvider, cloudwatch: FakeCloudWatch) -> CloudWatchMetricsReporter:
    """Return a reporter in production mode, where an invalid metric is counted instead of raised."""
    return CloudWatchMetricsReporter(app, "Shop", cloudwatch, meter_provider=provider, strict=False)


def test_what_is_measured_is_what_the_stats_say() -> None:
    """The self-metrics have the same values as ``stats()``, in other exporters and in CloudWatch."""
    cloudwatch, others = FakeCloudWatch(), InMemoryMetricReader()
    app = Flask("shop")
    app.config["CLOUDWATCH_SELF_METRICS"] = True
    reporter = reporter_on(app, MeterProvider([others], shutdown_on_exit=False), cloudwatch)
    reporter.add_metric("Orders", 1)
    reporter.add_metric("Orders", float("nan"))
    assert reporter.flush()
    data = others.get_metrics_data()
    assert data is not None
    measured = {
        metric.name.removeprefix(METER_NAME + "."): metric.data.data_points[0]
        for scope_metrics in data.resource_metrics[0].scope_metrics
        if scope_metrics.scope.name == METER_NAME
        for metric in scope_metrics.metrics
    }
    stats = reporter.stats()
    for name in ("datums_sent", "datums_pending", "requests_sent", "requests_failed"):
        assert measured[name].value == getattr(stats, name)  # type: ignore[union-attr]
    assert measured["requests_time"].value == stats.requests_seconds > 0  # type: ignore[union-attr]
    lost = measured["measurements_lost"]
    assert (lost.value, lost.attributes) == (1, {"reason": "invalid"})  # type: ignore[union-attr]
    assert reporter.flush()
    assert cloudwatch.sum(f"{METER_NAME}.requests_sent") == 1
    assert cloudwatch.sum(f"{METER_NAME}.measurements_lost", reason="invalid") == 1
    reporter.shutdown()


def test_off_unless_asked_for() -> None:
    """By default, the reporter publishes no self-metrics."""
    cloudwatch = FakeCloudWatch()
    reporter = reporter_on(Flask("shop"), MeterProvider(shutdown_on_exit=False), cloudwatch)
    reporter.add_metric("Orders", 1)
    assert reporter.flush()
    assert {metric.name for metric in cloudwatch.metrics()} == {"Orders"}
    reporter.shutdown()
