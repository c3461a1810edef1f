"""How true percentiles are: those of what was sent, beside the exact ones and those of bucket midpoints.

Samples are recorded through the real SDK, collected as our reader collects, and published to a strict CloudWatch in
memory, which is then asked for the percentiles as CloudWatch defines them (nearest rank).

Beside ours stand the midpoints that other exporters send, made of the very same data points. The ADOT exporters send
the middle of each bucket of an exponential histogram with its count, and the middle is all that linear code has for an
explicit one. A bucket that is open at one end has no middle: it ends at the recorded minimum or maximum.
"""

import math
import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from rich.console import Group
from rich.table import Table

from otel_cloudwatch_flask import CloudWatchMetricExporter
from otel_cloudwatch_flask.distribution import MAX_BUCKETS
from otel_cloudwatch_flask.exporter import TEMPORALITY
from otel_cloudwatch_flask.facade_scope import NEGATIVE_KEY
from otel_cloudwatch_flask.known_series import FacadeSeries
from otel_cloudwatch_flask.recorder import Recorder
from otel_cloudwatch_flask.sdk_internals import FreshScaleHistogramAggregation
from otel_cloudwatch_flask.testing import FakeCloudWatch

PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)
AGGREGATIONS: Final = ("explicit", "exponential")

Samples = list[float]
Distribution = Callable[[random.Random], float]


def _bimodal(source: random.Random) -> float:
    """Answers from a cache, and answers from a database."""
    return source.lognormvariate(math.log(12), 0.2) if source.random() < 0.7 else source.lognormvariate(6, 0.25)


def _containing_negatives(source: random.Random) -> float:
    """Corrections in both directions, more of them downwards."""
    return math.copysign(source.lognormvariate(3, 0.8), source.random() - 0.6)


DISTRIBUTIONS: Final[Mapping[str, Distribution]] = {
    "lognormal": lambda source: source.lognormvariate(math.log(80), 0.7),
    "pareto": lambda source: 20 * source.paretovariate(1.5),
    "bimodal": _bimodal,
    "uniform": lambda source: source.uniform(0, 1000),
    "constant": lambda _: 42.0,
    "negatives": _containing_negatives,
}

LOGNORMALS: Final = ((math.log(80), 0.7), (math.log(25), 0.5), (math.log(300), 1.0))
"""Latencies in milliseconds, as mu and sigma: an ordinary service, a fast one and a slow one."""

_RUNS: Final = {10: 200, 100: 200, 1000: 60, 10_000: 12, 100_000: 4}
_RUNS_IN_SHORT: Final = {10: 40, 100: 20, 1000: 8}
_LOGNORMAL_RUNS: Final = 400
_LOGNORMAL_RUNS_IN_SHORT: Final = 60


