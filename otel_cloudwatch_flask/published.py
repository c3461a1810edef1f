"""What was published, and the questions that tests and CloudWatch's own clients ask about it."""

import copy
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from otel_cloudwatch_flask.accepted_datum import (
    AcceptedDatum,
    PublishedMetric,
    Statistics,
    dimensions_of,
    merged_samples,
    merged_statistics,
    nearest_rank,
)
from otel_cloudwatch_flask.published_listing import listing
from otel_cloudwatch_flask.validation import datums_of, unix_time


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
            raise LookupError(
                f"{name} was published as statistic sets, of which CloudWatch has no percentiles; publish its values."
            )
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

    def assert_published(
        self,
        name: str,
        /,
        dimensions: Mapping[str, object] | None = None,
        *,
        namespace: str | None = None,
        sum: object = None,  # noqa: A002 - CloudWatch's name of it
        count: object = None,
        minimum: object = None,
        maximum: object = None,
        **dimension: object,
    ) -> None:
        """Raise an ``AssertionError`` that lists what was published, unless the metric was, with these statistics.

        A statistic may be anything that a number can be compared with: ``sum=pytest.approx(0.3)``.
        """
        datums = self._find(name, dimensions, namespace, dimension)
        problem = "was not published" if not datums else None
        if datums:
            expected = {"count": count, "sum": sum, "minimum": minimum, "maximum": maximum}
            problem = _difference(merged_statistics(datums), expected)
        if problem:
            asked = _described(name, dimensions, dimension)
            raise AssertionError(f"{asked} {problem}. What was published:\n{listing(self.accepted, like=name)}")

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
            asked = _described(name, dimensions, dimension)
            raise LookupError(f"{asked} was not published. What was:\n{listing(self.accepted, like=name)}")
        return datums


def _described(name: str, dimensions: Mapping[str, object] | None, dimension: Mapping[str, object]) -> str:
    """What was asked for, in words."""
    if dimensions is None and not dimension:
        return name
    pairs = ", ".join(f"{key}={value}" for key, value in {**(dimensions or {}), **dimension}.items())
    return f"{name} {{{pairs}}}"


def _difference(statistics: Statistics, expected: Mapping[str, object]) -> str | None:
    """The first statistic that is not as expected, in words."""
    found = {
        "count": statistics.sample_count,
        "sum": statistics.total,
        "minimum": statistics.minimum,
        "maximum": statistics.maximum,
    }
    for name, value in found.items():
        if expected[name] is not None and value != expected[name]:
            return f"has the {name} {value:.15g}, not {expected[name]}"
    return None


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
