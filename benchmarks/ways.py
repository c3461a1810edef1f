"""Ways to export what was measured, each with its transport stubbed: this exporter, and what is taken instead."""

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Final, Protocol

import boto3
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExporter, MetricExportResult, MetricsData

from benchmarks.harness import are_installed, optional
from benchmarks.measurements import METRIC_NAMES, Kind, Source, attributes_of, otlp_reader, our_reader, sdk_reader
from benchmarks.stubs import Traffic, answered, answered_session
from otel_cloudwatch_flask import CloudWatchMetricExporter
from otel_cloudwatch_flask.boto_client import client_factory
from otel_cloudwatch_flask.config import Settings

MAX_SERIES: Final = 20_000
MANY_SAMPLES: Final = 50_000

_OTLP_MODULE: Final = "opentelemetry.exporter.otlp.proto.http.metric_exporter"

OURS: Final = "this exporter"
BOTO3: Final = "boto3, default client"
OTLP: Final = "OTLP/HTTP"
OTLP_GZIP: Final = "OTLP/HTTP, gzip"
EMF: Final = "aws-embedded-metrics"
POWERTOOLS: Final = "Powertools"
SDK: Final = "SDK collects"


class Export(Protocol):
    """One export after the other: ``prepare`` is not measured, ``run`` is."""

    def prepare(self) -> None:
        """Measure something new, and collect it."""

    def run(self) -> None:
        """Export what was prepared."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to export, and the modules it needs; ``make(kind, series, traffic)`` prepares it."""

    make: Callable[[Kind, int, Traffic | None], Export]
    needs: tuple[str, ...] = ()


def our_exporter(traffic: Traffic | None = None, *, max_metrics: int = MAX_SERIES) -> CloudWatchMetricExporter:
    """This exporter as it makes itself, but for the network."""
    make_client = client_factory("us-east-1", access_key_id="x", secret_access_key="x")
    return CloudWatchMetricExporter.from_settings(
        Settings.resolve(arguments={"namespace": "Benchmark", "max_metrics": max_metrics}, app_config={}, environ={}),
        client_factory=lambda: answered(make_client(), traffic),
    )


