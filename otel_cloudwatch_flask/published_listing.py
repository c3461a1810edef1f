"""What was published, as text for whoever looks for something else: what resembles it most comes first."""

from collections.abc import Iterable
from difflib import SequenceMatcher
from itertools import islice
from typing import Final

from otel_cloudwatch_flask.accepted_datum import AcceptedDatum, PublishedMetric, Statistics, merged_statistics

_MAX_LINES: Final = 50


def listing(accepted: Iterable[AcceptedDatum], *, like: str = "") -> str:
    """One line for each metric with its statistics, those with a name ``like`` the given one first."""
    datums: dict[PublishedMetric, list[AcceptedDatum]] = {}
    for each in accepted:
        datums.setdefault(each.metric, []).append(each)
    if not datums:
        return "  nothing"
    metrics = sorted(datums, key=lambda metric: -likeness(metric.name, like)) if like else list(datums)
    lines = [f"  {metric}: {_described(merged_statistics(datums[metric]))}" for metric in islice(metrics, _MAX_LINES)]
    if len(metrics) > _MAX_LINES:
        lines.append(f"  and {len(metrics) - _MAX_LINES} more metrics")
    return "\n".join(lines)


def likeness(name: str, other: str) -> float:
    """How alike two names are, from 0 to 1 for the same; letter case and separators count little.

    >>> likeness("Orders", "Orders"), likeness("request_count", "RequestCount") > likeness("Requests", "RequestCount")
    (1.0, True)
    """
    if name == other:
        return 1.0
    return 0.99 * SequenceMatcher(None, _letters(name), _letters(other)).ratio()


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name)).casefold()


def _described(statistics: Statistics) -> str:
    """The figures of a metric; a single sample is its value.

    >>> _described(Statistics(4, 10, 1, 5.5)), _described(Statistics(1, 3, 3, 3))
    ('sum 10, count 4, from 1 to 5.5', 'sum 3, count 1')
    """
    text = f"sum {statistics.total:.15g}, count {statistics.sample_count:.15g}"
    if statistics.sample_count == 1:
        return text
    return f"{text}, from {statistics.minimum:.15g} to {statistics.maximum:.15g}"
