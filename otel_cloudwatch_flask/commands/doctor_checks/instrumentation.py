"""What is measured, who publishes it, and what would be published twice: the doctor's last pages."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from flask import Flask
from opentelemetry import metrics
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider

from otel_cloudwatch_flask.commands.doctor_checks.check import Check
from otel_cloudwatch_flask.commands.shared.user_app import UserApp
from otel_cloudwatch_flask.flask_extension.reporter_reader import programs_exporters, programs_exporters_on
from otel_cloudwatch_flask.sdk.exporter import live_exporters
from otel_cloudwatch_flask.sdk.reader import readers_on

MEASURED: Final = "Measured"
TWICE: Final = "Published twice"
_AUTO_INSTRUMENTATION: Final = "opentelemetry.instrumentation.auto_instrumentation"
_PREDECESSOR: Final = "flask_cloudwatch_metric"


def measured_checks(user_app: UserApp) -> Iterator[Check]:
    """What measures, and where that goes."""
    if user_app.app is None:
        remedy = "Run flask --app YOUR_APP cloudwatch doctor."
        yield Check(MEASURED, "unknown", "No app was looked at.", remedy)
        return
    yield _reporter_check(user_app)
    yield _instrumentation_check(user_app.app)
    yield _provider_check(metrics.get_meter_provider())


def twice_checks(environ: Mapping[str, str]) -> Iterator[Check]:
    """Whatever would publish the same a second time, or one finding that nothing does."""
    found = [*_exporters_on_one_provider(), *_environments_exporter(environ), *_predecessor()]
    yield from found or [Check(TWICE, "right", "Nothing.")]


def _reporter_check(user_app: UserApp) -> Check:
    if user_app.reporter is not None:
        return Check(MEASURED, "right", "A CloudWatchMetricsReporter serves the app: add_metric is published.")
    if live_exporters():
        return Check(MEASURED, "right", "The app has no CloudWatchMetricsReporter; the program has an exporter.")
    remedy = "Write CloudWatchMetricsReporter(app), or run under opentelemetry-instrument."
    return Check(MEASURED, "wrong", "There is neither a CloudWatchMetricsReporter nor an exporter.", remedy)


def _instrumentation_check(app: Flask) -> Check:
    if getattr(app, "_is_instrumented_by_opentelemetry", False):
        return Check(MEASURED, "right", "FlaskInstrumentor measures the app's requests, as http.server.*.")
    remedy = "Write CloudWatchMetricsReporter(app, instrument=True), if you want them."
    return Check(MEASURED, "unknown", "FlaskInstrumentor is not on the app: requests are not measured.", remedy)


def _provider_check(provider: metrics.MeterProvider) -> Check:
    if isinstance(provider, MeterProvider):
        count = len(readers_on(provider))
        return Check(MEASURED, "right", f"CloudWatchMetricReaders on the global MeterProvider: {count}.")
    if _is_placeholder(provider):
        return Check(MEASURED, "unknown", "No global MeterProvider is set.", "Only the reporter's own is used.")
    remedy = "Set an opentelemetry.sdk.metrics.MeterProvider."
    return Check(MEASURED, "wrong", f"The global MeterProvider is a {type(provider).__name__}.", remedy)


def _is_placeholder(provider: metrics.MeterProvider) -> bool:
    """Whether this is what the API's package returns while no provider is set."""
    is_of_api = type(provider).__module__.startswith(metrics.__name__)
    return is_of_api and not isinstance(provider, NoOpMeterProvider)


def _exporters_on_one_provider() -> Iterator[Check]:
    exporters = programs_exporters_on(metrics.get_meter_provider(), resource=None)
    targets = Counter((each.settings.namespace, each.settings.region_name) for each in exporters)
    for (namespace, _), count in targets.items():
        if count > 1:
            finding = f"{count} CloudWatch exporters are on the global MeterProvider, for namespace {namespace}."
            yield Check(TWICE, "wrong", finding, "Keep one of them.")


def _environments_exporter(environ: Mapping[str, str]) -> Iterator[Check]:
    wanted = [name.strip() for name in environ.get("OTEL_METRICS_EXPORTER", "").split(",")]
    if wanted.count("cloudwatch") > 1:
        yield Check(TWICE, "wrong", "OTEL_METRICS_EXPORTER names cloudwatch more than once.", "Name it once.")
    if "cloudwatch" in wanted and programs_exporters() and _AUTO_INSTRUMENTATION not in sys.modules:
        finding = "OTEL_METRICS_EXPORTER has cloudwatch, and the program makes an exporter of its own."
        remedy = "Under opentelemetry-instrument there would be two: keep one of them."
        yield Check(TWICE, "wrong", finding, remedy)


def _predecessor() -> Iterator[Check]:
    if _PREDECESSOR in sys.modules:
        finding = "The program imports flask_cloudwatch_metric too, which sends its metrics on its own."
        yield Check(TWICE, "wrong", finding, "Import CloudWatchMetricsReporter from otel_cloudwatch_flask instead.")
