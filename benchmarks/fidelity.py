"""The error of the percentiles that CloudWatch computes from published values, compared with exact percentiles.

Samples are recorded through the real SDK, collected as this package's reader does, and published to a strict fake
CloudWatch, which computes percentiles as CloudWatch defines them (nearest rank). They are compared with the bucket
midpoints that other exporters send, computed from the same data points. A bucket without a lower or upper bound ends
at the recorded minimum or maximum.

``python -m benchmarks.fidelity --against DIR`` compares the package with that of another checkout.
"""

import argparse
import json
import math
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from flask import Flask
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader, MetricReader, MetricsData
from opentelemetry.sdk.metrics.view import (
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    View,
)
from rich.console import Console
from rich.table import Table

from benchmarks.harness import nearest_rank
from benchmarks.measurements import collected, our_reader
from benchmarks.report import Report, table
from otel_cloudwatch_flask import CloudWatchMetricExporter, CloudWatchMetricReader, CloudWatchMetricsReporter
from otel_cloudwatch_flask.testing import FakeCloudWatch

ROOT: Final = Path(__file__).parents[1]
PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)
AGGREGATIONS: Final = ("explicit", "exponential")

Samples = list[float]
Distribution = Callable[[random.Random], float]


def _bimodal(source: random.Random) -> float:
    """Return the latency of a cache hit or of a database query."""
    return source.lognormvariate(math.log(12), 0.2) if source.random() < 0.7 else source.lognormvariate(6, 0.25)


def _containing_negatives(source: random.Random) -> float:
    """Return a positive or negative correction; most are negative."""
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
"""Latencies in milliseconds, as mu and sigma, of an average, a fast and a slow service."""

_RUNS: Final = {10: 200, 100: 200, 1000: 60, 10_000: 12, 100_000: 4}
_RUNS_IN_SHORT: Final = {10: 40, 100: 20, 1000: 8}
_LOGNORMAL_RUNS: Final = 400
_LOGNORMAL_RUNS_IN_SHORT: Final = 60

POSITIVE: Final[Mapping[str, Distribution]] = {
    **{name: each for name, each in DISTRIBUTIONS.items() if name != "negatives"},
    "exponential": lambda source: source.expovariate(1 / 120),
    "outliers": lambda source: source.lognormvariate(3, 0.4) * (50 if source.random() < 0.02 else 1),
}
"""The distributions for ``--against``, which any OpenTelemetry exporter can publish."""

_RUNS_AGAINST: Final = {10: 20, 100: 20, 1000: 20, 10_000: 6, 100_000: 1}
_NEGLIGIBLE: Final = 0.001
"""Differences below this are ignored, because errors are printed in tenths of a percent."""

_FLUSH_TIMEOUT_SECONDS: Final = 60.0
_NEGATIVE_KEY: Final = "aws.cloudwatch.negative"
"""The attribute of negative samples, which are recorded as absolute values."""


class Bucket(NamedTuple):
    """A bucket of a data point."""

    lower: float
    upper: float
    samples: int

    @property
    def midpoint(self) -> float:
        """Return the midpoint, which other exporters send."""
        return (self.lower + self.upper) / 2


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run with one aggregation: relative errors by percentile, and whether the other statistics are correct."""

    ours: Mapping[float, float]
    midpoints: Mapping[float, float]
    buckets_off: float
    """The largest difference between a published and an exact percentile, in widths of the exact one's bucket."""
    has_exact_extremes_and_count: bool
    sum_error: float
    """The error of the sum, relative to the sum of magnitudes."""


class Bench:
    """A provider with a histogram of each aggregation, and a fake CloudWatch that receives its metrics.

    Samples are recorded with ``add_metric``, because OpenTelemetry's histograms drop negative values.
    """

    def __init__(self) -> None:
        self._cloudwatch = FakeCloudWatch()
        self._reader = our_reader()
        view = View(instrument_name="explicit", aggregation=ExplicitBucketHistogramAggregation())
        provider = MeterProvider([self._reader], shutdown_on_exit=False, views=[view])
        self._reporter = CloudWatchMetricsReporter(
            Flask("benchmark"), "Benchmark", self._cloudwatch, meter_provider=provider, flush="interval", strict=True
        )

    def outcomes(self, samples: Samples, aggregations: Sequence[str] = AGGREGATIONS) -> dict[str, Outcome]:
        """Record and publish samples with each aggregation, and return the outcomes."""
        for name in aggregations:
            for sample in samples:
                self._reporter.add_metric(name, sample)
        self._cloudwatch.clear()
        if not self._reporter.flush(_FLUSH_TIMEOUT_SECONDS):
            raise RuntimeError("the samples were not published")
        buckets = _buckets_of(collected(self._reader))
        return {name: self._judged(name, sorted(samples), buckets[name]) for name in aggregations}

    def _judged(self, name: str, samples: Samples, buckets: list[Bucket]) -> Outcome:
        cloudwatch = self._cloudwatch
        exact = {percent: nearest_rank(samples, percent) for percent in PERCENTILES}
        sent = {percent: cloudwatch.percentile(name, percent) for percent in PERCENTILES}
        midpoints = [bucket.midpoint for bucket in buckets for _ in range(bucket.samples)]
        total = math.fsum(samples)
        return Outcome(
            ours={percent: _relative_error(sent[percent], exact[percent]) for percent in PERCENTILES},
            midpoints={
                percent: _relative_error(nearest_rank(midpoints, percent), exact[percent]) for percent in PERCENTILES
            },
            buckets_off=max(_widths_between(sent[percent], exact[percent], buckets) for percent in PERCENTILES),
            has_exact_extremes_and_count=(
                cloudwatch.count(name) == len(samples)
                and cloudwatch.minimum(name) == samples[0]
                and cloudwatch.maximum(name) == samples[-1]
            ),
            sum_error=abs(cloudwatch.sum(name) - total) / math.fsum(map(abs, samples)),
        )


