"""What was published, and the questions that tests and CloudWatch's own clients ask about it."""

import copy
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Final, TypeAlias

from otel_cloudwatch_flask.model.datum import Dimensions
from otel_cloudwatch_flask.observation.tally import Content, Tally, content_of
from otel_cloudwatch_flask.testing.request_rules import datums_of, unix_time

Pairs: TypeAlias = Mapping[str, object] | None

_MAX_LINES: Final = 50


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

    @property
    def identity(self) -> tuple[str, str, Dimensions]:
        """What CloudWatch bills: it does not tell units apart."""
        return self.namespace, self.name, self.dimensions

    def __str__(self) -> str:
        return f"{self.namespace}: {self.name} {{{_written(self.dimensions)}}} in {self.unit}"


@dataclass(frozen=True, slots=True)
class AcceptedDatum:
    """A datum as it was sent, the metric it belongs to, its own time and that of its arrival, both Unix seconds."""

    metric: PublishedMetric
    datum: Mapping[str, Any]
    unix_time: float
    arrived_unix_time: float

    @property
    def content(self) -> Content:
        """The numbers of the datum."""
        return content_of(self.datum)


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

    def sum(self, name: str, /, dimensions: Pairs = None, *, namespace: str | None = None, **pair: object) -> float:
        """Add up all samples; 0 for what was never published."""
        return self._tally(name, dimensions, namespace, pair).sum

    def count(self, name: str, /, dimensions: Pairs = None, *, namespace: str | None = None, **pair: object) -> float:
        """How many samples there are (CloudWatch's SampleCount); 0 for what was never published."""
        return self._tally(name, dimensions, namespace, pair).count

    def minimum(self, name: str, /, dimensions: Pairs = None, *, namespace: str | None = None, **pair: object) -> float:
        """The smallest sample; ``LookupError`` if there is none."""
        return self._existing(name, dimensions, namespace, pair).minimum

    def maximum(self, name: str, /, dimensions: Pairs = None, *, namespace: str | None = None, **pair: object) -> float:
        """The largest sample; ``LookupError`` if there is none."""
        return self._existing(name, dimensions, namespace, pair).maximum

    def percentile(
        self, name: str, percent: float, /, dimensions: Pairs = None, *, namespace: str | None = None, **pair: object
    ) -> float:
        """The nearest-rank percentile, ``percent`` from 0 to 100; ``LookupError`` if there are no samples.

        CloudWatch has no percentiles of statistic sets, unless all their samples are the same.
        """
        if not 0 <= percent <= 100:
            raise ValueError(f"There is no percentile {percent}; write a number from 0 to 100.")
        found = self._existing(name, dimensions, namespace, pair).percentiles([percent])
        if found is None:
            raise LookupError(
                f"{name} was published as statistic sets, of which CloudWatch has no percentiles; publish its values."
            )
        return found[0]

    def values(
        self, name: str, /, dimensions: Pairs = None, *, namespace: str | None = None, **pair: object
    ) -> dict[float, float]:
        """Each sampled value with its count, smallest first; empty for what was never published.

        Of a statistic set CloudWatch knows no values: it has a place here only if all its samples are the same.
        """
        return dict(sorted(self._tally(name, dimensions, namespace, pair).values.counts.items()))

    def assert_published(
        self,
        name: str,
        /,
        dimensions: Pairs = None,
        *,
        namespace: str | None = None,
        sum: object = None,  # noqa: A002 - CloudWatch's name of it
        count: object = None,
        minimum: object = None,
        maximum: object = None,
        **pair: object,
    ) -> None:
        """Raise an ``AssertionError`` that lists what was published, unless the metric was, with these statistics.

        A statistic may be anything that a number can be compared with: ``sum=pytest.approx(0.3)``.
        """
        tally = self._tally(name, dimensions, namespace, pair)
        expected = {"count": count, "sum": sum, "minimum": minimum, "maximum": maximum}
        problem = _difference(tally, expected) if tally.count else "was not published"
        if problem:
            asked = _described(name, dimensions, pair)
            raise AssertionError(f"{asked} {problem}. What was published:\n{self._listing(like=name)}")

    def _listing(self, *, like: str = "") -> str:
        """One line for each metric with its statistics, those with a name ``like`` the given one first."""
        tallies: defaultdict[PublishedMetric, Tally] = defaultdict(Tally)
        for accepted in self.accepted:
            tallies[accepted.metric].add(accepted.content)
        metrics = sorted(tallies, key=lambda metric: -likeness(metric.name, like)) if like else [*tallies]
        lines = [f"  {metric}: {_figures(tallies[metric])}" for metric in metrics]
        if len(lines) > _MAX_LINES:
            lines[_MAX_LINES:] = [f"  and {len(lines) - _MAX_LINES} more metrics"]
        return "\n".join(lines) or "  nothing"

    def _tally(self, name: str, dimensions: Pairs, namespace: str | None, pair: Mapping[str, object]) -> Tally:
        asked = _asked(dimensions, pair)
        wanted = None if asked is None else dimensions_of(asked)
        found = (each for each in self.accepted if _is_asked_for(each.metric, name, namespace, wanted))
        return Tally.of(each.content for each in found)

    def _existing(self, name: str, dimensions: Pairs, namespace: str | None, pair: Mapping[str, object]) -> Tally:
        tally = self._tally(name, dimensions, namespace, pair)
        if not tally.count:
            asked = _described(name, dimensions, pair)
            raise LookupError(f"{asked} was not published. What was:\n{self._listing(like=name)}")
        return tally


