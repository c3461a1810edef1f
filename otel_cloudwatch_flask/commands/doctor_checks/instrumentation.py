"""Check that the app is instrumented, and that no metric is published twice."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from flask import Flask
from opentelemetry import metrics
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider

from otel_cloudwatch_flask.commands.doctor_checks.auto_instrumentation import is_auto_instrumented, is_exporter_selected
from otel_cloudwatch_flask.commands.doctor_checks.check import Check
from otel_cloudwatch_flask.commands.shared.user_app import UserApp, exporters_without_reader
from otel_cloudwatch_flask.config import Settings
from otel_cloudwatch_flask.flask_extension.provider_setup import SETTINGS_OF_READER
from otel_cloudwatch_flask.flask_extension.reporter_reader import (
    ReporterReader,
    programs_exporters,
    programs_exporters_on,
)
from otel_cloudwatch_flask.sdk.exporter import CloudWatchMetricExporter, live_exporters
from otel_cloudwatch_flask.sdk.reader import CloudWatchMetricReader, live_readers

_OTHER_LIBRARYS_READER: Final = (
    "Give the program's exporter to a CloudWatchMetricReader, which a reporter can share. In OpenTelemetry's "
    "configuration file, use pull instead of periodic."
)


def instrumentation_checks(user_app: UserApp) -> Iterator[Check]:
    """Check the reporter, the Flask instrumentation, the global meter provider, and each reader and exporter."""
    if user_app.app is None:
        yield Check("unknown", "No app was loaded.", "Run flask --app YOUR_APP cloudwatch doctor.")
        return
    yield _reporter_check(user_app)
    yield _instrumentation_check(user_app.app)
    yield _provider_check(metrics.get_meter_provider())
    yield from map(_reader_check, live_readers())
    for exporter in exporters_without_reader():
        if exporter.is_in_use:
            finding = f"Another library's reader sends all metrics to {_destination(exporter)} in its own thread."
            yield Check("ok", finding)


def duplicate_checks(environ: Mapping[str, str]) -> Iterator[Check]:
    """Yield a problem for each cause of duplicate metrics, or a single ``ok`` check if there are none."""
    found = [
        *_readers_of_one_destination(),
        *_exporters_on_one_provider(),
        *_exporter_of_environment(environ),
        *_predecessor(),
    ]
    yield from found or [Check("ok", "No cause of duplicate metrics was found.")]


def _reporter_check(user_app: UserApp) -> Check:
    if user_app.has_reporter:
        return Check("ok", "The app has a CloudWatchMetricsReporter, which publishes the metrics of add_metric().")
    if live_exporters():
        return Check("ok", "The process has a CloudWatch exporter, but no CloudWatchMetricsReporter.")
    launcher = "" if is_auto_instrumented() else " and run the app with opentelemetry-instrument"
    remedy = f"Create CloudWatchMetricsReporter(app), or set OTEL_METRICS_EXPORTER=cloudwatch{launcher}."
    return Check("problem", "There is no CloudWatchMetricsReporter and no exporter.", remedy)


def _instrumentation_check(app: Flask) -> Check:
    # FlaskInstrumentor has no public API that tells whether an app is instrumented.
    if getattr(app, "_is_instrumented_by_opentelemetry", False):
        return Check("ok", "FlaskInstrumentor records the app's requests as http.server.*.")
    remedy = "Pass instrument=True to CloudWatchMetricsReporter to record requests."
    return Check("unknown", "FlaskInstrumentor does not record the app's requests.", remedy)


def _provider_check(provider: metrics.MeterProvider) -> Check:
    if isinstance(provider, MeterProvider):
        return Check("ok", "The global MeterProvider accepts readers.")
    # Until a provider is set, the API returns a proxy, whose class is private.
    if type(provider).__module__.startswith(metrics.__name__) and not isinstance(provider, NoOpMeterProvider):
        return Check("unknown", "No global MeterProvider is set.", "Only the reporter's metrics are published.")
    remedy = "Set an opentelemetry.sdk.metrics.MeterProvider."
    return Check("problem", f"The global MeterProvider is a {type(provider).__name__}.", remedy)


def _reader_check(reader: CloudWatchMetricReader) -> Check:
    thread = f"thread {reader.thread.name}" if reader.thread.is_alive() else "no thread"
    published = [f"the metrics of the reporter {each}" for each in sorted(reader.exporter.reporters)]
    if not isinstance(reader, ReporterReader) or reader.has_priority(reader.exporter.resource):
        published += ["all metrics that belong to no reporter"]
    finding = f"A reader ({thread}) sends to {_destination(reader.exporter)}. It publishes {', and '.join(published)}."
    return Check("ok", finding)


def _destination(exporter: CloudWatchMetricExporter) -> str:
    namespace = _described(exporter.settings.namespace)
    if exporter.writes_emf:
        return f"{namespace} in EMF lines"
    if exporter.client is not None:
        return f"{namespace} with the program's {type(exporter.client).__name__}"
    return f"{namespace} in {exporter.settings.region_name or 'the default Region'}"


def _described(namespace: str | None) -> str:
    return f"the namespace {namespace}" if namespace else "the namespace of the service name"


def _readers_of_one_destination() -> Iterator[Check]:
    of_reporters = [each for each in live_readers() if isinstance(each, ReporterReader)]
    programs = {each.exporter: each.settings for each in live_readers() if each not in of_reporters}
    for reader in of_reporters:
        for other in programs_exporters_on(reader, reader.exporter.resource):
            settings = programs.get(other, other.settings)
            if reader.exporter.client is other.client and _target(reader.settings) == _target(settings):
                finding = f"Two readers send to {_destination(other)}: the reporter's own and the program's."
                remedy = _sharing(reader.settings, settings) if other in programs else _OTHER_LIBRARYS_READER
                yield Check("problem", finding, remedy)


def _target(settings: Settings) -> tuple[str | None, str | None]:
    # In different namespaces or Regions, the same metrics are not duplicates.
    return settings.namespace, settings.region_name


def _sharing(ours: Settings, programs: Settings) -> str:
    """Return a remedy that lets the reporter share the program's reader, given the settings of both."""
    different = [name for name in SETTINGS_OF_READER if getattr(ours, name) != getattr(programs, name)]
    settings = f" and give both the same {', '.join(different)}" if different else ""
    return f"To share one, add the program's reader before the reporter{settings}."


def _exporters_on_one_provider() -> Iterator[Check]:
    exporters = programs_exporters_on(metrics.get_meter_provider(), resource=None)
    targets = Counter(_target(each.settings) for each in exporters)
    for (namespace, _), count in targets.items():
        if count > 1:
            finding = f"The global MeterProvider has {count} CloudWatch exporters for {_described(namespace)}."
            yield Check("problem", finding, "Remove all but one.")


def _exporter_of_environment(environ: Mapping[str, str]) -> Iterator[Check]:
    # Under opentelemetry-instrument, this exporter may be the one created for the variable, not by the program.
    if is_exporter_selected(environ) and programs_exporters() and not is_auto_instrumented():
        finding = "OTEL_METRICS_EXPORTER lists cloudwatch, and the program creates a CloudWatch exporter itself."
        remedy = "opentelemetry-instrument would add a second exporter: remove one of the two."
        yield Check("problem", finding, remedy)


def _predecessor() -> Iterator[Check]:
    if "flask_cloudwatch_metric" in sys.modules:
        finding = "The program also imports flask_cloudwatch_metric, which publishes its metrics separately."
        remedy = "Import CloudWatchMetricsReporter from otel_cloudwatch_flask instead."
        yield Check("problem", finding, remedy)
