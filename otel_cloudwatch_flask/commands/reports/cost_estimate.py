"""Estimate the monthly cost of an app's metrics, and the share of each metric name, dimension and rule."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from otel_cloudwatch_flask.commands.shared.document import Metric, SeriesSummary
from otel_cloudwatch_flask.config import FlushPolicy
from otel_cloudwatch_flask.delivery.emf import EmfEnvelope
from otel_cloudwatch_flask.model.datum import Datum, Series
from otel_cloudwatch_flask.model.http_metrics import SYNONYMS
from otel_cloudwatch_flask.model.rules import MetricRule, Rules
from otel_cloudwatch_flask.pricing import metrics_dollars

_NO_RULE: Final = "(no rule)"
POLICIES: Final[tuple[FlushPolicy, ...]] = ("background", "interval", "sync")


@dataclass(frozen=True, slots=True)
class Fleet:
    """The number of publishing processes, the intervals at which they flush, and the total request rate.

    ``requests_per_second`` is ``None`` if the request rate is unknown.
    """

    processes: int
    requests_per_second: float | None
    flush_min_interval_seconds: float
    export_interval_seconds: float

    def calls_per_second(self, policy: FlushPolicy) -> float | None:
        """Return the total rate of calls to CloudWatch, or ``None`` if it depends on an unknown request rate.

        If the policy is ``background`` and the request rate is unknown, the processes are assumed to be always busy.
        For ``sync``, each request is assumed to make a call, although concurrent requests can share one.
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
    """The number of metrics with a given name, rule or rollup, and the monthly savings from dropping these metrics.

    For a dimension, the number is that of all metrics with the name, the savings come from dropping only the dimension,
    and ``values`` is the number of its distinct values. ``metric``, ``dimension`` and ``rule`` are empty if they do not
    apply.
    """

    metrics: int
    saved_metrics: int
    saved_dollars: float
    metric: str = ""
    dimension: str = ""
    values: int = 0
    rule: str = ""


def billed(series: Iterable[SeriesSummary]) -> list[Metric]:
    """Return the distinct metrics that CloudWatch bills. Series that differ only in unit count as one."""
    return list(dict.fromkeys(each.metric for each in series))


def emf_bytes(series: Iterable[SeriesSummary]) -> int:
    """Return the approximate size of the EMF lines that a flush writes, if each series repeats its last datum.

    A series whose last datum is unknown counts as a single value.
    """
    datums = (each.last_datum or Datum(Series(each.name, each.dimensions, each.unit), 0, 1.0) for each in series)
    # All datums of a flush have the same timestamp, so they can share documents.
    same_time = [datum._replace(unix_seconds=1_800_000_000) for datum in datums]
    return sum(batch.size_bytes for batch in EmfEnvelope("").batches(same_time))


def by_metric(metrics: Sequence[Metric]) -> list[Contribution]:
    """Return the contribution of each metric name, largest savings first."""
    return _sorted(
        _contribution(metrics, len(group), len(group), metric=name) for name, group in by_name(metrics).items()
    )


def by_dimension(metrics: Sequence[Metric]) -> list[Contribution]:
    """Return the contribution of each dimension of each metric name, largest savings first.

    Dropping a dimension merges the series that differ only in that dimension.
    """
    contributions = []
    for name, group in by_name(metrics).items():
        for dimension, values in dimension_values(group).items():
            merged = {
                (each.namespace, tuple(pair for pair in each.dimensions if pair[0] != dimension)) for each in group
            }
            saved = len(group) - len(merged)
            contributions.append(
                _contribution(metrics, len(group), saved, metric=name, dimension=dimension, values=len(values))
            )
    return _sorted(contributions)


def by_rule(metrics: Sequence[Metric], rules: Sequence[MetricRule]) -> list[Contribution]:
    """Return the contributions of each rule that applies and of each of its rollups, largest savings first.

    Metrics without a rule count as one more rule. Without ``rules``, returns an empty list.
    """
    if not rules:
        return []
    every = Rules(rules)
    of_rule: defaultdict[MetricRule, list[Metric]] = defaultdict(list)
    for metric in metrics:
        of_rule[every.of(metric.name)].append(metric)
    contributions = [each for rule, group in of_rule.items() for each in _of_rule(metrics, rule, group, set(rules))]
    return _sorted(contributions)


def _of_rule(
    metrics: Sequence[Metric], rule: MetricRule, group: Sequence[Metric], given: set[MetricRule]
) -> Iterator[Contribution]:
    # Rules() adds a default rule, which the app has not configured.
    label = rule.match if rule in given else _NO_RULE
    yield _contribution(metrics, len(group), len(group), rule=label)
    for rollup in rule.rollups:
        number = sum(_is_of_rollup(each, rollup) for each in group)
        yield _contribution(metrics, number, number, rule=f"{label}, rollup [{', '.join(sorted(rollup))}]")


def _is_of_rollup(metric: Metric, rollup: Iterable[str]) -> bool:
    names = {name for name, _ in metric.dimensions}
    # A rule applies to an HTTP attribute under both its old and its stable name.
    return names == {name if name in names else SYNONYMS.get(name, name) for name in rollup}


def _contribution(metrics: Sequence[Metric], number: int, saved: int, **of: Any) -> Contribution:
    # Prices are tiered, so the savings are the difference between two totals, not a multiple of an average price.
    return Contribution(number, saved, metrics_dollars(len(metrics)) - metrics_dollars(len(metrics) - saved), **of)


def by_name(metrics: Iterable[Metric]) -> dict[str, list[Metric]]:
    """Group metrics by name."""
    groups: defaultdict[str, list[Metric]] = defaultdict(list)
    for metric in metrics:
        groups[metric.name].append(metric)
    return groups


def dimension_values(metrics: Iterable[Metric]) -> defaultdict[str, set[str]]:
    """Map each dimension of ``metrics`` to its distinct values."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for metric in metrics:
        for dimension, value in metric.dimensions:
            found[dimension].add(value)
    return found


def _sorted(contributions: Iterable[Contribution]) -> list[Contribution]:
    return sorted(contributions, key=lambda each: (-each.saved_metrics, each.metric, each.dimension, each.rule))
