"""What an app's metrics cost a month, and what each part of them contributes. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from otel_cloudwatch_flask.commands.shared.document import SeenSeries
from otel_cloudwatch_flask.config import FlushPolicy
from otel_cloudwatch_flask.model.rules import MetricRule, Rules
from otel_cloudwatch_flask.pricing import metrics_dollars

Metric: TypeAlias = tuple[str, str, tuple[tuple[str, str], ...]]
"""What CloudWatch bills: namespace, name, and sorted pairs of dimensions."""

NO_RULE: Final = "(no rule)"
POLICIES: Final[tuple[FlushPolicy, ...]] = ("background", "interval", "sync")


@dataclass(frozen=True, slots=True)
class Fleet:
    """The processes that publish, and how often requests reach all of them together, if that is known."""

    processes: int = 1
    requests_per_second: float | None = None
    flush_min_interval_seconds: float = 1.0
    export_interval_seconds: float = 60.0

    def calls_per_second(self, policy: FlushPolicy) -> float | None:
        """How often all of them call CloudWatch; ``None`` if that depends on requests of which nothing is known.

        Of a process under ``background`` nothing being known means that it is never idle. For ``sync`` it is an upper
        bound: requests that end together share a call.
        """
        least, rate = self.processes / self.export_interval_seconds, self.requests_per_second
        if policy == "interval":
            return least
        known = [] if rate is None else [rate]
        if policy == "background" and self.flush_min_interval_seconds:
            known.append(self.processes / self.flush_min_interval_seconds)
        return max(least, min(known)) if known else None


@dataclass(frozen=True, slots=True)
class Contribution:
    """A part of the metrics: what of them it is, how many, and the metrics and dollars that a month without it saves.

    ``metric``, ``dimension`` and ``rule`` are empty where it is no matter of them; ``values`` are how many different
    ones a dimension has.
    """

    metrics: int
    saved_metrics: int
    saved_dollars: float
    metric: str = ""
    dimension: str = ""
    values: int = 0
    rule: str = ""


def billed(series: Iterable[SeenSeries]) -> list[Metric]:
    """The distinct metrics: CloudWatch does not tell units apart."""
    return list(dict.fromkeys(each.metric for each in series))


def by_metric(metrics: Sequence[Metric]) -> list[Contribution]:
    """What the metrics of each name are, and cost; the largest saving first."""
    return _sorted(
        _contribution(metrics, len(group), len(group), metric=name) for name, group in _grouped(metrics).items()
    )


def by_dimension(metrics: Sequence[Metric]) -> list[Contribution]:
    """What each dimension of each metric multiplies; without it, series that differ in it alone become one."""
    return _sorted(
        _of_dimension(metrics, name, group, dimension)
        for name, group in _grouped(metrics).items()
        for dimension in dict.fromkeys(key for _, _, dimensions in group for key, _ in dimensions)
    )


def by_rule(metrics: Sequence[Metric], rules: Sequence[MetricRule]) -> list[Contribution]:
    """What each rule publishes, and of that what each of its rollups is; dropping it saves that much."""
    every = Rules(rules)
    of_rule: defaultdict[MetricRule, list[Metric]] = defaultdict(list)
    for metric in metrics:
        of_rule[every.of(metric[1])].append(metric)
    contributions = [each for rule, group in of_rule.items() for each in _of_rule(metrics, rule, group, set(rules))]
    return _sorted(contributions)


def _of_rule(
    metrics: Sequence[Metric], rule: MetricRule, group: Sequence[Metric], given: set[MetricRule]
) -> Iterator[Contribution]:
    label = rule.match if rule in given else NO_RULE
    yield _contribution(metrics, len(group), len(group), rule=label)
    for rollup in rule.rollups:
        number = sum({key for key, _ in dimensions} == set(rollup) for _, _, dimensions in group)
        yield _contribution(metrics, number, number, rule=f"{label}, rollup [{', '.join(sorted(rollup))}]")


def _of_dimension(metrics: Sequence[Metric], name: str, group: Sequence[Metric], dimension: str) -> Contribution:
    left = {
        (namespace, metric, tuple(pair for pair in dimensions if pair[0] != dimension))
        for namespace, metric, dimensions in group
    }
    values = {value for _, _, dimensions in group for key, value in dimensions if key == dimension}
    saved = len(group) - len(left)
    return _contribution(metrics, len(group), saved, metric=name, dimension=dimension, values=len(values))


def _contribution(metrics: Sequence[Metric], number: int, saved: int, **of: Any) -> Contribution:
    return Contribution(number, saved, metrics_dollars(len(metrics)) - metrics_dollars(len(metrics) - saved), **of)


def _grouped(metrics: Iterable[Metric]) -> dict[str, list[Metric]]:
    groups: defaultdict[str, list[Metric]] = defaultdict(list)
    for metric in metrics:
        groups[metric[1]].append(metric)
    return groups


def _sorted(contributions: Iterable[Contribution]) -> list[Contribution]:
    return sorted(contributions, key=lambda each: (-each.saved_metrics, each.metric, each.dimension, each.rule))