class Bucket(NamedTuple):
    """What a data point says: so many samples between two edges."""

    lower: float
    upper: float
    samples: int

    @property
    def midpoint(self) -> float:
        """What other exporters send."""
        return (self.lower + self.upper) / 2


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run with one aggregation: relative errors by percentile, and what must hold beside."""

    ours: Mapping[float, float]
    midpoints: Mapping[float, float]
    buckets_off: float
    """The largest distance of ours from the exact percentile, in widths of the bucket that holds the exact one."""
    has_exact_extremes_and_count: bool
    sum_error: float
    """Relative to the sum of the magnitudes."""


class Bench:
    """A provider with a histogram of each aggregation, and a CloudWatch that takes what it collects.

    Recording goes the way of ``add_metric``, because OpenTelemetry's own histograms drop negative values.
    """

    def __init__(self) -> None:
        self._cloudwatch = FakeCloudWatch()
        self._exporter = CloudWatchMetricExporter("Benchmark", client=self._cloudwatch)
        self._exporter.adopt("benchmark")
        self._reader = InMemoryMetricReader(
            preferred_temporality=TEMPORALITY,
            preferred_aggregation={Histogram: FreshScaleHistogramAggregation(max_size=MAX_BUCKETS - 1)},
        )
        view = View(instrument_name="explicit", aggregation=ExplicitBucketHistogramAggregation())
        provider = MeterProvider([self._reader], shutdown_on_exit=False, views=[view])
        self._recorder = Recorder(provider, "benchmark", {}, lost=_raise)

    def outcomes(self, samples: Samples, aggregations: Sequence[str] = AGGREGATIONS) -> dict[str, Outcome]:
        """Record, publish and judge samples with each aggregation."""
        for name in aggregations:
            series = FacadeSeries(name, "None", {})
            for sample in samples:
                self._recorder.record(series, sample)
        self._cloudwatch.clear()
        data = self._reader.get_metrics_data()
        if data is None:
            raise RuntimeError("nothing was collected")
        self._exporter.export(data)
        buckets = _buckets_of(data)
        return {name: self._judged(name, sorted(samples), buckets[name]) for name in aggregations}

    def _judged(self, name: str, samples: Samples, buckets: list[Bucket]) -> Outcome:
        cloudwatch = self._cloudwatch
        exact = {percent: _nearest_rank(samples, percent) for percent in PERCENTILES}
        sent = {percent: cloudwatch.percentile(name, percent) for percent in PERCENTILES}
        midpoints = [bucket.midpoint for bucket in buckets for _ in range(bucket.samples)]
        total = math.fsum(samples)
        return Outcome(
            ours={percent: _relative_error(sent[percent], exact[percent]) for percent in PERCENTILES},
            midpoints={
                percent: _relative_error(_nearest_rank(midpoints, percent), exact[percent]) for percent in PERCENTILES
            },
            buckets_off=max(_widths_between(sent[percent], exact[percent], buckets) for percent in PERCENTILES),
            has_exact_extremes_and_count=(
                cloudwatch.count(name) == len(samples)
                and cloudwatch.minimum(name) == samples[0]
                and cloudwatch.maximum(name) == samples[-1]
            ),
            sum_error=abs(cloudwatch.sum(name) - total) / math.fsum(map(abs, samples)),
        )


def run(*, short: bool) -> Group:
    """Every distribution, size and aggregation, and the figure for the SDK's default buckets."""
    runs = _RUNS_IN_SHORT if short else _RUNS
    return Group(_every_distribution(runs), _lognormals(_LOGNORMAL_RUNS_IN_SHORT if short else _LOGNORMAL_RUNS))


def outcomes_of(name: str, size: int, runs: int) -> dict[str, list[Outcome]]:
    """Seeded runs of one distribution and size, by aggregation."""
    bench = Bench()
    by_run = []
    for seed in range(runs):
        source = random.Random(f"{name} {size} {seed}")
        by_run.append(bench.outcomes([DISTRIBUTIONS[name](source) for _ in range(size)]))
    return {aggregation: [each[aggregation] for each in by_run] for aggregation in AGGREGATIONS}


def lognormal_outcomes(mu: float, sigma: float, runs: int) -> list[Outcome]:
    """Seeded runs of 1,000 lognormal samples in the SDK's default buckets."""
    bench = Bench()
    sources = [random.Random(f"{mu} {sigma} {seed}") for seed in range(runs)]
    return [
        bench.outcomes([source.lognormvariate(mu, sigma) for _ in range(1000)], ["explicit"])["explicit"]
        for source in sources
    ]


def mean_errors(outcomes: Sequence[Outcome], percentiles: Sequence[float] = PERCENTILES) -> tuple[float, float]:
    """The mean relative error over runs and percentiles: of ours and of midpoints."""
    return (
        statistics.fmean(each.ours[percent] for each in outcomes for percent in percentiles),
        statistics.fmean(each.midpoints[percent] for each in outcomes for percent in percentiles),
    )


def _every_distribution(runs: Mapping[int, int]) -> Table:
    table = Table(title="Relative error of p50, p90, p99, p99.9 in what is sent, beside bucket midpoints")
    for heading in ("distribution", "samples", "runs", "aggregation"):
        table.add_column(heading)
    for heading in ("ours mean", "midpoints", "ours worst", "midpoints", "worse?", "buckets off", "sum off", "exact"):
        table.add_column(heading, justify="right")
    for name in DISTRIBUTIONS:
        for size, number in runs.items():
            for aggregation, outcomes in outcomes_of(name, size, number).items():
                table.add_row(name, f"{size:,}", str(number), aggregation, *_figures(outcomes))
        table.add_section()
    return table


