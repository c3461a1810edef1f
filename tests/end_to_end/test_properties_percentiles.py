"""Random recordings through the real SDK have exact statistics, and percentiles accurate to within a bucket."""

import math
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics.export import ExponentialHistogramDataPoint, MetricExportResult, MetricsData

from otel_cloudwatch_flask.model.datum import Dimensions
from tests.support.fuzzing import effort
from tests.support.programs import CUMULATIVE, Program

PERCENTS = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9)

KINDS: Mapping[str, Callable[[random.Random], float]] = {
    "zeros": lambda _: 0.0,
    "narrow": lambda source: source.uniform(99.0, 101.0),
    "latencies": lambda source: source.lognormvariate(3.0, 1.0),
    "decades": lambda source: 10.0 ** source.uniform(-6.0, 6.0),
    "outliers": lambda source: source.choice([1e-9, 1e9, 50.0, 51.0]),
    "few values": lambda source: source.choice([0.0, 1.0, 2.0, 4.0, 0.1]),
}


class Recording(NamedTuple):
    """Samples of one kind with one set of attributes."""

    page: int
    region: int
    samples: Sequence[float]


ZEROS_AND_LATENCIES = [
    Recording(0, region, [KINDS[kind](random.Random(region)) * (1 + i / 1000) for i in range(1200)])
    for region, kind in enumerate(["zeros", "latencies", "narrow"])
]


@st.composite
def recordings(draw: st.DrawFn) -> Recording:
    """Draw a recording whose samples come from a seed, so that even large ones are drawn fast."""
    source = random.Random(draw(st.integers(0, 2**32)))
    sample = KINDS[draw(st.sampled_from(sorted(KINDS)))]
    size = draw(st.sampled_from([1, 2, 3, 10, 60, 300, 1200]))
    return Recording(draw(st.integers(0, 2)), draw(st.integers(0, 3)), [sample(source) for _ in range(size)])


def coarsest_scales(data: MetricsData) -> dict[int, int]:
    """Return the lowest scale of the points of each page. Points with only zeros have no scale."""
    scales: dict[int, int] = {}
    for point in data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points:
        assert isinstance(point, ExponentialHistogramDataPoint)
        if any(point.positive.bucket_counts):
            page = int(str((point.attributes or {})["page"]))
            scales[page] = min(scales.get(page, point.scale), point.scale)
    return scales


def nearest_rank(samples: Sequence[float], percent: float) -> float:
    """Return the exact percentile of ascending samples."""
    return samples[max(math.ceil(round(percent * len(samples), 6) / 100) - 1, 0)]


def assert_exact(
    program: Program, dimensions: dict[str, Any], samples: Sequence[float], *, is_cumulative: bool
) -> None:
    """Assert count and sum and, unless cumulative points may lack them, minimum and maximum."""
    assert program.cloudwatch.count("latency", dimensions) == len(samples)
    assert program.cloudwatch.sum("latency", dimensions) == pytest.approx(math.fsum(samples), rel=1e-9, abs=1e-12)
    if not is_cumulative:
        assert program.cloudwatch.minimum("latency", dimensions) == min(samples)
        assert program.cloudwatch.maximum("latency", dimensions) == max(samples)


def assert_within_a_bucket(program: Program, dimensions: dict[str, Any], samples: Sequence[float], scale: int) -> None:
    """Assert that each percentile is off by at most one bucket width at this scale."""
    base = 2.0**2.0**-scale * (1 + 1e-9)
    ascending = sorted(samples)
    for percent in PERCENTS:
        exact = nearest_rank(ascending, percent)
        published = program.cloudwatch.percentile("latency", percent, dimensions)
        assert exact / base <= published <= exact * base, (percent, exact, published, scale)


@given(
    rounds=st.lists(st.lists(recordings(), min_size=1, max_size=6), min_size=1, max_size=3),
    is_cumulative=st.booleans(),
    is_merged=st.booleans(),
    is_rolled_up=st.booleans(),
)
@example(rounds=[ZEROS_AND_LATENCIES], is_cumulative=False, is_merged=True, is_rolled_up=False)
@effort(60, fuzzed=10_000)
def test_percentiles(
    rounds: Sequence[Sequence[Recording]], *, is_cumulative: bool, is_merged: bool, is_rolled_up: bool
) -> None:
    """Count, sum, minimum and maximum of each series are exact, and percentiles are accurate to within a bucket."""
    rule = {"exclude": ["region"] if is_merged else [], "rollups": [["page"], []] if is_rolled_up else []}
    program = Program(temporality=CUMULATIVE if is_cumulative else None, rules=[rule])
    histogram = program.meter.create_histogram("latency")
    recorded: dict[Dimensions, list[float]] = defaultdict(list)
    scales: dict[int, int] = {}
    for events in rounds:
        for page, region, samples in events:
            paged: Dimensions = (("page", str(page)),)
            series: set[Dimensions] = {paged if is_merged else (*paged, ("region", str(region)))}
            series |= {paged, ()} if is_rolled_up else set()
            for each in series:
                recorded[each] += samples
            for sample in samples:
                histogram.record(sample, {"page": page, "region": region})
        data = program.collected()
        assert data is not None
        for page, scale in coarsest_scales(data).items():
            scales[page] = min(scales.get(page, scale), scale)
        assert program.exporter.export(data) is MetricExportResult.SUCCESS
    assert program.cloudwatch.validation_errors == []
    assert {metric.dimensions for metric in program.cloudwatch.metrics()} == set(recorded)
    for dimensions, samples in recorded.items():
        pages = [int(value) for name, value in dimensions if name == "page"] or scales.keys()
        scale = min((scales[page] for page in pages if page in scales), default=20)
        assert_exact(program, dict(dimensions), samples, is_cumulative=is_cumulative)
        assert_within_a_bucket(program, dict(dimensions), samples, scale)
    assert program.lost() == {}
