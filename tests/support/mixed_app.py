"""An app for gunicorn with OTLP, Prometheus and CloudWatch; MIXED_APP_PORTS has the Prometheus ports."""

import os
from pathlib import Path

import prometheus_client
from flask import Flask
from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

from otel_cloudwatch_flask import CloudWatchMetricsReporter


def create_app() -> Flask:
    """Return an app like a program's that already uses the other exporters."""
    registry = prometheus_client.CollectorRegistry()
    readers = [
        PeriodicExportingMetricReader(OTLPMetricExporter(), export_interval_millis=500),
        PrometheusMetricReader(registry=registry),
    ]
    metrics.set_meter_provider(MeterProvider(metric_readers=readers))
    server, _ = prometheus_client.start_http_server(0, addr="127.0.0.1", registry=registry)
    (Path(os.environ["MIXED_APP_PORTS"]) / str(os.getpid())).write_text(str(server.server_port))

    app = Flask("mixed")
    reporter = CloudWatchMetricsReporter(app, "Mixed", instrument=True)
    counter = metrics.get_meter("mixed").create_counter("mixed.visits")
    histogram = metrics.get_meter("mixed").create_histogram("mixed.sizes")

    @app.get("/<int:number>")
    def visit(number: int) -> str:
        reporter.add_metric("Orders", 1, "Count")
        reporter.add_metric("Numbers", number)
        counter.add(1, {"is_even": number % 2 == 0})
        histogram.record(number)
        return str(number)

    return app
