"""Merge pending datums of the same series. Every sample still counts, but the time resolution is reduced.

A datum can carry several values with their counts. One datum with all the values and counts of two datums therefore
has the same ``Sum``, ``Minimum``, ``Maximum`` and percentiles as the two separate datums. If there are too many values,
neighboring values are merged.
"""

import math
from collections.abc import Sequence

from otel_cloudwatch_flask.delivery.batch import Batch
from otel_cloudwatch_flask.histograms.values_counts import combined
from otel_cloudwatch_flask.model.datum import Datum, Series, Statistics, statistics_of, values_of


def compacted(pending: Sequence[Batch]) -> list[Batch]:
    """Merge batches that share an envelope.

    The result has one datum for each series, with the timestamp of the last datum merged into it.
    """
    by_series: dict[Series, list[Datum]] = {}
    for batch in pending:
        for datum in batch.datums:
            by_series.setdefault(datum.series, []).append(datum)
    return joined([Batch(pending[0].envelope, tuple(map(_merged, by_series.values())))])


def joined(pending: Sequence[Batch]) -> list[Batch]:
    """Put the datums of batches that share an envelope into as few batches as possible."""
    datums = [datum for batch in pending for datum in batch.datums]
    return list(pending[0].envelope.batches(datums))


def _merged(datums: list[Datum]) -> Datum:
    if len(datums) == 1:
        return datums[0]
    contents = [datum.content for datum in datums]
    # Statistics lack the values of their samples, so one such datum reduces the merged datum to statistics.
    if any(isinstance(content, Statistics) for content in contents):
        return datums[-1]._replace(content=_sum_of_statistics([*map(statistics_of, contents)]))
    return datums[-1]._replace(content=combined(filter(None, map(values_of, contents))))


def _sum_of_statistics(summands: Sequence[Statistics]) -> Statistics:
    return Statistics(
        sum(each.count for each in summands),
        math.fsum(each.sum for each in summands),
        min(each.minimum for each in summands),
        max(each.maximum for each in summands),
    )
