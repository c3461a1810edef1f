"""Invalid input affects only itself: it is corrected or counted as lost, and the rest of the export arrives."""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import inf, nan
from typing import Any

import pytest
from flask import Flask
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics import export as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_cloudwatch_flask import CloudWatchMetricExporter, CloudWatchMetricsReporter
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch
from tests.support.programs import Program

HEALTHY = 25

DELTA = sdk.AggregationTemporality.DELTA
NOW = time.time_ns()


def observing(*values: float) -> Any:
    """Return a callback that observes these values, each with its own attribute."""

    def callback(_options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(value, {"n": number}) for number, value in enumerate(values)]

    return callback


def is_finite_float(value: float) -> bool:
    """Return whether a number fits in a finite float."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


class TestCallbacks:
    """Values of observable instruments, which the SDK passes on without validation."""

    @pytest.mark.parametrize(
        "bad", [nan, inf, -inf, math.nextafter(2.0**360, inf), -(2.0**361), 10**400], ids=lambda bad: repr(bad)[:8]
    )
    @pytest.mark.parametrize("kind", ["gauge", "up_down_counter", "counter"])
    def test_no_number_that_cloudwatch_takes(self, bad: float, kind: str) -> None:
        """An observation that cannot be sent is lost as ``invalid``; earlier ones and other metrics arrive."""
        program = Program()
        values = [*map(float, range(HEALTHY)), bad]
        getattr(program.meter, f"create_observable_{kind}")("sick", [observing(*values)])
        program.meter.create_counter("orders").add(3)
        program.publish()
        sums = [program.cloudwatch.sum("sick", n=number) for number in range(HEALTHY)]
        assert sums == list(range(HEALTHY))
        assert program.cloudwatch.count("sick", n=HEALTHY) == 0
        assert program.cloudwatch.sum("orders") == 3
        # Some SDK versions drop non-float or non-finite values themselves, with a warning.
        assert program.lost() == {"invalid": 1} or (program.lost() == {} and not is_finite_float(bad))

    @pytest.mark.parametrize("tiny", [5e-324, -1e-200, math.nextafter(2.0**-360, 0), -0.0])
    def test_too_small(self, tiny: float) -> None:
        """A value below 2^-360 is sent as 0, and counts as a sample."""
        program = Program()
        program.meter.create_observable_gauge("small", [observing(tiny, 2.0**-360)])
        program.publish()
        assert program.cloudwatch.values("small", n=0) == {0.0: 1}
        assert math.copysign(1, program.cloudwatch.minimum("small", n=0)) == 1
        assert program.cloudwatch.values("small", n=1) == {2.0**-360: 1}
        assert program.lost() == {}

    def test_the_limit_itself(self) -> None:
        """±2^360, the largest magnitude that CloudWatch accepts, is sent."""
        program = Program()
        program.meter.create_observable_gauge("large", [observing(2.0**360, -(2.0**360))])
        program.publish()
        assert program.cloudwatch.sum("large", n=0) == 2.0**360
        assert program.cloudwatch.sum("large", n=1) == -(2.0**360)
        assert program.lost() == {}

    def test_beyond_the_limit_by_the_unit(self) -> None:
        """A value that exceeds the limit only after conversion to CloudWatch's unit is lost."""
        program = Program()
        program.meter.create_observable_gauge("ages", [observing(2.0**359, 1.0)], unit="d")
        program.publish()
        assert program.cloudwatch.values("ages") == {86400.0: 1}
        assert program.lost() == {"invalid": 1}

    def test_a_callback_that_raises(self) -> None:
        """The SDK logs an exception raised by a callback; the rest of the collection arrives."""

        def broken(_options: CallbackOptions) -> Iterable[Observation]:
            raise RuntimeError("no database")

        program = Program()
        program.meter.create_observable_gauge("sick", [broken])
        program.meter.create_counter("orders").add(1)
        program.publish()
        assert program.cloudwatch.sum("orders") == 1


# A valid explicit histogram: three samples (1, 6 and 7).
EXPLICIT = sdk.HistogramDataPoint(
    attributes={}, start_time_unix_nano=NOW, time_unix_nano=NOW, count=3, sum=14.0, min=1.0, max=7.0,
    bucket_counts=[1, 2, 0], explicit_bounds=[5.0, 10.0],
)  # fmt: skip

# A valid exponential histogram: two samples (1.5 and 3) and a zero.
EXPONENTIAL = sdk.ExponentialHistogramDataPoint(
    attributes={}, start_time_unix_nano=NOW, time_unix_nano=NOW, count=3, sum=4.5, min=0.0, max=3.0,
    scale=0, flags=0, zero_count=1,
    positive=sdk.Buckets(offset=0, bucket_counts=[1, 1]), negative=sdk.Buckets(offset=0, bucket_counts=[]),
)  # fmt: skip


