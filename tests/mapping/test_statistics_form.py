"""``distribution="statistics"``: sum, count, minimum and maximum instead of values."""

import math
import random
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View

from otel_cloudwatch_flask import CloudWatchMetricExporter, CloudWatchMetricReader, MetricRule
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch

EXPLICIT = View(instrument_name="*", aggregation=ExplicitBucketHistogramAggregation())
SOURCE = random.Random(5)
LATENCIES = [SOURCE.lognormvariate(4, 0.7) for _ in range(1000)]


def published(samples: Sequence[float], *, views: Sequence[View] = (), unit: str = "ms") -> FakeCloudWatch:
    """Publish a histogram's samples in two series that a rule merges, and return the fake CloudWatch."""
    cloudwatch = FakeCloudWatch()
    rules = [MetricRule(match="duration", dimensions=[], distribution="statistics")]
    reader = CloudWatchMetricReader(CloudWatchMetricExporter("Shop", client=cloudwatch, rules=rules))
    meter = MeterProvider([reader], shutdown_on_exit=False, views=views).get_meter("m")
    histogram = meter.create_histogram("duration", unit=unit)
    for number, sample in enumerate(samples):
        histogram.record(sample, {"worker": number % 2})
    assert reader.flush()
    reader.shutdown()
    return cloudwatch


@pytest.mark.parametrize("views", [[], [EXPLICIT]], ids=["exponential", "explicit"])
@pytest.mark.parametrize("samples", [LATENCIES, [12.5], [3.0, 4.0], [0.0] * 5], ids=["many", "one", "two", "zeros"])
def test_statistics_are_exact(samples: list[float], views: list[View]) -> None:
    """The samples become one data point, whose statistic set is exact."""
    cloudwatch = published(samples, views=views)
    (datum,) = cloudwatch.datums
    assert set(datum) == {"MetricName", "Dimensions", "Unit", "Timestamp", "StatisticValues"}
    statistics = datum["StatisticValues"]
    assert statistics["SampleCount"] == len(samples)
    assert statistics["Sum"] == pytest.approx(math.fsum(samples), rel=1e-12)
    assert statistics["Minimum"] == min(samples)
    assert statistics["Maximum"] == max(samples)


def test_scaled() -> None:
    """A unit's factor applies to sum, minimum and maximum, but not to the sample count."""
    statistics = published([1.0, 2.0, 6.0], unit="min").datums[0]["StatisticValues"]
    assert statistics == {"SampleCount": 3, "Sum": 540, "Minimum": 60, "Maximum": 360}


def test_there_are_no_percentiles() -> None:
    """Statistic sets have no percentiles, and asking the fake CloudWatch for one raises an error that explains this."""
    with pytest.raises(LookupError, match="statistic sets"):
        published(LATENCIES).percentile("duration", 99)


def test_it_is_smaller() -> None:
    """A statistic set of 1,000 samples takes less than a quarter of the bytes of values and counts."""
    statistics = published(LATENCIES).datums[0]
    cloudwatch = FakeCloudWatch()
    reader = CloudWatchMetricReader(CloudWatchMetricExporter("Shop", client=cloudwatch))
    histogram = MeterProvider([reader], shutdown_on_exit=False).get_meter("m").create_histogram("duration", unit="ms")
    for sample in LATENCIES:
        histogram.record(sample)
    assert reader.flush()
    reader.shutdown()
    assert len(str(statistics)) < len(str(cloudwatch.datums[0])) / 4


def test_numbers_are_values_all_the_same() -> None:
    """The form applies only to histograms; a counter's delta is still a number."""
    cloudwatch = FakeCloudWatch()
    rules = [MetricRule(distribution="statistics")]
    reader = CloudWatchMetricReader(CloudWatchMetricExporter("Shop", client=cloudwatch, rules=rules))
    MeterProvider([reader], shutdown_on_exit=False).get_meter("m").create_counter("orders").add(5)
    assert reader.flush()
    reader.shutdown()
    assert [datum["Value"] for datum in cloudwatch.datums] == [5]
