"""An accepted datum: the metric it belongs to, and its samples as CloudWatch adds them up."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from math import fsum
from typing import Any, TypeAlias

Dimensions: TypeAlias = tuple[tuple[str, str], ...]
"""Sorted pairs of name and value."""


@dataclass(frozen=True, slots=True)
class PublishedMetric:
    """One CloudWatch metric and a unit it was published in; ``dict(metric.dimensions)`` makes a mapping of the pairs.

    >>> print(PublishedMetric("Shop", "Orders", (("Region", "EU"),), "Count"))
    Shop: Orders {Region=EU} in Count
    """

    namespace: str
    name: str
    dimensions: Dimensions = ()
    unit: str = "None"

    def __str__(self) -> str:
        dimensions = ", ".join(f"{name}={value}" for name, value in self.dimensions)
        return f"{self.namespace}: {self.name} {{{dimensions}}} in {self.unit}"


@dataclass(frozen=True, slots=True)
class Statistics:
    """CloudWatch's statistic set: how many samples, their sum, the smallest and the largest."""

    sample_count: float
    total: float
    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True)
class AcceptedDatum:
    """A datum as it was sent, the metric it belongs to, its own time and that of its arrival, both Unix seconds."""

    metric: PublishedMetric
    datum: Mapping[str, Any]
    unix_time: float
    arrived_unix_time: float

    def samples(self) -> dict[float, float] | None:
        """Values with their counts; ``None`` for a statistic set, unless all its samples are the same."""
        if self.datum.get("Value") is not None:
            return {self.datum["Value"]: 1}
        values = self.datum.get("Values")
        if values is not None:
            return _added_up([(values, self.datum.get("Counts") or [1] * len(values))])
        statistics = self.statistics()
        if statistics.minimum == statistics.maximum:
            return {statistics.minimum: statistics.sample_count}
        return None

    def statistics(self) -> Statistics:
        """The datum's statistic set, sent as such or made of its values."""
        sent = self.datum.get("StatisticValues")
        if sent is not None:
            return Statistics(sent["SampleCount"], sent["Sum"], sent["Minimum"], sent["Maximum"])
        samples = self.samples() or {}
        total = fsum(value * count for value, count in samples.items())
        return Statistics(fsum(samples.values()), total, min(samples), max(samples))


def dimensions_of(dimensions: Mapping[str, object] | Iterable[Mapping[str, str]] | None) -> Dimensions:
    """Sort dimensions that come as a mapping, or as boto3's list of ``{"Name": ..., "Value": ...}``."""
    if isinstance(dimensions, Mapping):
        return tuple(sorted((name, str(value)) for name, value in dimensions.items()))
    return tuple(sorted((dimension["Name"], dimension["Value"]) for dimension in dimensions or ()))


def merged_statistics(datums: Iterable[AcceptedDatum]) -> Statistics:
    """Add statistics up as CloudWatch does; ``ValueError`` if there are none."""
    every = [datum.statistics() for datum in datums]
    return Statistics(
        fsum(statistics.sample_count for statistics in every),
        fsum(statistics.total for statistics in every),
        min(statistics.minimum for statistics in every),
        max(statistics.maximum for statistics in every),
    )


def merged_samples(datums: Iterable[AcceptedDatum]) -> dict[float, float] | None:
    """All samples; ``None`` if a statistic set with different samples is among them."""
    every = [datum.samples() for datum in datums]
    known = [samples for samples in every if samples is not None]
    if len(known) < len(every):
        return None
    return _added_up((samples, samples.values()) for samples in known)


def nearest_rank(samples: Mapping[float, float], percent: float) -> float:
    """The smallest value that at least ``percent`` % of the samples do not exceed; 0 is the minimum.

    >>> nearest_rank({10: 1, 20: 998, 30: 1}, 99.9)
    20
    """
    if not 0 <= percent <= 100:
        raise ValueError(f"There is no percentile {percent}; write a number from 0 to 100.")
    # Fractions: 99.9 / 100 * 1000 is more than 999 as a double, and would skip a rank.
    wanted = Fraction(str(percent)) / 100 * sum(map(Fraction, samples.values()))
    values = sorted(samples)
    reached = accumulate(Fraction(samples[value]) for value in values)
    return next(value for value, count in zip(values, reached, strict=True) if count >= wanted)


def _added_up(samples: Iterable[tuple[Iterable[float], Iterable[float]]]) -> dict[float, float]:
    counts: Counter[float] = Counter()
    for values, value_counts in samples:
        for value, count in zip(values, value_counts, strict=True):
            counts[value] += count  # type: ignore[assignment]  # CloudWatch's counts are doubles
    return dict(counts)