def exported(metrics: Sequence[sdk.Metric]) -> tuple[FakeCloudWatch, dict[str, int]]:
    """Return the fake CloudWatch with the metrics of one export, and the losses by reason."""
    cloudwatch = FakeCloudWatch()
    exporter = CloudWatchMetricExporter("Shop", client=cloudwatch, max_metrics=2000)
    scope = sdk.ScopeMetrics(InstrumentationScope("tests"), metrics, "")
    resource = sdk.ResourceMetrics(Resource.get_empty(), [scope], "")
    assert exporter.export(sdk.MetricsData([resource])) is sdk.MetricExportResult.SUCCESS
    assert cloudwatch.validation_errors == []
    return cloudwatch, dict(exporter.stats().datums_lost)


def histogram(name: str, *points: Any) -> sdk.Metric:
    """Return a metric with delta histogram points."""
    is_exponential = isinstance(points[0], sdk.ExponentialHistogramDataPoint)
    data: Any = (sdk.ExponentialHistogram if is_exponential else sdk.Histogram)(points, DELTA)
    return sdk.Metric(name, "", "ms", data)


def gauge(name: str, value: float = 1.0, **attributes: Any) -> sdk.Metric:
    """Return a metric with one value."""
    return sdk.Metric(name, "", "", sdk.Gauge([sdk.NumberDataPoint(attributes, None, NOW, value)]))  # type: ignore[arg-type]  # gauges have no start


class TestHistograms:
    """Histograms that an SDK should not produce, but that an exporter may receive."""

    @pytest.mark.parametrize(
        "point",
        [
            replace(EXPLICIT, explicit_bounds=[10.0, 5.0]),
            replace(EXPLICIT, explicit_bounds=[5.0, 5.0]),
            replace(EXPLICIT, explicit_bounds=[5.0, nan]),
            replace(EXPLICIT, explicit_bounds=[5.0]),
            replace(EXPLICIT, count=4),
            replace(EXPLICIT, count=0),
            replace(EXPLICIT, bucket_counts=[-1, 4, 0]),
            replace(EXPLICIT, bucket_counts=[]),
            replace(EXPLICIT, min=8.0, max=7.0),
            replace(EXPLICIT, min=nan),
            replace(EXPLICIT, max=nan),
            replace(EXPLICIT, min=-inf),
            replace(EXPLICIT, max=inf),
            replace(EXPLICIT, max=700.0),
            replace(EXPLICIT, min=6.0),
            replace(EXPLICIT, sum=nan),
            replace(EXPLICIT, sum=inf),
            replace(EXPLICIT, sum=10**400),
            replace(EXPONENTIAL, count=7),
            replace(EXPONENTIAL, zero_count=-1),
            replace(EXPONENTIAL, positive=sdk.Buckets(offset=0, bucket_counts=[1, -1])),
            replace(EXPONENTIAL, positive=sdk.Buckets(offset=500, bucket_counts=[1, 1])),
            replace(EXPONENTIAL, min=3.0, max=0.0),
            replace(EXPONENTIAL, max=nan),
            replace(EXPONENTIAL, sum=-inf),
        ],
    )
    def test_contradictions(self, point: Any) -> None:
        """A histogram that contradicts itself is lost as ``invalid``; other points and other metrics arrive."""
        points = [replace(point, attributes={"n": number}) for number in ("before", "bad", "after")]
        points[0], points[2] = (
            replace(EXPLICIT if isinstance(point, sdk.HistogramDataPoint) else EXPONENTIAL, attributes={"n": number})
            for number in ("before", "after")
        )
        healthy = [gauge(f"healthy{number}", number) for number in range(HEALTHY)]
        cloudwatch, lost = exported([*healthy[:10], histogram("sick", *points), *healthy[10:]])
        assert [cloudwatch.sum(f"healthy{number}") for number in range(HEALTHY)] == list(range(HEALTHY))
        assert cloudwatch.count("sick", n="before") == cloudwatch.count("sick", n="after") == 3
        assert cloudwatch.count("sick", n="bad") == 0
        assert lost == {"invalid": 1}

    @pytest.mark.parametrize("total", [-1e6, 0.0, 1e6])
    def test_a_sum_that_the_buckets_do_not_allow(self, total: float) -> None:
        """If the sum contradicts the buckets, count and extremes are kept, and the sum is as close as possible."""
        cloudwatch, lost = exported([histogram("odd", replace(EXPLICIT, sum=total)), gauge("healthy")])
        assert cloudwatch.sum("healthy") == 1
        if lost:
            assert lost == {"invalid": 1}
        else:
            assert (cloudwatch.count("odd"), cloudwatch.minimum("odd"), cloudwatch.maximum("odd")) == (3, 1, 7)
            assert 13 <= cloudwatch.sum("odd") <= 15

    @pytest.mark.parametrize("extremes", [(None, None), (inf, -inf), (1.0, None), (None, 7.0)])
    def test_without_minimum_and_maximum(self, extremes: tuple[float | None, float | None]) -> None:
        """A missing minimum or maximum is not a contradiction."""
        point = replace(EXPLICIT, min=extremes[0], max=extremes[1])  # type: ignore[arg-type]  # as in OTLP
        cloudwatch, lost = exported([histogram("fine", point)])
        assert cloudwatch.count("fine") == 3
        assert cloudwatch.sum("fine") == pytest.approx(14)
        assert lost == {}

    @pytest.mark.parametrize("point", [EXPLICIT, EXPONENTIAL], ids=["explicit", "exponential"])
    def test_the_healthy_ones_are_healthy(self, point: Any) -> None:
        """The valid variants of the invalid histograms arrive."""
        cloudwatch, lost = exported([histogram("fine", point)])
        assert cloudwatch.count("fine") == point.count
        assert cloudwatch.sum("fine") == pytest.approx(point.sum)
        assert (cloudwatch.minimum("fine"), cloudwatch.maximum("fine")) == (point.min, point.max)
        assert lost == {}


