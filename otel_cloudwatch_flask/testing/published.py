"""Store the metrics that a fake CloudWatch has accepted, and look them up in tests."""

import copy
import threading
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Final, TypeAlias

from otel_cloudwatch_flask.histograms.values_counts import Distribution
from otel_cloudwatch_flask.model.datum import Content, Dimensions, Statistics
from otel_cloudwatch_flask.model.dimensions import dimension_value
from otel_cloudwatch_flask.observation.tally import Tally
from otel_cloudwatch_flask.testing.request_rules import datums_of, unix_time, validation_error

Pairs: TypeAlias = Mapping[str, object] | None

_MAX_LINES: Final = 50


@dataclass(frozen=True, slots=True)
class PublishedMetric:
    """A CloudWatch metric, and one of the units in which it was published.

    >>> print(PublishedMetric("Shop", "Orders", (("Region", "EU"),), "Count"))
    Shop: Orders {Region=EU} in Count
    """

    namespace: str
    name: str
    dimensions: Dimensions = ()
    unit: str = "None"

    @property
    def identity(self) -> tuple[str, str, Dimensions]:
        """The namespace, name and dimensions, which identify a metric in CloudWatch. The unit is not included."""
        return self.namespace, self.name, self.dimensions

    def __str__(self) -> str:
        return f"{self.namespace}: {self.name} {{{_formatted(self.dimensions)}}} in {self.unit}"


@dataclass(frozen=True, slots=True)
class AcceptedDatum:
    """A datum as it was sent, with its metric and its time in Unix seconds, which is that of its arrival by default."""

    metric: PublishedMetric
    datum: Mapping[str, Any]
    unix_time: float

    @property
    def content(self) -> Content:
        """The number, distribution or statistic set in the datum."""
        if (statistics := self.datum.get("StatisticValues")) is not None:
            total, minimum, maximum = (float(statistics[name]) for name in ("Sum", "Minimum", "Maximum"))
            return Statistics(statistics["SampleCount"], total, minimum, maximum)
        if (values := self.datum.get("Values")) is not None:
            return Distribution.of(zip(values, self.datum.get("Counts") or [1] * len(values), strict=True))
        return float(self.datum["Value"])


