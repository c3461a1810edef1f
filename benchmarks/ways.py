"""Ways to export metrics, each with its transport stubbed: this exporter and its alternatives."""

import io
import json
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any, Final, Protocol, TextIO

import boto3
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExporter, MetricExportResult, MetricsData

from benchmarks.harness import Alternative, installed, optional
from benchmarks.measurements import (
    METRIC_NAMES,
    Kind,
    Source,
    attributes_of,
    otlp_exponential_reader,
    otlp_reader,
    our_reader,
    sdk_reader,
)
from benchmarks.stubs import Traffic, answered, answered_session
from otel_cloudwatch_flask import CloudWatchMetricExporter
from otel_cloudwatch_flask.config import Settings
from otel_cloudwatch_flask.delivery.boto_client import client_factory

MAX_SERIES: Final = 20_000
MANY_SAMPLES: Final = 50_000

_ADOT_MODULE: Final = "amazon.opentelemetry.distro.exporter.aws.metrics.console_emf_exporter"
_OTLP_MODULE: Final = "opentelemetry.exporter.otlp.proto.http.metric_exporter"

OURS: Final = "this exporter"
BOTO3: Final = "boto3, default client"
OTLP: Final = "OTLP/HTTP"
OTLP_EXPONENTIAL: Final = "OTLP/HTTP, exponential"
OTLP_GZIP: Final = "OTLP/HTTP, gzip"
EMF: Final = "aws-embedded-metrics"
POWERTOOLS: Final = "Powertools"
OURS_EMF: Final = "this exporter, EMF"
ADOT: Final = "ADOT, EMF on the console"
SDK: Final = "SDK collects"
OURS_COLLECTED: Final = "this exporter, with collection"
OTLP_EXPONENTIAL_COLLECTED: Final = "OTLP/HTTP, exponential, with collection"


class Export(Protocol):
    """Repeated exports. ``run`` is measured, but not ``prepare``."""

    def prepare(self) -> None:
        """Record new measurements and collect them."""

    def run(self) -> None:
        """Export the prepared measurements."""


def our_exporter(traffic: Traffic | None = None, *, max_metrics: int = MAX_SERIES) -> CloudWatchMetricExporter:
    """Return this package's exporter with its default client, whose requests get a response before they are sent."""
    make_client = client_factory("us-east-1", access_key_id="x", secret_access_key="x")
    return CloudWatchMetricExporter.from_settings(
        Settings.resolve(arguments={"namespace": "Benchmark", "max_metrics": max_metrics}, app_config={}, environ={}),
        client_factory=lambda: answered(make_client(), traffic),
    )


