"""An outlier reduces precision only in its own interval."""

import random

import pytest
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation

from otel_cloudwatch_flask import CloudWatchMetricExporter, CloudWatchMetricReader
from otel_cloudwatch_flask.sdk import internals
from otel_cloudwatch_flask.sdk.internals import FreshScaleHistogramAggregation
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch


def test_later_intervals_are_as_good_as_without_the_outlier() -> None:
    """After an interval with 1e9 and 1e-9, percentiles of the next ten intervals are accurate to within 3 %."""
    cloudwatch = FakeCloudWatch()
    reader = CloudWatchMetricReader(CloudWatchMetricExporter("Ns", client=cloudwatch))
    histogram = MeterProvider([reader], shutdown_on_exit=False).get_meter("m").create_histogram("h")
    histogram.record(1e9)
    histogram.record(1e-9)
    assert reader.flush()
    source = random.Random(0)
    for _ in range(10):
        cloudwatch.clear()
        samples = sorted(source.lognormvariate(3, 0.3) for _ in range(1000))
        for sample in samples:
            histogram.record(sample)
        assert reader.flush()
        for percent in (50, 90, 99):
            exact = samples[percent * 10 - 1]
            assert cloudwatch.percentile("h", percent) == pytest.approx(exact, rel=0.03)
    reader.shutdown()


def scales_of(aggregation: ExponentialBucketHistogramAggregation) -> list[int]:
    """Return the scales of two collections, of which only the first has outliers."""
    reader = InMemoryMetricReader(
        preferred_temporality={Histogram: AggregationTemporality.DELTA},
        preferred_aggregation={Histogram: aggregation},
    )
    histogram = MeterProvider([reader], shutdown_on_exit=False).get_meter("m").create_histogram("h")
    scales = []
    for values in ((1e-9, 1e9), (1.0, 1.1)):
        for value in values:
            histogram.record(value)
        data = reader.get_metrics_data()
        assert data is not None
        (point,) = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
        scales.append(point.scale)  # type: ignore[union-attr]
    return scales


def test_the_scale_recovers() -> None:
    """After an outlier, the next interval uses the scale that its own samples allow, unlike the SDK's aggregation."""
    with_sdk = scales_of(ExponentialBucketHistogramAggregation())
    ours = scales_of(FreshScaleHistogramAggregation())
    assert with_sdk[0] == ours[0] < 9 < ours[1]


def test_another_sdk_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """With unsupported SDK internals, histograms keep the SDK's behavior, and one warning is logged."""
    monkeypatch.setattr(internals, "_NEEDED", ("_what_no_sdk_has",))
    assert scales_of(FreshScaleHistogramAggregation()) == scales_of(ExponentialBucketHistogramAggregation())
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "_what_no_sdk_has" in caplog.text
