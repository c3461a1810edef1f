"""CloudWatch receives any number, name and unit as passed to ``add_metric``."""

import math
import random
import re
from collections.abc import Iterable, Iterator

import pytest
from flask import Flask
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View

from otel_cloudwatch_flask import CloudWatchMetricsReporter
from otel_cloudwatch_flask.model.units import CLOUDWATCH_UNITS, ScaledUnit, from_ucum
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch

BUCKET_WIDTH = 0.1
BOUNDS = tuple(edge * BUCKET_WIDTH for edge in range(51))
"""Bucket bounds for the magnitudes of normally distributed samples."""

# https://ucum.org/ucum: atoms and prefixes used in metrics, an annotation, and each of these per unit of time.
UCUM = re.compile(r"(1|%|[kMGT]?(By|bit)|[mu]?s|\{[!-z|~]+\})(/s)?")


class Shop:
    """An app with a reporter, used outside requests, and a reader for another exporter on the same provider."""

    def __init__(self, *views: View) -> None:
        self.cloudwatch = FakeCloudWatch()
        self.other = InMemoryMetricReader()
        provider = MeterProvider([self.other], views=views, shutdown_on_exit=False)
        self.reporter = CloudWatchMetricsReporter(
            Flask("shop"), "Shop", self.cloudwatch, meter_provider=provider, flush="interval", strict=True
        )

    def add(self, name: str, values: Iterable[float], unit: str = "None") -> None:
        """Add metrics, and publish them."""
        for value in values:
            self.reporter.add_metric(name, value, unit)
        assert self.reporter.flush()

    def seen_by_others(self) -> list[Metric]:
        """Return the metrics as another exporter receives them."""
        data = self.other.get_metrics_data()
        assert data is not None
        return [metric for scope in data.resource_metrics[0].scope_metrics for metric in scope.metrics]


@pytest.fixture
def shop() -> Iterator[Shop]:
    """A shop whose reporter is shut down after the test."""
    fresh = Shop()
    yield fresh
    fresh.reporter.shutdown()


class TestSigns:
    """Negative values, which OpenTelemetry's own histograms drop."""

    def test_negative_zero_and_positive(self, shop: Shop) -> None:
        """Negative, zero and positive values of one flush become one datum."""
        shop.add("Balance", [-5, 0, 5])
        (datum,) = shop.cloudwatch.datums
        assert (datum["Values"], datum["Counts"]) == ([-5, 0, 5], [1, 1, 1])
        assert shop.cloudwatch.count("Balance") == 3
        assert shop.cloudwatch.sum("Balance") == 0
        assert shop.cloudwatch.minimum("Balance") == -5
        assert shop.cloudwatch.maximum("Balance") == 5
        assert datum["Dimensions"] == []

    @pytest.mark.parametrize("value", [0, 1, -1, 0.1, -1e-9, 12345678901, -(2**360), 2.0**-360])
    def test_a_single_value_is_exact(self, shop: Shop, value: float) -> None:
        """A single sample of any magnitude is exact."""
        shop.add("One", [value])
        assert shop.cloudwatch.values("One") == {float(value): 1}

    def test_a_view_that_selects_attributes(self) -> None:
        """Negative values stay negative if a view of the program does not select the attribute that marks them."""
        shop = Shop(View(instrument_name="*", attribute_keys={"region"}))
        shop.add("Balance", [-5, 3])
        assert shop.cloudwatch.sum("Balance") == -2
        shop.reporter.shutdown()

    def test_only_negative(self, shop: Shop) -> None:
        """A metric with only negative values is published."""
        shop.add("Loss", [-3, -2, -2, -1])
        assert shop.cloudwatch.count("Loss") == 4
        assert shop.cloudwatch.sum("Loss") == pytest.approx(-8, rel=1e-9)
        assert (shop.cloudwatch.minimum("Loss"), shop.cloudwatch.maximum("Loss")) == (-3, -1)


@pytest.mark.parametrize("seed", range(3))
def test_statistics_of_a_normal_distribution(shop: Shop, seed: int) -> None:
    """For 10,000 values around 0, CloudWatch's statistics are exact."""
    source = random.Random(seed)
    samples = [source.gauss(0, 1) for _ in range(10_000)]
    shop.add("Drift", samples)
    assert len(shop.cloudwatch.datums) == 1
    assert shop.cloudwatch.count("Drift") == 10_000
    assert shop.cloudwatch.sum("Drift") == pytest.approx(math.fsum(samples), abs=1e-9 * math.fsum(map(abs, samples)))
    assert shop.cloudwatch.minimum("Drift") == min(samples)
    assert shop.cloudwatch.maximum("Drift") == max(samples)


