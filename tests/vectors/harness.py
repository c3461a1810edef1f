"""Run test vectors through the public exporter or the facade, with a client that records its calls."""

import copy
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from flask import Flask
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData

from otel_cloudwatch_flask import CloudWatchMetricExporter, CloudWatchMetricsReporter, MetricRule
from otel_cloudwatch_flask.model.scope import facade_metric
from otel_cloudwatch_flask.testing.request_rules import validation_error
from tests.vectors.expectations import NAMESPACE, Export, Run, run_faults
from tests.vectors.inputs import Json, Times, exports_of, metrics_data
from tests.vectors.request_checks import Request, body_size_bytes

VECTORS = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Case:
    """One test vector."""

    id: str
    why: str
    source: str
    input: Json
    expect: Json


class RecordingClient:
    """A client that stores the arguments of ``put_metric_data``."""

    def __init__(self) -> None:
        self._requests: list[Request] = []

    def put_metric_data(self, **request: Any) -> dict[str, Any]:
        """Accept and record the request."""
        self._requests.append(copy.deepcopy(request))
        return {"ResponseMetadata": {"HTTPStatusCode": 200}}

    def take(self) -> list[Request]:
        """Return the requests made since the last call."""
        taken, self._requests = self._requests, []
        return taken


def load_cases() -> list[Case]:
    """Return every vector of every file."""
    files = sorted(VECTORS.glob("*.json"))
    return [Case(**case) for file in files for case in json.loads(file.read_text("utf-8"))["cases"]]


ExporterOf: TypeAlias = Callable[[RecordingClient, Json], CloudWatchMetricExporter]
"""A function that creates the exporter for a vector's input."""


def exporter_of(client: RecordingClient, case_input: Json) -> CloudWatchMetricExporter:
    """Create the exporter with its constructor."""
    rules = [MetricRule(**rule) for rule in case_input.get("rules", ())]
    return CloudWatchMetricExporter(NAMESPACE, client=client, rules=rules, **case_input.get("exporter", {}))


def faults_of(case: Case, create_exporter: ExporterOf = exporter_of) -> list[str]:
    """Run a case and return its errors."""
    with _warnings_of_the_package() as warnings:
        is_of_facade = "facade" in case.input
        run = _through_the_facade(case.input) if is_of_facade else _through_the_exporter(case.input, create_exporter)
    units_given = {metric["name"]: metric["unit"] for metric in case.input.get("facade", ())}
    now = time.time()
    return [
        *run_faults(case.expect, replace(run, warnings=warnings), units_given=units_given, now=now),
        *_validation_errors(run, now=now),
    ]


def _validation_errors(run: Run, *, now: float) -> Iterator[str]:
    """Yield the errors of the package's own validation, in addition to those of the expectations."""
    for request in run.requests():
        if error := validation_error(request, size_bytes=body_size_bytes(request), now=now):
            yield f"{error.code}: {error.message}"


def _through_the_exporter(case_input: Json, create_exporter: ExporterOf = exporter_of) -> Run:
    client = RecordingClient()
    exporter = create_exporter(client, case_input)
    ready = time.time_ns()
    exports = []
    for metrics in exports_of(case_input):
        lost_before = _lost(exporter)
        times = Times(exporter_ready=ready, now=time.time_ns())
        exporter.export(metrics_data(metrics, resource=case_input.get("resource", {}), times=times))
        exporter.force_flush()
        exports.append(Export(metrics, client.take(), _lost(exporter) - lost_before))
    exporter.shutdown()
    return Run(exports, late=client.take())


def _through_the_facade(case_input: Json) -> Run:
    client, elsewhere = RecordingClient(), InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[elsewhere])
    reporter = CloudWatchMetricsReporter(Flask(__name__), NAMESPACE, client, meter_provider=provider)
    for metric in case_input["facade"]:
        reporter.add_metric(metric["name"], metric["value"], metric["unit"], [])
    reporter.flush()
    export = Export((), client.take(), _lost(reporter))
    units_back = _units_back(elsewhere)
    reporter.shutdown()
    provider.shutdown()
    return Run([export], late=client.take(), units_back=units_back)


def _units_back(elsewhere: InMemoryMetricReader) -> dict[str, str]:
    """Return the units that another reader sees, converted to CloudWatch's, by the name of the facade metric."""
    gauges = [
        {"name": name, "kind": "gauge", "unit": unit, "points": [{"value": 1}]}
        for name, unit in _units_seen(elsewhere.get_metrics_data())
    ]
    run = _through_the_exporter({"metrics": gauges})
    return {datum["MetricName"]: datum.get("Unit", "None") for export in run.exports for datum in export.datums()}


def _units_seen(collected: MetricsData | None) -> Iterator[tuple[str, str]]:
    """Yield the facade name and the OpenTelemetry unit of each facade metric in a collection."""
    for resource in collected.resource_metrics if collected else ():
        for scope in resource.scope_metrics:
            if facade := facade_metric(scope.scope):
                yield from ((facade.name, metric.unit or "") for metric in scope.metrics)


def _lost(counting: CloudWatchMetricExporter | CloudWatchMetricsReporter) -> int:
    return sum(counting.stats().datums_lost.values())


@contextmanager
def _warnings_of_the_package() -> Iterator[list[str]]:
    """Collect the warnings of the package's loggers."""
    warnings: list[str] = []
    handler = _Collector(warnings)
    logger = logging.getLogger("otel_cloudwatch_flask")
    logger.addHandler(handler)
    try:
        yield warnings
    finally:
        logger.removeHandler(handler)


class _Collector(logging.Handler):
    def __init__(self, messages: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.append(record.getMessage())
