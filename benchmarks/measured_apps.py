"""Flask apps that differ only in how they measure: with this extension, an alternative, or not at all."""

import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, Final

from flask import Flask
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from benchmarks.harness import Alternative, optional
from benchmarks.stubs import answer_all_clients
from otel_cloudwatch_flask import CloudWatchMetricExporter, CloudWatchMetricReader, CloudWatchMetricsReporter
from otel_cloudwatch_flask.config import FlushPolicy

METRICS: Final = tuple((f"Metric {number}", "Milliseconds" if number % 2 else "Count") for number in range(10))
PAGE: Final = {"Page": "index"}

View = Callable[[], str]


def bare_app() -> Flask:
    """Return an app that measures nothing."""
    return _app(lambda: "hello")


def extension_app(metrics: int, *, instrument: bool = False, flush: FlushPolicy = "background") -> Flask:
    """Return an app with this extension and this number of ``add_metric`` calls per request."""
    answer_all_clients()
    values = latencies()

    def view() -> str:
        for name, unit in METRICS[:metrics]:
            reporter.add_metric(name, next(values), unit, PAGE)
        return "hello"

    app = _app(view)
    reporter = CloudWatchMetricsReporter(app, "Benchmark", instrument=instrument, flush=flush)
    return app


def histograms_app() -> Flask:
    """Return an app that records three measurements with the SDK alone, collected by this package's reader."""
    answer_all_clients()
    values = latencies()
    reader = CloudWatchMetricReader(CloudWatchMetricExporter("Benchmark"))
    meter = MeterProvider([reader], shutdown_on_exit=False).get_meter("benchmark")
    histograms = [meter.create_histogram(name.replace(" ", "_"), unit="ms") for name, _ in METRICS[:3]]

    def view() -> str:
        for histogram in histograms:
            histogram.record(next(values), PAGE)
        return "hello"

    return _app(view)


def instrumented_app() -> Flask:
    """Return an app with only OpenTelemetry's own instrumentation."""
    app = bare_app()
    provider = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    instrumentor: Any = FlaskInstrumentor()
    instrumentor.instrument_app(app, meter_provider=provider)
    return app


def prometheus_app() -> Flask:
    """Return an app with prometheus_flask_exporter and its defaults: a histogram and a counter per request."""
    app = bare_app()
    optional("prometheus_flask_exporter").PrometheusMetrics(app)
    return app


def predecessor_app() -> Flask:
    """Return an app with flask-cloudwatch-metric, which calls CloudWatch in each request; only CPU time is measured."""
    answer_all_clients()
    values = latencies()

    def view() -> str:
        for name, unit in METRICS[:3]:
            predecessor.add_metric(name, next(values), unit, [{"Name": "Page", "Value": "index"}])
        return "hello"

    app = _app(view)
    predecessor = optional("flask_cloudwatch_metric").CloudWatchMetricsReporter(app, "Benchmark", "us-east-1")
    return app


def embedded_metrics_app() -> Flask:
    """Return an app with aws-embedded-metrics, which writes an event per request."""
    os.environ["AWS_EMF_ENVIRONMENT"] = "local"
    metric_scope = optional("aws_embedded_metrics").metric_scope
    _print_nothing()
    values = latencies()

    def view(metrics: Any) -> str:
        metrics.set_dimensions(PAGE)
        for name, unit in METRICS[:3]:
            metrics.put_metric(name, next(values), unit)
        return "hello"

    return _app(metric_scope(view))


def powertools_app() -> Flask:
    """Return an app with Powertools, which writes an event per request."""
    _print_nothing()
    values = latencies()
    metrics = optional("aws_lambda_powertools").Metrics(namespace="Benchmark", service="shop")

    def view() -> str:
        metrics.add_dimension("Page", "index")
        for name, unit in METRICS[:3]:
            metrics.add_metric(name, unit, next(values))
        metrics.flush_metrics()
        return "hello"

    return _app(view)


def answer(app: Flask, environ: dict[str, Any]) -> None:
    """Serve one request as a server does: read the response body and close it."""
    body: Iterable[bytes] = app(environ, _start_response)
    for _ in body:
        pass
    close: Callable[[], None] | None = getattr(body, "close", None)
    if close is not None:
        close()


def _start_response(_status: str, _headers: list[tuple[str, str]], _error: Any = None) -> Callable[[bytes], object]:
    return len


def latencies() -> Iterator[float]:
    """Yield latencies endlessly."""
    source = random.Random(1)
    return cycle([source.lognormvariate(4.4, 0.7) for _ in range(1000)])


def _app(view: View) -> Flask:
    app = Flask("benchmark")
    app.add_url_rule("/", "index", view)
    return app


def _print_nothing() -> None:
    sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open for the life of the process


NONE: Final = "this extension, no metric"
THREE: Final = "this extension, 3 add_metric"
RECORDS: Final = "3 Histogram.record of the SDK"
PROMETHEUS: Final = "prometheus_flask_exporter"

APPS: Final[Mapping[str, Alternative]] = {
    NONE: Alternative(partial(extension_app, 0)),
    "this extension, 1 add_metric": Alternative(partial(extension_app, 1)),
    THREE: Alternative(partial(extension_app, 3)),
    "this extension, 10 add_metric": Alternative(partial(extension_app, 10)),
    "this extension, instrument=True": Alternative(partial(extension_app, 0, instrument=True)),
    RECORDS: Alternative(histograms_app),
    "FlaskInstrumentor": Alternative(instrumented_app),
    PROMETHEUS: Alternative(prometheus_app, ("prometheus_flask_exporter",)),
    "flask-cloudwatch-metric, 3 metrics": Alternative(predecessor_app, ("flask_cloudwatch_metric",)),
    "aws-embedded-metrics, 3 metrics": Alternative(embedded_metrics_app, ("aws_embedded_metrics",)),
    "Powertools, 3 metrics": Alternative(powertools_app, ("aws_lambda_powertools",)),
}
