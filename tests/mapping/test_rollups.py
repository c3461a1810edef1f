"""CloudWatch does not aggregate over dimensions, so each rollup is published once, with all samples of its series."""

import math
from collections import Counter
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.metrics import MeterProvider

from otel_cloudwatch_flask import CloudWatchMetricExporter, CloudWatchMetricReader, MetricRule
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch
from otel_cloudwatch_flask.testing.published import PublishedMetric

ROUTES = [f"/route{number}" for number in range(200)]
STATUSES = [200, 201, 301, 404, 500]
SERIES = [(route, status) for route in ROUTES for status in STATUSES]
RULES = [MetricRule(dimensions=["route", "status"], rollups=[["route"], []])]


class Published:
    """A program with 1,000 series and their rollups, collected on demand."""

    def __init__(self) -> None:
        self.cloudwatch = FakeCloudWatch()
        exporter = CloudWatchMetricExporter("Shop", client=self.cloudwatch, rules=RULES, max_metrics=2000)
        self.reader = CloudWatchMetricReader(exporter)
        meter = MeterProvider([self.reader], shutdown_on_exit=False).get_meter("m")
        self.counter = meter.create_counter("requests", unit="{request}")
        self.histogram = meter.create_histogram("duration", unit="ms")

    def collect(self) -> None:
        """Publish the measurements, and return the data points of this collection alone."""
        self.cloudwatch.clear()
        assert self.reader.flush()

    def times_published(self, name: str) -> Counter[PublishedMetric]:
        """Return the number of data points of each metric with this name."""
        return Counter(each.metric for each in self.cloudwatch.accepted if each.metric.name == name)


@pytest.fixture
def published() -> Iterator[Published]:
    """A new program, whose thread ends with the test."""
    fresh = Published()
    yield fresh
    fresh.reader.shutdown()


def amount(route: str, status: int) -> int:
    """Return the amount recorded in a series. Amounts of different series differ."""
    return len(route) * 1000 + status


@pytest.mark.parametrize("collections", [1, 3])
def test_counters(published: Published, collections: int) -> None:
    """Each rollup is one data point per collection, with the sum of its series."""
    for _ in range(collections):
        for route, status in SERIES:
            published.counter.add(amount(route, status), {"route": route, "status": status, "user": status * 7})
        published.collect()
        times = published.times_published("requests")
        assert len(times) == len(SERIES) + len(ROUTES) + 1
        assert set(times.values()) == {1}
        for route in ROUTES:
            expected = sum(amount(route, status) for status in STATUSES)
            assert published.cloudwatch.sum("requests", route=route) == expected
        assert published.cloudwatch.sum("requests", {}) == sum(amount(*each) for each in SERIES)


def test_histograms(published: Published) -> None:
    """Count, sum, minimum and maximum of each rollup are those of the samples of its series."""
    samples = {series: [1.5 + number % 17, 40.0 * (1 + number % 23), 7.25] for number, series in enumerate(SERIES)}
    for (route, status), recorded in samples.items():
        for sample in recorded:
            published.histogram.record(sample, {"route": route, "status": status})
    published.collect()
    times = published.times_published("duration")
    assert len(times) == len(SERIES) + len(ROUTES) + 1
    assert set(times.values()) == {1}
    for dimensions in ({}, *({"route": route} for route in ROUTES)):
        belonging = [route for route in ROUTES if dimensions.get("route") in (None, route)]
        expected = [sample for (route, _), each in samples.items() if route in belonging for sample in each]
        assert published.cloudwatch.count("duration", dimensions) == len(expected)
        assert published.cloudwatch.sum("duration", dimensions) == pytest.approx(math.fsum(expected), rel=1e-9)
        assert published.cloudwatch.minimum("duration", dimensions) == min(expected)
        assert published.cloudwatch.maximum("duration", dimensions) == max(expected)
    assert published.cloudwatch.percentile("duration", 30, {}) == pytest.approx(7.25, rel=0.1)


def test_all_levels_have_the_same_total(published: Published) -> None:
    """The original series, the rollup by route and the total have the same sum."""
    for route, status in SERIES:
        published.counter.add(amount(route, status), {"route": route, "status": status})
    published.collect()
    totals: Counter[int] = Counter()
    for each in published.cloudwatch.accepted:
        totals[len(each.metric.dimensions)] += int(each.datum["Value"])
    assert totals[2] == totals[1] == totals[0] == sum(amount(*each) for each in SERIES)


def test_rollups_of_points_without_the_attribute(published: Published) -> None:
    """A point that lacks an attribute of a rollup is only in its own series and in the total."""
    published.counter.add(3, {"route": "/", "status": 200})
    published.counter.add(4, {"status": 500})
    published.collect()
    sums = {dict(metric.dimensions).get("route"): 0 for metric in published.cloudwatch.metrics()}
    assert sums == {"/": 0, None: 0}
    assert published.cloudwatch.sum("requests", route="/") == 3
    assert published.cloudwatch.sum("requests", {}) == 7