class TestNames:
    """Metric names that the SDK does not allow for instruments, but that an exporter may receive."""

    @pytest.mark.parametrize(
        ("name", "published"),
        [
            ("line\nbreak", "line%0Abreak"),
            ("\x00", "%00"),
            ("\x7f", "%7F"),
            ("", "(empty)"),
            ("   ", "%20%20%20"),
            ("half \ud800", "half %ED%A0%80"),
            ("Größe", "Gr%C3%B6%C3%9Fe"),
            (":colon", ":colon"),
        ],
        ids=ascii,
    )
    def test_mended(self, name: str, published: str) -> None:
        """An invalid name is always corrected in the same way, and the sample arrives."""
        cloudwatch, lost = exported([gauge("before"), gauge(name, 7), gauge("after")])
        assert [metric.name for metric in cloudwatch.metrics()] == ["before", published, "after"]
        assert cloudwatch.sum(published) == 7
        assert lost == {}

    def test_too_long(self) -> None:
        """A name of 300 characters is cut to 255, and names with a common prefix stay distinct."""
        names = ["n" * 299 + "a", "n" * 299 + "b"]
        cloudwatch, lost = exported([gauge(names[0], 1), gauge(names[1], 2)])
        first, second = (metric.name for metric in cloudwatch.metrics())
        assert len(first) == len(second) == 255
        assert first != second
        assert first[:240] == second[:240] == "n" * 240
        assert (cloudwatch.sum(first), cloudwatch.sum(second)) == (1, 2)
        assert lost == {}

    @pytest.mark.parametrize("name", ["", "  ", "line\nbreak", "x" * 300, "\ud800", None, 7])
    def test_given_to_add_metric(self, name: Any) -> None:
        """In production, ``add_metric`` counts an invalid name as ``invalid``; other calls are unaffected."""
        cloudwatch = FakeCloudWatch()
        provider = MeterProvider(shutdown_on_exit=False)
        reporter = CloudWatchMetricsReporter(
            Flask("shop"), "Shop", cloudwatch, meter_provider=provider, flush="interval", strict=False
        )
        reporter.add_metric("Before", 1)
        reporter.add_metric(name, 1)
        reporter.add_metric("After", 1)
        assert reporter.flush()
        assert {metric.name for metric in cloudwatch.metrics()} == {"Before", "After"}
        assert reporter.stats().measurements_lost == {"invalid": 1}
        reporter.shutdown()


def test_all_at_once() -> None:
    """With a hundred bad points among a thousand good ones, the good ones arrive and each bad one is counted."""
    bad = [nan, inf, -inf, 2.0**361]
    metrics = [gauge(f"good{number}", number) for number in range(1000)]
    for number in range(100):
        metrics.insert(number * 9, gauge(f"bad{number}", bad[number % len(bad)]))
    cloudwatch, lost = exported(metrics)
    assert sorted(metric.name for metric in cloudwatch.metrics()) == sorted(f"good{number}" for number in range(1000))
    assert [cloudwatch.sum(f"good{number}") for number in range(0, 1000, 50)] == list(range(0, 1000, 50))
    assert lost == {"invalid": 100}
