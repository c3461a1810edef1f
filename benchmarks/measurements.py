"""The measurements that are exported: counters or histograms, each series with three attributes."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader, MetricsData
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation

from otel_cloudwatch_flask import CloudWatchMetricExporter

METRIC_NAMES: Final = ("http.server.requests", "http.server.request.duration")
_OUR_MAX_SIZE: Final = 147
"""Number of exponential buckets that this package's reader requests."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Counters, or histograms with this number of samples per collection."""

    title: str
    samples: int = 0


COUNTERS: Final = Kind("counters")
HISTOGRAMS_5: Final = Kind("histograms, 5 samples", 5)
HISTOGRAMS_200: Final = Kind("histograms, 200 samples", 200)
KINDS: Final = (COUNTERS, HISTOGRAMS_5, HISTOGRAMS_200)


def attributes_of(number: int) -> dict[str, str | int]:
    """Return the attributes of one series."""
    return {
        "http.route": f"/shop/items/{number}",
        "http.request.method": "GET" if number % 3 else "POST",
        "http.response.status_code": 200 if number % 7 else 404,
    }


def our_reader() -> InMemoryMetricReader:
    """Return a reader that collects as this package's reader does."""
    exporter = CloudWatchMetricExporter("Benchmark")
    return InMemoryMetricReader(
        preferred_temporality=exporter._preferred_temporality,  # noqa: SLF001 - as the SDK's own reader does
        preferred_aggregation=exporter._preferred_aggregation,  # noqa: SLF001 - as the SDK's own reader does
    )


def sdk_reader() -> InMemoryMetricReader:
    """Return a reader that collects the same with the SDK alone."""
    delta = AggregationTemporality.DELTA
    return InMemoryMetricReader(
        preferred_temporality={Counter: delta, Histogram: delta},
        preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation(max_size=_OUR_MAX_SIZE)},
    )


def otlp_reader() -> InMemoryMetricReader:
    """Return a reader that collects as an OTLP exporter does by default: cumulative, with explicit buckets."""
    return InMemoryMetricReader()


def otlp_exponential_reader() -> InMemoryMetricReader:
    """Return a reader for an OTLP exporter that is set to ``base2_exponential_bucket_histogram``."""
    return InMemoryMetricReader(preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation()})


class Source:
    """A meter provider with a number of series of one kind."""

    def __init__(self, kind: Kind, series: int, make_reader: Callable[[], InMemoryMetricReader]) -> None:
        self._kind = kind
        self._random = random.Random(1)
        self._latencies = [self._random.lognormvariate(4.4, 0.7) for _ in range(10_000)]
        self._attributes = [attributes_of(number) for number in range(series)]
        self._reader = make_reader()
        meter = MeterProvider([self._reader], shutdown_on_exit=False).get_meter("benchmark")
        self._counter = meter.create_counter(METRIC_NAMES[0], unit="{request}")
        self._histogram = meter.create_histogram(METRIC_NAMES[1], unit="ms")

    def record(self) -> None:
        """Record new measurements for every series."""
        if not self._kind.samples:
            for attributes in self._attributes:
                self._counter.add(self._random.randrange(1, 1000), attributes)
            return
        record = self._histogram.record
        for attributes in self._attributes:
            for latency in self._random.choices(self._latencies, k=self._kind.samples):
                record(latency, attributes)

    def collect(self) -> MetricsData:
        """Return the data that the SDK passes to an exporter."""
        return collected(self._reader)


def collected(reader: InMemoryMetricReader) -> MetricsData:
    """Collect, and return the data. Raises ``RuntimeError`` if there are none."""
    data = reader.get_metrics_data()
    if data is None:
        raise RuntimeError("nothing was collected")
    return data
