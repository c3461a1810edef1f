"""CPU of one export of 1,000 series, beside the same datums as dictionaries through a default boto3 client.

The transport is stubbed at botocore's ``before-send``: everything happens but the network.
"""

import random
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import boto3
from botocore.awsrequest import AWSResponse
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader, MetricsData
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from rich.table import Table

from otel_cloudwatch_flask import CloudWatchMetricExporter
from otel_cloudwatch_flask.boto_client import client_factory
from otel_cloudwatch_flask.config import Settings
from otel_cloudwatch_flask.testing import FakeCloudWatch

SERIES = 1000


def run(*, short: bool) -> Table:
    """Measure counters and histograms."""
    rounds = 5 if short else 25
    table = Table(title=f"CPU of one export of {SERIES} series (3 attributes), medians")
    for heading in ("", "SDK collects, ms", "default boto3, ms", "this exporter, ms", "ratio"):
        table.add_column(heading, justify="left" if not heading else "right")
    for title, samples in (("counters", 0), ("histograms, 5 samples", 5), ("histograms, 200 samples", 200)):
        collecting, plain, ours = _measured(samples, rounds)
        table.add_row(title, f"{collecting:.1f}", f"{plain:.1f}", f"{ours:.1f}", f"{plain / ours:.1f}x")
    return table


def _measured(samples: int, rounds: int) -> tuple[float, float, float]:
    source = _Source(samples)
    exporter = CloudWatchMetricExporter.from_settings(
        Settings.resolve(arguments={"namespace": "Benchmark"}, app_config={}, environ={}),
        client_factory=lambda: _stubbed(client_factory("us-east-1", access_key_id="x", secret_access_key="x")()),
    )
    default_client = _stubbed(boto3.client("cloudwatch", "us-east-1", aws_access_key_id="x", aws_secret_access_key="x"))
    collecting, plain, ours = [], [], []
    for _ in range(rounds + 1):
        source.record()
        seconds, data = _cpu(source.collect)
        collecting.append(seconds)
        plain.append(_cpu(partial(_put_all, default_client, _as_dictionaries(data)))[0])
        ours.append(_cpu(partial(exporter.export, data))[0])
    # The first round fills caches.
    return statistics.median(collecting[1:]), statistics.median(plain[1:]), statistics.median(ours[1:])


def _as_dictionaries(data: MetricsData) -> list[Mapping[str, Any]]:
    """The same requests as a program would make them by hand."""
    listening = FakeCloudWatch()
    CloudWatchMetricExporter("Benchmark", client=listening).export(data)
    return listening.requests


def _put_all(client: Any, requests: list[Mapping[str, Any]]) -> None:
    for request in requests:
        client.put_metric_data(**request)


def _cpu(work: Callable[[], Any]) -> tuple[float, Any]:
    # The whole process's: part of an export is done by a thread of its own.
    begun = time.process_time()
    result = work()
    return (time.process_time() - begun) * 1000, result


class _Source:
    """A provider whose reader collects as ours does."""

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self._random = random.Random(1)
        self._reader = InMemoryMetricReader(
            preferred_temporality={Counter: AggregationTemporality.DELTA, Histogram: AggregationTemporality.DELTA},
            preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation(max_size=147)},
        )
        meter = MeterProvider([self._reader], shutdown_on_exit=False).get_meter("benchmark")
        self._counter = meter.create_counter("requests", unit="{request}")
        self._histogram = meter.create_histogram("duration", unit="ms")

    def record(self) -> None:
        """Give every series something new."""
        for number in range(SERIES):
            attributes: dict[str, str | int] = {"route": f"/items/{number}", "method": "GET", "status": 200}
            if not self._samples:
                self._counter.add(3, attributes)
            for _ in range(self._samples):
                self._histogram.record(self._random.lognormvariate(3, 1), attributes)

    def collect(self) -> MetricsData:
        """What the SDK hands to an exporter."""
        data = self._reader.get_metrics_data()
        if data is None:
            raise RuntimeError("nothing was collected")
        return data


def _stubbed(client: Any) -> Any:
    """A client whose requests are answered before they are sent."""

    def answer(request: Any, **_: object) -> AWSResponse:
        headers: Any = {"Content-Type": "application/x-amz-json-1.0"}
        return AWSResponse(request.url, 200, headers, _Body())

    client.meta.events.register("before-send.cloudwatch.PutMetricData", answer)
    return client


class _Body:
    """An empty answer, as urllib3 would give it."""

    def stream(self) -> Any:
        """No bytes."""
        return iter([b""])