def _figures(outcomes: Sequence[Outcome]) -> Iterator[str]:
    ours, midpoints = mean_errors(outcomes)
    yield from (f"{ours:.3%}", f"{midpoints:.3%}")
    yield f"{max(max(each.ours.values()) for each in outcomes):.2%}"
    yield f"{max(max(each.midpoints.values()) for each in outcomes):.2%}"
    yield "yes" if ours > midpoints else "no"
    yield f"{max(each.buckets_off for each in outcomes):.2f}"
    yield f"{max(each.sum_error for each in outcomes):.0e}"
    yield "yes" if all(each.has_exact_extremes_and_count for each in outcomes) else "NO"


def _lognormals(runs: int) -> Table:
    table = Table(title=f"The SDK's default buckets, 1,000 lognormal samples: mean relative error, {runs} runs each")
    for heading in ("median ms", "sigma", "percentile", "ours", "midpoints", "ours / midpoints"):
        table.add_column(heading, justify="right")
    everything: list[Outcome] = []
    for mu, sigma in LOGNORMALS:
        outcomes = lognormal_outcomes(mu, sigma, runs)
        everything += outcomes
        for percent in (50.0, 90.0, 99.0):
            table.add_row(f"{math.exp(mu):.0f}", f"{sigma}", f"p{percent:g}", *_ratio(outcomes, [percent]))
        table.add_row("", "", "all three", *_ratio(outcomes, [50.0, 90.0, 99.0]))
        table.add_section()
    table.add_row("", "", "everything", *_ratio(everything, [50.0, 90.0, 99.0]))
    return table


def _ratio(outcomes: Sequence[Outcome], percentiles: Sequence[float]) -> tuple[str, str, str]:
    ours, midpoints = mean_errors(outcomes, percentiles)
    return f"{ours:.2%}", f"{midpoints:.2%}", f"{ours / midpoints:.2f}"


def _buckets_of(data: MetricsData) -> dict[str, list[Bucket]]:
    """The filled buckets of each metric, in order, the negative samples where they belong."""
    found: dict[str, list[Bucket]] = {}
    for scope_metrics in data.resource_metrics[0].scope_metrics:
        for metric in scope_metrics.metrics:
            for point in metric.data.data_points:
                buckets = _edges(point)
                if NEGATIVE_KEY in (point.attributes or {}):
                    buckets = [Bucket(-upper, -lower, count) for lower, upper, count in buckets]
                found.setdefault(metric.name, []).extend(buckets)
    return {name: sorted(buckets) for name, buckets in found.items()}


def _edges(point: Any) -> list[Bucket]:
    if not hasattr(point, "scale"):
        bounds = (point.min, *point.explicit_bounds, point.max)
        counts = enumerate(point.bucket_counts)
        return [Bucket(bounds[i], bounds[i + 1], count) for i, count in counts if count]
    base = 2.0 ** (2.0**-point.scale)
    zero = [Bucket(0.0, 0.0, point.zero_count)] if point.zero_count else []
    indices = enumerate(point.positive.bucket_counts, point.positive.offset)
    return zero + [Bucket(base**i, base ** (i + 1), count) for i, count in indices if count]


def _nearest_rank(ordered: Sequence[float], percent: float) -> float:
    # In tenths of a percent, which are whole numbers: 99.9 / 100 * 1000 is more than 999 as a double.
    return ordered[max(0, -(-round(percent * 10) * len(ordered) // 1000) - 1)]


def _relative_error(estimate: float, exact: float) -> float:
    return abs(estimate - exact) / abs(exact)


def _widths_between(estimate: float, exact: float, buckets: Sequence[Bucket]) -> float:
    holding = [upper - lower for lower, upper, _ in buckets if lower <= exact <= upper]
    width = max(holding, default=0.0)
    distance = abs(estimate - exact)
    return distance / width if width else float(distance > 0)


def _raise(reason: object) -> None:
    raise RuntimeError(f"the SDK did not take a sample: {reason}")
