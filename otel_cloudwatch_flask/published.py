"""What was published, and the questions that tests and CloudWatch's own clients ask about it."""

import copy
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from math import fsum
from typing import Any, TypeAlias

from otel_cloudwatch_flask.validation import datums_of, unix_time

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


class PublishedMetrics:
    """Everything that was accepted, and look-ups by name and dimensions; safe to use from several threads.

    A look-up takes the metric's name and, in any of these ways, its dimensions:

    * none at all: all series of that name together;
    * ``dimensions={}``: the one series without dimensions;
    * ``dimensions={"Page": "Index"}``, or ``Page="Index"``: the series with exactly these.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: list[Mapping[str, Any]] = []
        self._accepted: list[AcceptedDatum] = []

    @property
    def requests(self) -> list[Mapping[str, Any]]:
        """The accepted requests, as they were sent."""
        with self._lock:
            return list(self._requests)

    @property
    def accepted(self) -> list[AcceptedDatum]:
        """The accepted datums with their metric and times."""
        with self._lock:
            return list(self._accepted)

    @property
    def datums(self) -> list[Mapping[str, Any]]:
        """The accepted datums, as they were sent."""
        return [accepted.datum for accepted in self.accepted]

    def store(self, request: Mapping[str, Any], *, now: float) -> int:
        """Keep a request that was found acceptable, and say how many datums it has."""
        request = copy.deepcopy(request)
        datums = list(_accepted_datums(request, now))
        with self._lock:
            self._requests.append(request)
            self._accepted += datums
        return len(datums)

    def clear(self) -> None:
        """Forget what was published."""
        with self._lock:
            self._requests.clear()
            self._accepted.clear()

    def metrics(self) -> list[PublishedMetric]:
        """The distinct CloudWatch metrics, in the order in which they first came."""
        return list(dict.fromkeys(accepted.metric for accepted in self.accepted))

    def sum(
        self,
        name: str,
        /,
        dimensions: Mapping[str, object] | None = None,
        *,
        namespace: str | None = None,
        **dimension: object,
    ) -> float:
        """Add up all samples; 0 for what was never published."""
        datums = self._find(name, dimensions, namespace, dimension)
        return merged_statistics(datums).total if datums else 0

    def count(
        self,
        name: str,
        /,
        dimensions: Mapping[str, object] | None = None,
        *,
        namespace: str | None = None,
        **dimension: object,
    ) -> float:
        """How many samples there are (CloudWatch's SampleCount); 0 for what was never published."""
        datums = self._find(name, dimensions, namespace, dimension)
        return merged_statistics(datums).sample_count if datums else 0

    def minimum(
        self,
        name: str,
        /,
        dimensions: Mapping[str, object] | None = None,
        *,
        namespace: str | None = None,
        **dimension: object,
    ) -> float:
        """The smallest sample; ``LookupError`` if there is none."""
        return merged_statistics(self._existing(name, dimensions, namespace, dimension)).minimum

    def maximum(
        self,
        name: str,
        /,
        dimensions: Mapping[str, object] | None = None,
        *,
        namespace: str | None = None,
        **dimension: object,
    ) -> float:
        """The largest sample; ``LookupError`` if there is none."""
        return merged_statistics(self._existing(name, dimensions, namespace, dimension)).maximum

    def percentile(
        self,
        name: str,
        percent: float,
        /,
        dimensions: Mapping[str, object] | None = None,
        *,
        namespace: str | None = None,
        **dimension: object,
    ) -> float:
        """The nearest-rank percentile, ``percent`` from 0 to 100; ``LookupError`` if there are no samples.

        CloudWatch has no percentiles of statistic sets, unless all their samples are the same.
        """
        samples = merged_samples(self._existing(name, dimensions, namespace, dimension))
        if samples is None:
            raise LookupError(f"{name} was published as statistic sets, of which CloudWatch has no percentiles.")
        return nearest_rank(samples, percent)

    def values(
        self,
        name: str,
        /,
        dimensions: Mapping[str, object] | None = None,
        *,
        namespace: str | None = None,
        **dimension: object,
    ) -> dict[float, float]:
        """Each sampled value with its count, smallest first; empty for what was never published.

        Of a statistic set CloudWatch knows no values: it has a place here only if all its samples are the same.
        """
        datums = self._find(name, dimensions, namespace, dimension)
        samples = merged_samples(datum for datum in datums if datum.samples() is not None)
        return dict(sorted((samples or {}).items()))

    def _find(
        self,
        name: str,
        dimensions: Mapping[str, object] | None,
        namespace: str | None,
        dimension: Mapping[str, object],
    ) -> list[AcceptedDatum]:
        any_dimensions = dimensions is None and not dimension
        wanted = dimensions_of({**(dimensions or {}), **dimension})
        return [
            accepted
            for accepted in self.accepted
            if accepted.metric.name == name
            and namespace in (None, accepted.metric.namespace)
            and (any_dimensions or accepted.metric.dimensions == wanted)
        ]

    def _existing(
        self,
        name: str,
        dimensions: Mapping[str, object] | None,
        namespace: str | None,
        dimension: Mapping[str, object],
    ) -> list[AcceptedDatum]:
        datums = self._find(name, dimensions, namespace, dimension)
        if not datums:
            published = "\n  ".join(map(str, self.metrics())) or "nothing"
            asked = {**(dimensions or {}), **dimension}
            raise LookupError(f"{name} {asked or ''} was not published. What was:\n  {published}")
        return datums


def _accepted_datums(request: Mapping[str, Any], now: float) -> Iterator[AcceptedDatum]:
    for _, datum in datums_of(request):
        metric = PublishedMetric(
            request["Namespace"],
            datum["MetricName"],
            dimensions_of(datum.get("Dimensions")),
            datum.get("Unit") or "None",
        )
        moment = unix_time(datum.get("Timestamp"))
        yield AcceptedDatum(metric, datum, now if moment is None else moment, now)
