"""Find what makes an app's metrics more expensive than before, so that a CI job can fail."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from otel_cloudwatch_flask.commands.reports.cost_estimate import (
    by_dimension,
    by_metric,
    by_name,
    dimension_values,
)
from otel_cloudwatch_flask.commands.shared.document import Metric
from otel_cloudwatch_flask.terminal import counted, escaped


@dataclass(frozen=True, slots=True)
class Growth:
    """A metric name that is new, has more metrics or has a new dimension, and the dimension responsible.

    ``metrics_before`` is 0 if the name is new, and ``values_before`` is 0 if the dimension is new. ``dimension`` is
    empty if the name is new, or if there are more combinations of dimension values although no dimension has more
    values.
    """

    metric: str
    metrics_before: int
    metrics: int
    dimension: str = ""
    values_before: int = 0
    values: int = 0

    def __str__(self) -> str:
        name, dimension = escaped(self.metric, 60), escaped(self.dimension, 60)
        if not self.metrics_before:
            return f"{name} is a new metric name, with {counted(self.metrics, 'metric')}."
        if self.dimension and not self.values_before:
            return f"{name} has the new dimension {dimension}, with {counted(self.values, 'value')}."
        line = f"{name} has {self.metrics:,} metrics instead of {self.metrics_before:,}"
        if not self.dimension:
            return f"{line}, because its dimensions have more combinations of values."
        return f"{line}, because {dimension} has {self.values:,} values instead of {self.values_before:,}."


def growth(before: Sequence[Metric], now: Sequence[Metric]) -> list[Growth]:
    """Return the growth of each metric name from ``before`` to ``now``, names with the most metrics first.

    A new dimension counts even if there are no more metrics yet, because it may have more values in production than in
    a preview.
    """
    known = by_name(before)
    grown = chain.from_iterable(_of_name(name, known.get(name, []), group) for name, group in by_name(now).items())
    return sorted(grown, key=lambda each: -each.metrics)


def _of_name(name: str, before: Sequence[Metric], now: Sequence[Metric]) -> list[Growth]:
    if not before:
        return [Growth(name, 0, len(now))]
    is_larger, values_before = len(now) > len(before), dimension_values(before)
    grown = [
        Growth(name, len(before), len(now), dimension, len(values_before[dimension]), len(values))
        for dimension, values in dimension_values(now).items()
        if len(values) > len(values_before[dimension]) and (is_larger or not values_before[dimension])
    ]
    if is_larger and not grown:
        return [Growth(name, len(before), len(now))]
    return grown


def largest_share(metrics: Sequence[Metric]) -> str:
    """Return a sentence about the most expensive metric name and, if dropping a dimension saves money, that dimension.

    The sentence starts with a space, so that it can follow another. Returns an empty string if there are no metrics.
    """
    if not metrics:
        return ""
    largest = by_metric(metrics)[0]
    share = f" The largest share is {escaped(largest.metric, 60)} with {counted(largest.metrics, 'metric')}"
    for each in by_dimension(metrics):
        if each.metric == largest.metric and each.saved_metrics:
            return f"{share}, because {escaped(each.dimension, 60)} has {counted(each.values, 'value')}."
    return f"{share}."
