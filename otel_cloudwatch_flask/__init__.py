"""OpenTelemetry metrics in Amazon CloudWatch, and a Flask extension that puts an application's own beside them."""

from otel_cloudwatch_flask.exporter import CloudWatchMetricExporter
from otel_cloudwatch_flask.extension import CloudWatchMetricsReporter, get_metrics, initialize_metrics
from otel_cloudwatch_flask.ledger import DeliveryStats
from otel_cloudwatch_flask.reader import CloudWatchMetricReader
from otel_cloudwatch_flask.rules import MetricRule

__all__ = [
    "CloudWatchMetricExporter",
    "CloudWatchMetricReader",
    "CloudWatchMetricsReporter",
    "DeliveryStats",
    "MetricRule",
    "get_metrics",
    "initialize_metrics",
]