def default_client(traffic: Traffic | None = None) -> Any:
    """Return a boto3 client with default settings."""
    client = boto3.client("cloudwatch", "us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    return answered(client, traffic)


def collections_of(kind: Kind, series: int, make_reader: Callable[[], InMemoryMetricReader]) -> Iterator[MetricsData]:
    """Yield collections endlessly: at most three, which repeat because recording takes longer than exporting."""
    source = Source(kind, series, make_reader)
    collections = []
    for _ in range(1 if series * kind.samples >= MANY_SAMPLES else 3):
        source.record()
        collections.append(source.collect())
        yield collections[-1]
    yield from cycle(collections)


class ExporterRun:
    """An OpenTelemetry exporter that exports one collection after another."""

    def __init__(self, collections: Iterator[MetricsData], exporter: MetricExporter) -> None:
        self._collections = collections
        self._exporter = exporter

    def prepare(self) -> None:
        """Select the next collection."""
        self._data = next(self._collections)

    def run(self) -> None:
        """Export the collection."""
        _export(self._exporter, self._data)


class CollectionRun:
    """A collection by the SDK, and its export if there is an exporter."""

    def __init__(self, source: Source, exporter: MetricExporter | None = None) -> None:
        self._source = source
        self._exporter = exporter

    def prepare(self) -> None:
        """Record new measurements."""
        self._source.record()

    def run(self) -> None:
        """Collect the measurements and export them."""
        data = self._source.collect()
        if self._exporter is not None:
            _export(self._exporter, data)


def _export(exporter: MetricExporter, data: MetricsData) -> None:
    if exporter.export(data) is not MetricExportResult.SUCCESS:
        raise RuntimeError("the export failed")


class DictionariesRun:
    """Calls to boto3 with this exporter's data points as dictionaries; only the calls are measured."""

    def __init__(self, collections: Iterator[MetricsData], client: Any) -> None:
        self._collections = collections
        self._client = client
        self._requests: list[Mapping[str, Any]] = []
        listener = _Listener(self._requests)
        self._exporter = CloudWatchMetricExporter("Benchmark", client=listener, max_metrics=MAX_SERIES)

    def prepare(self) -> None:
        """Convert the next collection to dictionaries."""
        self._requests.clear()
        self._exporter.export(next(self._collections))

    def run(self) -> None:
        """Make the calls."""
        for request in self._requests:
            self._client.put_metric_data(**request)


class _Listener:
    """A client that stores the requests."""

    def __init__(self, requests: list[Mapping[str, Any]]) -> None:
        self._requests = requests

    def put_metric_data(self, **request: Any) -> None:
        """Store the request."""
        self._requests.append(request)


class EventsRun:
    """An EMF library with one event per series, which has the samples. Only the serialization is measured."""

    def __init__(
        self, kind: Kind, series: int, event_of: Callable[[str, list[float], int], Any], text_of: Callable[[Any], Any]
    ) -> None:
        self._kind = kind
        self._series = series
        self._event_of = event_of
        self._text_of = text_of
        self._random = random.Random(1)

    def prepare(self) -> None:
        """Create an event with samples for each series."""
        self._events = [self._event(number) for number in range(self._series)]

    def run(self) -> None:
        """Serialize the events."""
        for event in self._events:
            self._text_of(event)

    def _event(self, number: int) -> Any:
        name = METRIC_NAMES[1 if self._kind.samples else 0]
        samples = [self._random.lognormvariate(4.4, 0.7) for _ in range(self._kind.samples)]
        return self._event_of(name, samples or [float(self._random.randrange(1, 1000))], number)


MakeExport = Callable[[Kind, int, Traffic | None], Export]


def _exporting(
    make_reader: Callable[[], InMemoryMetricReader], make_exporter: Callable[[Traffic | None], MetricExporter]
) -> MakeExport:
    """Return a function that prepares exports of collections."""
    return lambda kind, series, traffic: ExporterRun(collections_of(kind, series, make_reader), make_exporter(traffic))


def _collecting(
    make_reader: Callable[[], InMemoryMetricReader],
    make_exporter: Callable[[Traffic | None], MetricExporter | None] = lambda _traffic: None,
) -> MakeExport:
    """Return a function that prepares collections, and their exports if there is an exporter."""
    return lambda kind, series, traffic: CollectionRun(Source(kind, series, make_reader), make_exporter(traffic))


def _emf_exporter(traffic: Traffic | None) -> CloudWatchMetricExporter:
    stream = _null_device() if traffic is None else _Lines(traffic)
    return CloudWatchMetricExporter("Benchmark", output="emf", stream=stream, max_metrics=MAX_SERIES)


def _adot(kind: Kind, series: int, traffic: Traffic | None) -> Export:
    stream = _null_device() if traffic is None else _Lines(traffic)
    exporter = optional(_ADOT_MODULE).ConsoleEmfExporter("Benchmark")
    return _PrintedRun(ExporterRun(collections_of(kind, series, our_reader), exporter), stream)


class _PrintedRun:
    """An export to standard output, which is replaced by ``stream`` during the export."""

    def __init__(self, export: Export, stream: TextIO) -> None:
        self._export = export
        self._stream = stream
        self.prepare = export.prepare

    def run(self) -> None:
        """Export to the stream."""
        with redirect_stdout(self._stream):
            self._export.run()


@cache
def _null_device() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


class _Lines(io.StringIO):
    """A stream that stores lines as traffic."""

    def __init__(self, traffic: Traffic) -> None:
        super().__init__()
        self._traffic = traffic

    def write(self, text: str) -> int:
        """Store a line, and return its length."""
        if text.strip():
            self._traffic.bodies.append(text.encode())
        return len(text)


def _boto3(kind: Kind, series: int, traffic: Traffic | None) -> Export:
    return DictionariesRun(collections_of(kind, series, our_reader), default_client(traffic))


def _otlp_exporter(traffic: Traffic | None, **options: Any) -> MetricExporter:
    exporter: MetricExporter = optional(_OTLP_MODULE).OTLPMetricExporter(session=answered_session(traffic), **options)
    return exporter


def _gzip_exporter(traffic: Traffic | None) -> MetricExporter:
    return _otlp_exporter(traffic, compression=optional("opentelemetry.exporter.otlp.proto.http").Compression.Gzip)


def _emf(kind: Kind, series: int, traffic: Traffic | None) -> Export:
    make_context = optional("aws_embedded_metrics.logger.metrics_context").MetricsContext
    serialize = optional("aws_embedded_metrics.serializers.log_serializer").LogSerializer.serialize

    def event_of(name: str, samples: list[float], number: int) -> Any:
        context = make_context(namespace="Benchmark")
        context.put_dimensions({key: str(value) for key, value in attributes_of(number).items()})
        for sample in samples:
            context.put_metric(name, sample, "Milliseconds" if kind.samples else "Count")
        return context

    def text_of(context: Any) -> None:
        for line in serialize(context):
            _keep(traffic, line)

    return EventsRun(kind, series, event_of, text_of)


def _powertools(kind: Kind, series: int, traffic: Traffic | None) -> Export:
    make_metrics = optional("aws_lambda_powertools.metrics").EphemeralMetrics

    def event_of(name: str, samples: list[float], number: int) -> Any:
        metrics = make_metrics(namespace="Benchmark")
        for key, value in attributes_of(number).items():
            metrics.add_dimension(key, str(value))
        for sample in samples[:99]:  # with one more sample, the event would be written immediately
            metrics.add_metric(name, "Milliseconds" if kind.samples else "Count", sample)
        return metrics

    def text_of(metrics: Any) -> None:
        _keep(traffic, json.dumps(metrics.serialize_metric_set(), separators=(",", ":")))

    return EventsRun(kind, series, event_of, text_of)


def _keep(traffic: Traffic | None, line: str) -> None:
    if traffic is not None:
        traffic.bodies.append(line.encode() + b"\n")


WAYS: Final[Mapping[str, Alternative]] = {
    OURS: Alternative(_exporting(our_reader, our_exporter)),
    BOTO3: Alternative(_boto3),
    OURS_EMF: Alternative(_exporting(our_reader, _emf_exporter)),
    ADOT: Alternative(_adot, (_ADOT_MODULE,)),
    OTLP: Alternative(_exporting(otlp_reader, _otlp_exporter), (_OTLP_MODULE,)),
    OTLP_EXPONENTIAL: Alternative(_exporting(otlp_exponential_reader, _otlp_exporter), (_OTLP_MODULE,)),
    OTLP_GZIP: Alternative(_exporting(otlp_reader, _gzip_exporter), (_OTLP_MODULE,)),
    EMF: Alternative(_emf, ("aws_embedded_metrics",)),
    POWERTOOLS: Alternative(_powertools, ("aws_lambda_powertools",)),
    SDK: Alternative(_collecting(sdk_reader)),
    OURS_COLLECTED: Alternative(_collecting(our_reader, our_exporter)),
    OTLP_EXPONENTIAL_COLLECTED: Alternative(_collecting(otlp_exponential_reader, _otlp_exporter), (_OTLP_MODULE,)),
}
"""The ways to export. ``make(kind, series, traffic)`` prepares an export."""


class Prepared:
    """A way to export, in its own process, that measures one case after another."""

    def __init__(self, way: str, traffic: Traffic | None = None) -> None:
        self._make: MakeExport = WAYS[way].make
        self._traffic = traffic
        self._exports: dict[tuple[Kind, int], Export] = {}

    def prepared(self, kind: Kind, series: int) -> Export:
        """Return an export that is ready to run."""
        export = self._exports.get((kind, series))
        if export is None:
            self._exports.clear()  # frees the memory of the previous case
            export = self._exports[kind, series] = self._make(kind, series, self._traffic)
        export.prepare()
        return export


def installed_ways(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return those of the named ways whose packages are installed, and the others."""
    return installed({name: WAYS[name] for name in names})
