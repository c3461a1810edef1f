"""The fast path says what its plain twin says."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, ExponentialHistogramDataPoint, InMemoryMetricReader

from otel_cloudwatch_flask.aggregation import FreshScaleHistogramAggregation
from otel_cloudwatch_flask.distribution import Distribution, distribution
from otel_cloudwatch_flask.fast_distribution import fast_distribution
from otel_cloudwatch_flask.histogram import ExponentialHistogram, Extremes, filled

MAGNITUDES = st.one_of(
    st.just(0.0), st.floats(1e-3, 1e6), st.floats(99.0, 101.0), st.integers(0, 5).map(float), st.floats(1e-120, 1e-100)
)


def recorded(magnitudes: list[float], *, max_size: int = 147) -> ExponentialHistogram:
    """What the SDK makes of these samples."""
    reader = InMemoryMetricReader(
        preferred_temporality={Histogram: AggregationTemporality.DELTA},
        preferred_aggregation={Histogram: FreshScaleHistogramAggregation(max_size=max_size)},
    )
    instrument = MeterProvider([reader], shutdown_on_exit=False).get_meter("m").create_histogram("h")
    for magnitude in magnitudes:
        instrument.record(magnitude)
    data = reader.get_metrics_data()
    assert data is not None
    (point,) = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
    assert isinstance(point, ExponentialHistogramDataPoint)
    return ExponentialHistogram(
        point.count,
        point.sum,
        Extremes.recorded(point.min, point.max),
        point.scale,
        point.zero_count,
        positive=filled(point.positive.offset, point.positive.bucket_counts),
    )


def assert_same(fast: Distribution | None, plain: Distribution | None) -> None:
    """The same samples, but for rounding."""
    assert fast is not None
    assert plain is not None
    assert fast.counts == plain.counts
    assert fast.values == pytest.approx(plain.values, rel=1e-12, abs=0)
    assert (fast.values[0], fast.values[-1]) == (plain.values[0], plain.values[-1])


@given(st.lists(MAGNITUDES, min_size=4, max_size=60), st.lists(MAGNITUDES, max_size=30), st.sampled_from([1.0, 60.0]))
def test_the_same_values_and_counts(positive: list[float], negative: list[float], factor: float) -> None:
    """Whatever was recorded, of either sign and in whatever unit."""
    histogram = recorded(positive)
    if negative:
        histogram = histogram.plus(recorded(negative).mirrored())
    histogram = ExponentialHistogram(
        histogram.count,
        histogram.sum,
        histogram.extremes,
        histogram.scale,
        histogram.zero_count,
        positive=histogram.positive,
        negative=histogram.negative,
        factor=factor,
    )
    if len(histogram.positive) + len(histogram.negative) < 148:
        assert_same(fast_distribution(histogram), distribution(histogram))


@pytest.mark.parametrize(
    "histogram",
    [
        ExponentialHistogram(3, 6.0, Extremes.recorded(1.0, 3.0), 0, positive={-1: 1, 0: 1, 1: 1}),
        ExponentialHistogram(5, 6.0, Extremes.recorded(None, 3.0), 0, positive={0: 5}),
        ExponentialHistogram(5, 6.0, Extremes.recorded(1.0, math.nextafter(2.0**360, 1e300)), -10, positive={0: 5}),
        ExponentialHistogram(200, 1e6, Extremes.recorded(1.5, 1e9), 3, positive=dict.fromkeys(range(200), 1)),
    ],
    ids=["few samples", "no minimum", "too large", "many buckets"],
)
def test_what_is_not_common_is_left_to_the_twin(histogram: ExponentialHistogram) -> None:
    """The fast path takes only what it is made for."""
    assert fast_distribution(histogram) is None
