"""CloudWatch's statistics match the recorded samples: the guarantees of the benchmark, with fewer samples."""

import math
from functools import cache

import pytest

from benchmarks.fidelity import (
    AGGREGATIONS,
    DISTRIBUTIONS,
    LOGNORMALS,
    Bench,
    Outcome,
    lognormal_outcomes,
    mean_errors,
    outcomes_of,
)

RUNS = {10: 40, 100: 20, 1000: 6}
"""The number of seeded runs for each number of samples."""

CELLS = [(name, size, aggregation) for name in DISTRIBUTIONS for size in RUNS for aggregation in AGGREGATIONS]


@cache
def outcomes(name: str, size: int) -> dict[str, list[Outcome]]:
    """Return the runs of one distribution and size, by aggregation."""
    return outcomes_of(name, size, RUNS[size])


class TestEveryDistribution:
    """Lognormal, Pareto, bimodal, uniform and constant distributions, and one with samples of both signs."""

    @pytest.mark.parametrize(("name", "size", "aggregation"), CELLS)
    def test_statistics_are_exact(self, name: str, size: int, aggregation: str) -> None:
        """SampleCount, Minimum and Maximum are exact; Sum is correct to nine digits."""
        runs = outcomes(name, size)[aggregation]
        assert all(each.has_exact_extremes_and_count for each in runs)
        assert max(each.sum_error for each in runs) <= 1e-9

    @pytest.mark.parametrize(("name", "size", "aggregation"), CELLS)
    def test_percentiles_are_within_a_bucket(self, name: str, size: int, aggregation: str) -> None:
        """Each percentile is off by at most the width of the bucket that contains the exact percentile."""
        assert max(each.buckets_off for each in outcomes(name, size)[aggregation]) <= 1

    @pytest.mark.parametrize(("name", "size", "aggregation"), CELLS)
    def test_never_worse_than_midpoints(self, name: str, size: int, aggregation: str) -> None:
        """The mean error over runs and percentiles is never larger than that of bucket midpoints."""
        ours, midpoints = mean_errors(outcomes(name, size)[aggregation])
        assert ours <= midpoints


def test_a_third_of_the_error_of_midpoints() -> None:
    """With 1,000 lognormal samples in default buckets, the error is at most a third of that of midpoints."""
    runs = [outcome for mu, sigma in LOGNORMALS for outcome in lognormal_outcomes(mu, sigma, 60)]
    ours, midpoints = mean_errors(runs, [50.0, 90.0, 99.0])
    assert ours <= midpoints / 3


def test_a_single_sample() -> None:
    """One sample is exact in both aggregations, at every percentile."""
    for outcome in Bench().outcomes([math.pi]).values():
        assert set(outcome.ours.values()) == {0.0}