def run(*, short: bool) -> Report:
    """Measure all distributions, sizes and aggregations, and lognormal samples in the SDK's default buckets."""
    runs = _RUNS_IN_SHORT if short else _RUNS
    return Report([_every_distribution(runs), _lognormals(_LOGNORMAL_RUNS_IN_SHORT if short else _LOGNORMAL_RUNS)])


def outcomes_of(name: str, size: int, runs: int) -> dict[str, list[Outcome]]:
    """Return the outcomes of seeded runs of one distribution and size, by aggregation."""
    bench = Bench()
    by_run = []
    for seed in range(runs):
        source = random.Random(f"{name} {size} {seed}")
        by_run.append(bench.outcomes([DISTRIBUTIONS[name](source) for _ in range(size)]))
    return {aggregation: [each[aggregation] for each in by_run] for aggregation in AGGREGATIONS}


def lognormal_outcomes(mu: float, sigma: float, runs: int) -> list[Outcome]:
    """Return the outcomes of seeded runs of 1,000 lognormal samples in the SDK's default buckets."""
    bench = Bench()
    sources = [random.Random(f"{mu} {sigma} {seed}") for seed in range(runs)]
    return [
        bench.outcomes([source.lognormvariate(mu, sigma) for _ in range(1000)], ["explicit"])["explicit"]
        for source in sources
    ]


def mean_errors(outcomes: Sequence[Outcome], percentiles: Sequence[float] = PERCENTILES) -> tuple[float, float]:
    """Return the mean relative errors over runs and percentiles, of this package and of midpoints."""
    return (
        statistics.fmean(each.ours[percent] for each in outcomes for percent in percentiles),
        statistics.fmean(each.midpoints[percent] for each in outcomes for percent in percentiles),
    )


def _every_distribution(runs: Mapping[int, int]) -> Table:
    made = table(
        "Relative error of p50, p90, p99, p99.9: as published, and with bucket midpoints",
        (
            *("", "samples", "runs", "aggregation", "ours mean", "midpoints", "ours worst", "midpoints"),
            *("worse?", "buckets off", "sum off", "exact"),
        ),
    )
    for name in DISTRIBUTIONS:
        for size, number in runs.items():
            for aggregation, outcomes in outcomes_of(name, size, number).items():
                made.add_row(name, f"{size:,}", str(number), aggregation, *_figures(outcomes))
        made.add_section()
    return made


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
    made = table(
        f"The SDK's default buckets, 1,000 lognormal samples: mean relative error, {runs} runs each",
        ("median ms", "sigma", "percentile", "ours", "midpoints", "ours / midpoints"),
    )
    everything: list[Outcome] = []
    for mu, sigma in LOGNORMALS:
        outcomes = lognormal_outcomes(mu, sigma, runs)
        everything += outcomes
        for percent in (50.0, 90.0, 99.0):
            made.add_row(f"{math.exp(mu):.0f}", f"{sigma}", f"p{percent:g}", *_ratio(outcomes, [percent]))
        made.add_row("", "", "all three", *_ratio(outcomes, [50.0, 90.0, 99.0]))
        made.add_section()
    made.add_row("", "", "everything", *_ratio(everything, [50.0, 90.0, 99.0]))
    return made


def _ratio(outcomes: Sequence[Outcome], percentiles: Sequence[float]) -> tuple[str, str, str]:
    ours, midpoints = mean_errors(outcomes, percentiles)
    return f"{ours:.2%}", f"{midpoints:.2%}", f"{ours / midpoints:.2f}"