def default_client(traffic: Traffic | None = None) -> Any:
    """boto3's client as a program gets it."""
    client = boto3.client("cloudwatch", "us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    return answered(client, traffic)


def collections_of(kind: Kind, series: int, make_reader: Callable[[], InMemoryMetricReader]) -> Iterator[MetricsData]:
    """Collections without end: few different ones, over and over, because recording takes longer than exporting."""
    source = Source(kind, series, make_reader)
    collections = []
    for _ in range(1 if series * kind.samples >= MANY_SAMPLES else 3):
        source.record()
        collections.append(source.collect())
        yield collections[-1]
    yield from cycle(collections)


class ExporterRun:
    """An exporter of OpenTelemetry that is given a collection."""

    def __init__(self, collections: Iterator[MetricsData], exporter: MetricExporter) -> None:
        self._collections = collections
        self._exporter = exporter

    def prepare(self) -> None:
        """Collect something else."""
        self._data = next(self._collections)

    def run(self) -> None:
        """Export it."""
        if self._exporter.export(self._data) is not MetricExportResult.SUCCESS:
            raise RuntimeError("what fails is not worth measuring")


class Collection:
    """The SDK's own part of an export, which is the same for every exporter."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def prepare(self) -> None:
        """Measure something new."""
        self._source.record()

    def run(self) -> None:
        """Collect it."""
        self._source.collect()


class DictionariesRun:
    """The datums of this exporter as dictionaries, ready to be passed to boto3: making them is not measured."""

    def __init__(self, collections: Iterator[MetricsData], client: Any) -> None:
        self._collections = collections
        self._client = client
        self._requests: list[Mapping[str, Any]] = []
        settings = Settings.resolve(
            arguments={"namespace": "Benchmark", "max_metrics": MAX_SERIES}, app_config={}, environ={}
        )
        self._exporter = CloudWatchMetricExporter.from_settings(settings, client=_Listener(self._requests))

    def prepare(self) -> None:
        """Collect something else, and make dictionaries of it."""
        self._requests.clear()
        self._exporter.export(next(self._collections))

    def run(self) -> None:
        """Make the calls."""
        for request in self._requests:
            self._client.put_metric_data(**request)


class _Listener:
    """A client that keeps what it is asked to send."""

    def __init__(self, requests: list[Mapping[str, Any]]) -> None:
        self._requests = requests

    def put_metric_data(self, **request: Any) -> None:
        """Keep it."""
        self._requests.append(request)


class EventsRun:
    """An EMF library with one event for each series, filled beforehand: making text of them is measured.

    Such events carry the samples themselves, in as many events as they need.
    """

    def __init__(
        self, kind: Kind, series: int, event_of: Callable[[str, list[float], int], Any], text_of: Callable[[Any], Any]
    ) -> None:
        self._kind = kind
        self._series = series
        self._event_of = event_of
        self._text_of = text_of
        self._random = random.Random(1)

    def prepare(self) -> None:
        """Fill an event for each series."""
        self._events = [self._event(number) for number in range(self._series)]

    def run(self) -> None:
        """Serialise them."""
        for event in self._events:
            self._text_of(event)

    def _event(self, number: int) -> Any:
        name = METRIC_NAMES[1 if self._kind.samples else 0]
        samples = [self._random.lognormvariate(4.4, 0.7) for _ in range(self._kind.samples)]
        return self._event_of(name, samples or [float(self._random.randrange(1, 1000))], number)


def _ours(kind: Kind, series: int, traffic: Traffic | None) -> Export:
    return ExporterRun(collections_of(kind, series, our_reader), our_exporter(traffic))


def _boto3(kind: Kind, series: int, traffic: Traffic | None) -> Export:
    return DictionariesRun(collections_of(kind, series, our_reader), default_client(traffic))


def _otlp(kind: Kind, series: int, traffic: Traffic | None, **options: Any) -> Export:
    exporter = optional(_OTLP_MODULE).OTLPMetricExporter(session=answered_session(traffic), **options)
    return ExporterRun(collections_of(kind, series, otlp_reader), exporter)


def _otlp_gzip(kind: Kind, series: int, traffic: Traffic | None) -> Export:
    return _otlp(kind, series, traffic, compression=optional("opentelemetry.exporter.otlp.proto.http").Compression.Gzip)


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
        for sample in samples[:99]:  # one more, and it writes the event at once
            metrics.add_metric(name, "Milliseconds" if kind.samples else "Count", sample)
        return metrics

    def text_of(metrics: Any) -> None:
        _keep(traffic, json.dumps(metrics.serialize_metric_set(), separators=(",", ":")))

    return EventsRun(kind, series, event_of, text_of)


def _keep(traffic: Traffic | None, line: str) -> None:
    if traffic is not None:
        traffic.bodies.append(line.encode() + b"\n")


def _collection(kind: Kind, series: int, _traffic: Traffic | None) -> Export:
    return Collection(Source(kind, series, sdk_reader))


WAYS: Final[Mapping[str, Way]] = {
    OURS: Way(_ours),
    BOTO3: Way(_boto3),
    OTLP: Way(_otlp, (_OTLP_MODULE,)),
    OTLP_GZIP: Way(_otlp_gzip, (_OTLP_MODULE,)),
    EMF: Way(_emf, ("aws_embedded_metrics",)),
    POWERTOOLS: Way(_powertools, ("aws_lambda_powertools",)),
    SDK: Way(_collection),
}


class Prepared:
    """A way to export, for a process of its own, which makes one kind of export after the other."""

    def __init__(self, way: str, traffic: Traffic | None = None) -> None:
        self._way = WAYS[way]
        self._traffic = traffic
        self._exports: dict[tuple[Kind, int], Export] = {}

    def prepared(self, kind: Kind, series: int) -> Export:
        """An export that is ready to run."""
        export = self._exports.get((kind, series))
        if export is None:
            self._exports.clear()  # memory of another case is nothing that this one should carry along
            export = self._exports[kind, series] = self._way.make(kind, series, self._traffic)
        export.prepare()
        return export


def installed(ways: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Those of these ways that can be taken here, and those that cannot."""
    here = [name for name in ways if are_installed(WAYS[name].needs)]
    return here, [name for name in ways if name not in here]