@pytest.mark.parametrize("percent", [0.1, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9])
def test_percentiles_of_a_normal_distribution(percent: float) -> None:
    """Each percentile is within one bucket of the exact value."""
    shop, source = Shop(), random.Random(2)
    samples = sorted(source.gauss(0, 1) for _ in range(10_000))
    shop.add("Drift", samples)
    shop.reporter.shutdown()
    exact = samples[math.ceil(percent * 100) - 1]
    # Magnitudes from 1e-4 to 4 span a factor of 2^16, so 147 buckets allow 8 buckets per power of two.
    assert shop.cloudwatch.percentile("Drift", percent) == pytest.approx(exact, rel=2**0.125 - 1)


@pytest.mark.parametrize("percent", [0.1, 1, 10, 25, 50, 75, 90, 99, 99.9])
def test_percentiles_in_explicit_buckets(percent: float) -> None:
    """A view's explicit buckets, mirrored for negative values, give percentiles within a bucket."""
    shop = Shop(View(instrument_name="*", aggregation=ExplicitBucketHistogramAggregation(BOUNDS)))
    source = random.Random(7)
    samples = sorted(source.gauss(0, 1) for _ in range(10_000))
    shop.add("Drift", samples)
    shop.reporter.shutdown()
    exact = samples[math.ceil(percent * 100) - 1]
    assert shop.cloudwatch.percentile("Drift", percent) == pytest.approx(exact, abs=BUCKET_WIDTH)


class TestNames:
    """Names are published as written, including names that the SDK does not allow for instruments."""

    @pytest.mark.parametrize(
        "name", ["RequestCount", "Request Count", "2xx", "orders", "50%", "a/b:c", "-", "$", "x" * 255]
    )
    def test_kept(self, shop: Shop, name: str) -> None:
        """CloudWatch gets the name as written."""
        shop.add(name, [1])
        assert [metric.name for metric in shop.cloudwatch.metrics()] == [name]

    def test_beyond_ascii(self, shop: Shop) -> None:
        """Characters that alarms do not accept are encoded; a name that looks encoded is still a distinct metric."""
        shop.add("Größe", [1])
        shop.add("Gr%C3%B6%C3%9Fe", [2])
        assert shop.cloudwatch.sum("Gr%C3%B6%C3%9Fe") == 1
        assert shop.cloudwatch.sum("Gr%25C3%25B6%25C3%259Fe") == 2

    def test_in_different_case(self, shop: Shop) -> None:
        """``orders``, ``Orders`` and ``ORDERS`` are three metrics, also for other exporters."""
        for value, name in enumerate(("orders", "Orders", "ORDERS"), start=1):
            shop.add(name, [value])
        assert {name: shop.cloudwatch.sum(name) for name in ("orders", "Orders", "ORDERS")} == {
            "orders": 1,
            "Orders": 2,
            "ORDERS": 3,
        }
        assert len({metric.name for metric in shop.seen_by_others()}) == 3

    def test_one_name_with_two_units(self, shop: Shop) -> None:
        """A name with two units is two metrics."""
        shop.add("Size", [3], "Kilobytes")
        shop.add("Size", [5], "Count")
        assert {(metric.name, metric.unit) for metric in shop.cloudwatch.metrics()} == {
            ("Size", "Kilobytes"),
            ("Size", "Count"),
        }
        assert len({metric.name for metric in shop.seen_by_others()}) == 2


class TestUnits:
    """CloudWatch's 27 units."""

    @pytest.mark.parametrize("unit", CLOUDWATCH_UNITS)
    def test_there_and_back(self, shop: Shop, unit: str) -> None:
        """Other exporters see an equivalent valid UCUM unit, and CloudWatch gets the unit as written."""
        shop.add("Metric", [3.5], unit)
        (metric,) = shop.cloudwatch.metrics()
        assert metric.unit == unit
        assert shop.cloudwatch.values("Metric") == {3.5: 1}
        (seen,) = shop.seen_by_others()
        assert seen.unit is not None
        assert UCUM.fullmatch(seen.unit)
        assert from_ucum(seen.unit) == ScaledUnit(unit)

    def test_there_are_27(self) -> None:
        """The tests cover all 27 units, which are distinct for other exporters."""
        shop = Shop()
        for unit in CLOUDWATCH_UNITS:
            shop.add(unit, [1], unit.upper())
        assert len({metric.unit for metric in shop.seen_by_others()}) == 27
        assert {metric.name: metric.unit for metric in shop.cloudwatch.metrics()} == {u: u for u in CLOUDWATCH_UNITS}
        shop.reporter.shutdown()
