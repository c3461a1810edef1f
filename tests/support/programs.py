"""A program that measures with the real SDK, and publishes to a strict fake CloudWatch."""

from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    MetricExportResult,
    MetricsData,
)
from opentelemetry.sdk.metrics.view import View
from opentelemetry.sdk.resources import Resource

from otel_cloudwatch_flask import CloudWatchMetricExporter
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch

CUMULATIVE: dict[type, AggregationTemporality] = {}
"""The SDK's default temporalities."""


class Program:
    """A provider that collects and exports on demand, without a thread."""

    def __init__(
        self,
        *,
        views: Sequence[View] = (),
        temporality: dict[type, AggregationTemporality] | None = None,
        resource: dict[str, Any] | None = None,
        **exporter: Any,
    ) -> None:
        self.cloudwatch = FakeCloudWatch()
        self.exporter = CloudWatchMetricExporter(exporter.pop("namespace", "Shop"), client=self.cloudwatch, **exporter)
        preferred = self.exporter._preferred_temporality if temporality is None else temporality
        self.reader = InMemoryMetricReader(
            preferred_temporality=preferred,
            preferred_aggregation=self.exporter._preferred_aggregation,
        )
        self.provider = MeterProvider(
            metric_readers=[self.reader], views=views, resource=Resource(resource or {}), shutdown_on_exit=False
        )
        self.meter = self.provider.get_meter("tests")

    def collected(self) -> MetricsData | None:
        """Collect the SDK's current metrics."""
        return self.reader.get_metrics_data()

    def publish(self) -> list[dict[str, Any]]:
        """Collect and export, and return the exported data points."""
        before = len(self.cloudwatch.datums)
        data = self.collected()
        if data is not None:
            assert self.exporter.export(data) is MetricExportResult.SUCCESS
        assert self.cloudwatch.validation_errors == []
        return [dict(datum) for datum in self.cloudwatch.datums[before:]]

    def lost(self) -> dict[str, int]:
        """Return the number of lost data points, by reason."""
        return dict(self.exporter.stats().datums_lost)