class PublishedMetrics:
    """The requests that were accepted, with methods to look up metrics. Thread-safe.

    A lookup takes the metric's name and, optionally, its dimensions and namespace:

    * Without dimensions, it covers all series with that name together.
    * ``dimensions={}`` selects the series that has no dimensions.
    * ``dimensions={"Page": "Index"}`` or ``Page="Index"`` selects the series with exactly these dimensions.

    :meth:`where` selects all series that have certain dimensions, whatever other dimensions they have.
    """

    _is_strict = False
    """Whether ``sum`` and ``count`` fail for a name that was never published."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: list[Mapping[str, Any]] = []
        self._accepted: list[AcceptedDatum] = []
        self._names_elsewhere: Collection[str] = ()

    @property
    def requests(self) -> list[Mapping[str, Any]]:
        """The accepted requests as they were sent."""
        self._refresh()
        with self._lock:
            return list(self._requests)

    @property
    def accepted(self) -> list[AcceptedDatum]:
        """The accepted datums with their metrics and times."""
        self._refresh()
        with self._lock:
            # A copy, because other threads may publish while the caller iterates over it.
            return list(self._accepted)

    @property
    def datums(self) -> list[Mapping[str, Any]]:
        """The accepted datums as they were sent."""
        return [accepted.datum for accepted in self.accepted]

    def store(self, request: Mapping[str, Any], *, size_bytes: int | None, now: float) -> int:
        """Store a request, and return how many datums it contains.

        :param request: the parameters of PutMetricData.
        :param size_bytes: length of the uncompressed body, or ``None`` if it must not be checked.
        :param now: time of arrival, in Unix seconds.
        :raises ValidationError: if CloudWatch would refuse the request.
        """
        if error := validation_error(request, size_bytes=size_bytes, now=now):
            raise error
        # Copied because the caller may reuse the request.
        request = copy.deepcopy(request)
        datums = list(_accepted_datums(request, now))
        with self._lock:
            self._requests.append(request)
            self._accepted += datums
        return len(datums)

    def clear(self) -> None:
        """Delete all published metrics."""
        self._refresh()
        with self._lock:
            self._requests.clear()
            self._accepted.clear()

    def _refresh(self) -> None:
        """Publish everything recorded so far, if possible. Called before each lookup."""

    def metrics(self) -> list[PublishedMetric]:
        """Return the distinct metrics, in order of first arrival. A metric occurs once for each of its units."""
        return list(dict.fromkeys(accepted.metric for accepted in self.accepted))

    def where(self, dimensions: Pairs = None, /, **pair: object) -> "PublishedMetrics":
        """Return the metrics published so far that have these dimensions, and possibly others.

        ``cloudwatch.where({"http.target": "/cart"}).count("http.server.duration")`` counts the requests of a route,
        whatever their method and status. The result has no ``requests``, because a request may contain other metrics.

        :param dimensions: dimensions that a metric must have, as a mapping.
        :param pair: further dimensions that a metric must have, as keywords, such as ``Page="index"``.
        """
        wanted = set(dimensions_of(_merged(dimensions, pair)))
        every, found = self.accepted, PublishedMetrics()
        found._accepted = [each for each in every if wanted.issubset(each.metric.dimensions)]
        found._names_elsewhere = {*self._names_elsewhere, *(each.metric.name for each in every)}
        found._is_strict = self._is_strict
        return found

    def sum(
        self,
        name: str,
        /,
        dimensions: Pairs = None,
        *,
        namespace: str | None = None,
        default: float | None = None,
        **pair: object,
    ) -> float:
        """Return the sum of all samples, or ``default`` (0) if there are none.

        The fixture ``cloudwatch`` raises ``LookupError`` if no metric of that name was published and there is no
        ``default``, because the name may be misspelled.

        :param name: name of the metric.
        :param dimensions: all dimensions of the series, as a mapping. Default: all series of that name together.
        :param namespace: CloudWatch namespace. Default: any.
        :param default: result if there are no samples.
        :param pair: dimensions as keywords, such as ``Page="index"``.
        """
        tally = self._tally(name, dimensions, namespace, pair)
        return tally.sum if tally.count else self._default(name, default)

    def count(
        self,
        name: str,
        /,
        dimensions: Pairs = None,
        *,
        namespace: str | None = None,
        default: float | None = None,
        **pair: object,
    ) -> float:
        """Return the number of samples (CloudWatch's SampleCount), or ``default`` (0) if there are none.

        The fixture ``cloudwatch`` raises ``LookupError`` as for :meth:`sum`.

        :param name: name of the metric.
        :param dimensions: all dimensions of the series, as a mapping. Default: all series of that name together.
        :param namespace: CloudWatch namespace. Default: any.
        :param default: result if there are no samples.
        :param pair: dimensions as keywords, such as ``Page="index"``.
        """
        tally = self._tally(name, dimensions, namespace, pair)
        return tally.count or self._default(name, default)

    def minimum(self, name: str, /, dimensions: Pairs = None, *, namespace: str | None = None, **pair: object) -> float:
        """Return the smallest sample. Raises ``LookupError`` if the metric was not published.

        :param name: name of the metric.
        :param dimensions: all dimensions of the series, as a mapping. Default: all series of that name together.
        :param namespace: CloudWatch namespace. Default: any.
        :param pair: dimensions as keywords, such as ``Page="index"``.
        """
        return self._existing(name, dimensions, namespace, pair).minimum

    def maximum(self, name: str, /, dimensions: Pairs = None, *, namespace: str | None = None, **pair: object) -> float:
        """Return the largest sample. Raises ``LookupError`` if the metric was not published.

        :param name: name of the metric.
        :param dimensions: all dimensions of the series, as a mapping. Default: all series of that name together.
        :param namespace: CloudWatch namespace. Default: any.
        :param pair: dimensions as keywords, such as ``Page="index"``.
        """
        return self._existing(name, dimensions, namespace, pair).maximum

    def percentile(
        self, name: str, percent: float, /, dimensions: Pairs = None, *, namespace: str | None = None, **pair: object
    ) -> float:
        """Return a nearest-rank percentile.

        Raises ``LookupError`` if the metric was not published, or if a statistic set hides the values of some samples,
        and ``ValueError`` if ``percent`` is out of range.

        :param name: name of the metric.
        :param percent: number from 0 to 100, such as 99.
        :param dimensions: all dimensions of the series, as a mapping. Default: all series of that name together.
        :param namespace: CloudWatch namespace. Default: any.
        :param pair: dimensions as keywords, such as ``Page="index"``.
        """
        if not 0 <= percent <= 100:
            raise ValueError(f"Invalid percentile {percent}: pass a number from 0 to 100.")
        found = self._existing(name, dimensions, namespace, pair).percentiles([percent])
        if found is None:
            raise LookupError(
                f"{name} was published as statistic sets, which have no percentiles in CloudWatch. Publish its values: "
                'MetricRule(distribution="values").'
            )
        return found[0]

    def values(
        self, name: str, /, dimensions: Pairs = None, *, namespace: str | None = None, **pair: object
    ) -> dict[float, float]:
        """Map each value, in ascending order, to its number of samples.

        If the metric was not published, the result is empty. Statistic sets do not contain values, so their samples are
        missing unless all samples in a set are equal.

        :param name: name of the metric.
        :param dimensions: all dimensions of the series, as a mapping. Default: all series of that name together.
        :param namespace: CloudWatch namespace. Default: any.
        :param pair: dimensions as keywords, such as ``Page="index"``.
        """
        return dict(sorted(self._tally(name, dimensions, namespace, pair).values.counts.items()))

    def assert_published(
        self,
        name: str,
        /,
        dimensions: Pairs = None,
        *,
        namespace: str | None = None,
        sum: object = None,  # noqa: A002 - CloudWatch's name for it
        count: object = None,
        minimum: object = None,
        maximum: object = None,
        **pair: object,
    ) -> None:
        """Assert that the metric was published and has the given statistics. The error lists the published metrics.

        A statistic may be any object that can be compared with a number, such as ``sum=pytest.approx(0.3)``.

        :param name: name of the metric.
        :param dimensions: all dimensions of the series, as a mapping. Default: all series of that name together.
        :param namespace: CloudWatch namespace. Default: any.
        :param sum: expected sum of all samples. Default: any, as for the other statistics.
        :param count: expected number of samples.
        :param minimum: expected smallest sample.
        :param maximum: expected largest sample.
        :param pair: dimensions as keywords, such as ``Page="index"``.
        """
        tally = self._tally(name, dimensions, namespace, pair)
        expected = {"count": count, "sum": sum, "minimum": minimum, "maximum": maximum}
        problem = _difference(tally, expected) if tally.count else "was not published"
        if problem:
            described = _described(name, dimensions, pair)
            raise AssertionError(f"{described} {problem}. Published metrics:\n{self._listing(like=name)}")

    def _listing(self, *, like: str = "") -> str:
        """Describe up to 50 metrics and their statistics, one per line. Names similar to ``like`` come first."""
        tallies: defaultdict[PublishedMetric, Tally] = defaultdict(Tally)
        for accepted in self.accepted:
            tallies[accepted.metric].add(accepted.content)
        metrics = sorted(tallies, key=lambda metric: -similarity(metric.name, like)) if like else [*tallies]
        lines = [f"  {metric}: {_statistics_text(tallies[metric])}" for metric in metrics]
        if len(lines) > _MAX_LINES:
            lines[_MAX_LINES:] = [f"  and {len(lines) - _MAX_LINES} more metrics"]
        return "\n".join(lines) or "  nothing"

    def _tally(self, name: str, dimensions: Pairs, namespace: str | None, pair: Mapping[str, object]) -> Tally:
        pairs = _merged(dimensions, pair)
        wanted = None if pairs is None else dimensions_of(pairs)
        found = (each for each in self.accepted if _matches(each.metric, name, namespace, wanted))
        return Tally.of(each.content for each in found)

    def _default(self, name: str, default: float | None) -> float:
        """Return the result of a lookup that found no samples. Raises ``LookupError`` as described in :meth:`sum`."""
        if default is None and self._is_strict and not self._has(name):
            raise LookupError(
                f"{name} was never published. If that is what you expect, pass default=0. Published metrics:\n"
                f"{self._listing(like=name)}"
            )
        return default or 0.0

    def _has(self, name: str) -> bool:
        return name in self._names_elsewhere or any(each.metric.name == name for each in self.accepted)

    def _existing(self, name: str, dimensions: Pairs, namespace: str | None, pair: Mapping[str, object]) -> Tally:
        tally = self._tally(name, dimensions, namespace, pair)
        if not tally.count:
            described = _described(name, dimensions, pair)
            raise LookupError(f"{described} was not published. Published metrics:\n{self._listing(like=name)}")
        return tally


def _matches(metric: PublishedMetric, name: str, namespace: str | None, dimensions: Dimensions | None) -> bool:
    """Return whether ``metric`` has this ``name``, ``namespace`` and ``dimensions``. ``None`` matches any value."""
    return metric.name == name and namespace in (None, metric.namespace) and dimensions in (None, metric.dimensions)


def dimensions_of(dimensions: Mapping[str, object] | Iterable[Mapping[str, str]] | None) -> Dimensions:
    """Convert a mapping, or boto3's list of ``{"Name": ..., "Value": ...}``, to sorted pairs.

    In a mapping, values that are not strings are converted as they are when they are published.

    >>> dimensions_of({"Page": "index", "Cached": True})
    (('Cached', 'true'), ('Page', 'index'))
    """
    if isinstance(dimensions, Mapping):
        texts = (value if isinstance(value, str) else dimension_value(value) for value in dimensions.values())
        return tuple(sorted(zip(dimensions, texts, strict=True)))
    return tuple(sorted((dimension["Name"], dimension["Value"]) for dimension in dimensions or ()))


def similarity(name: str, other: str) -> float:
    """Return the similarity of two names, without regard to case and separators, as a number from 0 to 1.

    >>> similarity("request_count", "RequestCount"), similarity("Requests", "RequestCount")
    (1.0, 0.7)
    """
    letters, others = ("".join(filter(str.isalnum, each)).casefold() for each in (name, other))
    return SequenceMatcher(None, letters, others).ratio()


def _statistics_text(tally: Tally) -> str:
    """Format the statistics of a metric.

    >>> _statistics_text(Tally.of([1, 9])), _statistics_text(Tally.of([3]))
    ('sum 10, count 2, from 1 to 9', 'sum 3, count 1')
    """
    text = f"sum {tally.sum:.15g}, count {tally.count:.15g}"
    return text if tally.count == 1 else f"{text}, from {tally.minimum:.15g} to {tally.maximum:.15g}"


def _described(name: str, dimensions: Pairs, pair: Mapping[str, object]) -> str:
    """Describe the name and dimensions passed to a lookup."""
    pairs = _merged(dimensions, pair)
    return name if pairs is None else f"{name} {{{_formatted(pairs.items())}}}"


def _merged(dimensions: Pairs, pair: Mapping[str, object]) -> Pairs:
    """Return all dimensions passed to a lookup. If none were passed, return ``None``, which matches all series."""
    return {**(dimensions or {}), **pair} if dimensions is not None or pair else None


def _formatted(pairs: Iterable[tuple[str, object]]) -> str:
    return ", ".join(f"{name}={value}" for name, value in pairs)


def _difference(tally: Tally, expected: Mapping[str, object]) -> str | None:
    """Describe the first statistic that differs from its expected value, or return ``None`` if all match."""
    for name, value in expected.items():
        found: float = getattr(tally, name)
        if value is not None and found != value:
            return f"has {name} {found:.15g}, not {value}"
    return None


def _accepted_datums(request: Mapping[str, Any], now: float) -> Iterator[AcceptedDatum]:
    for datum in datums_of(request):
        dimensions, unit = dimensions_of(datum.get("Dimensions")), datum.get("Unit") or "None"
        metric = PublishedMetric(request["Namespace"], datum["MetricName"], dimensions, unit)
        moment = unix_time(datum.get("Timestamp"))
        yield AcceptedDatum(metric, datum, now if moment is None else moment)