def _is_asked_for(metric: PublishedMetric, name: str, namespace: str | None, dimensions: Dimensions | None) -> bool:
    """Whether it has this name, and this namespace and exactly these dimensions, if they are given."""
    return metric.name == name and namespace in (None, metric.namespace) and dimensions in (None, metric.dimensions)


def dimensions_of(dimensions: Mapping[str, object] | Iterable[Mapping[str, str]] | None) -> Dimensions:
    """Sort dimensions that come as a mapping, or as boto3's list of ``{"Name": ..., "Value": ...}``."""
    if isinstance(dimensions, Mapping):
        return tuple(sorted((name, str(value)) for name, value in dimensions.items()))
    return tuple(sorted((dimension["Name"], dimension["Value"]) for dimension in dimensions or ()))


def likeness(name: str, other: str) -> float:
    """How alike two names are, from 0 to 1 for the same; letter case and separators count little.

    >>> likeness("Orders", "Orders"), likeness("request_count", "RequestCount") > likeness("Requests", "RequestCount")
    (1.0, True)
    """
    if name == other:
        return 1.0
    letters, others = ("".join(filter(str.isalnum, each)).casefold() for each in (name, other))
    return 0.99 * SequenceMatcher(None, letters, others).ratio()


def _figures(tally: Tally) -> str:
    """The figures of a metric; a single sample is its value.

    >>> _figures(Tally.of([1, 9])), _figures(Tally.of([3]))
    ('sum 10, count 2, from 1 to 9', 'sum 3, count 1')
    """
    text = f"sum {tally.sum:.15g}, count {tally.count:.15g}"
    return text if tally.count == 1 else f"{text}, from {tally.minimum:.15g} to {tally.maximum:.15g}"


def _described(name: str, dimensions: Pairs, pair: Mapping[str, object]) -> str:
    """What was asked for, in words."""
    asked = _asked(dimensions, pair)
    return name if asked is None else f"{name} {{{_written(asked.items())}}}"


def _asked(dimensions: Pairs, pair: Mapping[str, object]) -> Pairs:
    """The dimensions that were asked for; ``None`` if it does not matter which."""
    return {**(dimensions or {}), **pair} if dimensions is not None or pair else None


def _written(pairs: Iterable[tuple[str, object]]) -> str:
    return ", ".join(f"{name}={value}" for name, value in pairs)


def _difference(tally: Tally, expected: Mapping[str, object]) -> str | None:
    """The first statistic that is not as expected, in words."""
    for name, value in expected.items():
        found: float = getattr(tally, name)
        if value is not None and found != value:
            return f"has the {name} {found:.15g}, not {value}"
    return None


def _accepted_datums(request: Mapping[str, Any], now: float) -> Iterator[AcceptedDatum]:
    for datum in datums_of(request):
        dimensions, unit = dimensions_of(datum.get("Dimensions")), datum.get("Unit") or "None"
        metric = PublishedMetric(request["Namespace"], datum["MetricName"], dimensions, unit)
        moment = unix_time(datum.get("Timestamp"))
        yield AcceptedDatum(metric, datum, now if moment is None else moment, now)