def _buckets_of(data: MetricsData) -> dict[str, list[Bucket]]:
    """Return the non-empty buckets of each metric in ascending order, including those of negative samples."""
    found: dict[str, list[Bucket]] = {}
    for scope_metrics in data.resource_metrics[0].scope_metrics:
        for metric in scope_metrics.metrics:
            for point in metric.data.data_points:
                buckets = _edges(point)
                if _NEGATIVE_KEY in (point.attributes or {}):
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


def _relative_error(estimate: float, exact: float) -> float:
    return abs(estimate - exact) / abs(exact)


def _widths_between(estimate: float, exact: float, buckets: Sequence[Bucket]) -> float:
    holding = [upper - lower for lower, upper, _ in buckets if lower <= exact <= upper]
    width = max(holding, default=0.0)
    distance = abs(estimate - exact)
    return distance / width if width else float(distance > 0)


Errors = Mapping[float, Sequence[float]]
"""The relative errors of each percentile, over all runs."""


def errors_of(percentiles_of: Callable[[Samples], Sequence[float]]) -> Errors:
    """Return the errors of a function's percentiles for seeded samples."""
    errors: dict[float, list[float]] = {percent: [] for percent in PERCENTILES}
    for name, draw in POSITIVE.items():
        for size, runs in _RUNS_AGAINST.items():
            for seed in range(runs):
                source = random.Random(f"{name} {size} {seed}")
                samples = [draw(source) for _ in range(size)]
                estimates = percentiles_of(samples)
                samples.sort()
                for percent, estimate in zip(PERCENTILES, estimates, strict=True):
                    errors[percent].append(_relative_error(estimate, nearest_rank(samples, percent)))
    return errors


def published_percentiles(samples: Samples) -> list[float]:
    """Publish samples with this package, and return the percentiles that CloudWatch computes."""
    cloudwatch = FakeCloudWatch()
    reader = CloudWatchMetricReader(CloudWatchMetricExporter("Benchmark", client=cloudwatch))
    _record(samples, reader)
    reader.flush(_FLUSH_TIMEOUT_SECONDS)
    reader.shutdown()
    return [cloudwatch.percentile("latency", percent) for percent in PERCENTILES]


def otlp_percentiles(samples: Samples) -> list[float]:
    """Return the percentiles of an exponential histogram as OTLP sends it, from the midpoints of its buckets."""
    reader = InMemoryMetricReader(
        preferred_temporality={Histogram: AggregationTemporality.DELTA},
        preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation()},
    )
    _record(samples, reader)
    buckets = _buckets_of(collected(reader))["latency"]
    midpoints = [bucket.midpoint for bucket in buckets for _ in range(bucket.samples)]
    return [nearest_rank(midpoints, percent) for percent in PERCENTILES]


def _record(samples: Samples, reader: MetricReader) -> None:
    histogram = MeterProvider([reader], shutdown_on_exit=False).get_meter("benchmark").create_histogram("latency")
    for sample in samples:
        histogram.record(sample)


_IN_CHECKOUT: Final = """
import json, sys
import benchmarks  # of this checkout; the package is imported from the other one
sys.path.insert(0, sys.argv[1])
from benchmarks import fidelity
json.dump(list(fidelity.errors_of(fidelity.published_percentiles).items()), sys.stdout)
"""


def _errors_in(checkout: Path) -> Errors:
    command = [sys.executable, "-c", _IN_CHECKOUT, str(checkout)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603 - our own code
    return dict(json.loads(done.stdout))


def comparison(checkout: Path) -> Table:
    """Return a table that compares this checkout with another one, and with OTLP's exponential histograms."""
    ours, theirs, otlp = _errors_in(ROOT), _errors_in(checkout), errors_of(otlp_percentiles)
    made = table(
        "Relative error of percentiles over seven distributions of 10 to 100,000 samples: median / worst",
        ("", "this checkout", str(checkout), "OTLP, exponential", "this checkout is"),
    )
    for percent in PERCENTILES:
        each = (ours[percent], theirs[percent], otlp[percent])
        cells = (f"{statistics.median(errors):.1%} / {max(errors):.1%}" for errors in each)
        made.add_row(f"p{percent:g}", *cells, "no worse" if _is_no_worse(*each[:2]) else "WORSE")
    return made


def _is_no_worse(errors: Sequence[float], others: Sequence[float]) -> bool:
    return (
        statistics.median(errors) <= statistics.median(others) + _NEGLIGIBLE
        and max(errors) <= max(others) + _NEGLIGIBLE
    )


def main() -> None:
    """Print the comparison of two checkouts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fidelity", description=main.__doc__)
    parser.add_argument("--against", type=Path, metavar="DIR", required=True, help="the root of another checkout")
    Console(width=140).print(comparison(parser.parse_args().against.resolve()))


if __name__ == "__main__":
    main()
