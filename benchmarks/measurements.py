"""What is measured in order to be exported: so many series of three attributes, each with something new."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader, MetricsData
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation

from otel_cloudwatch_flask.distribution import MAX_BUCKETS
from otel_cloudwatch_flask.exporter import TEMPORALITY
from otel_cloudwatch_flask.sdk_internals import FreshScaleHistogramAggregation

METRIC_NAMES: Final = ("http.server.requests", "http.server.request.duration")


@dataclass(frozen=True, slots=True)
class Kind:
    """Counters, or histograms with so many samples a collection."""

    title: str
    samples: int = 0


COUNTERS: Final = Kind("counters")
HISTOGRAMS_5: Final = Kind("histograms, 5 samples", 5)
HISTOGRAMS_200: Final = Kind("histograms, 200 samples", 200)
KINDS: Final = (COUNTERS, HISTOGRAMS_5, HISTOGRAMS_200)


def attributes_of(number: int) -> dict[str, str | int]:
    """The attributes of one series."""
    return {
        "http.route": f"/shop/items/{number}",
        "http.request.method": "GET" if number % 3 else "POST",
        "http.response.status_code": 200 if number % 7 else 404,
    }


def our_reader() -> InMemoryMetricReader:
    """Collects as this package's reader does."""
    aggregation = FreshScaleHistogramAggregation(max_size=MAX_BUCKETS - 1)
    return InMemoryMetricReader(preferred_temporality=TEMPORALITY, preferred_aggregation={Histogram: aggregation})


def sdk_reader() -> InMemoryMetricReader:
    """Collects the same with nothing but the SDK."""
    delta = AggregationTemporality.DELTA
    return InMemoryMetricReader(
        preferred_temporality={Counter: delta, Histogram: delta},
        preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation(max_size=MAX_BUCKETS - 1)},
    )


def otlp_reader() -> InMemoryMetricReader:
    """Collects what an OTLP exporter asks for unless it is told otherwise: cumulative, in explicit buckets."""
    return InMemoryMetricReader()


class Source:
    """A meter provider with so many series of a kind."""

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
        """Give every series something new."""
        if not self._kind.samples:
            for attributes in self._attributes:
                self._counter.add(self._random.randrange(1, 1000), attributes)
            return
        record = self._histogram.record
        for attributes in self._attributes:
            for latency in self._random.choices(self._latencies, k=self._kind.samples):
                record(latency, attributes)

    def collect(self) -> MetricsData:
        """What the SDK hands to an exporter."""
        data = self._reader.get_metrics_data()
        if data is None:
            raise RuntimeError("nothing was collected")
        return data


def data_points(data: MetricsData) -> list[Any]:
    """All data points of a collection."""
    return [
        point
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    ]
