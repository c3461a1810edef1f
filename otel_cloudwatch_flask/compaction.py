"""Waiting datums of one series put together: less time resolution, the same samples.

A datum with several values says of each how often it occurred. So whatever two datums of a series were, one datum with
the values of both has the same ``Sum``, ``Minimum`` and ``Maximum``, and percentiles of them all.
"""

import json
import math
from collections.abc import Iterable
from typing import Any

from otel_cloudwatch_flask.datum import Statistics
from otel_cloudwatch_flask.distribution import Distribution, combined
from otel_cloudwatch_flask.wire import TIMESTAMP_MEMBER, Batch, EncodedDatum, batches, content_json, unix_seconds_of


def compacted(together: Iterable[Batch]) -> list[Batch]:
    """The datums of these batches, which have one envelope, with one datum for each series."""
    waiting = list(together)
    by_series: dict[str, list[EncodedDatum]] = {}
    for batch in waiting:
        for datum in batch.datums:
            by_series.setdefault(datum.partition(TIMESTAMP_MEMBER)[0], []).append(datum)
    datums = [_one_of(series, datums) for series, datums in by_series.items()]
    return list(batches(waiting[0].envelope, datums, is_plain=True))  # whoever is going to write them


def _one_of(series: str, datums: list[EncodedDatum]) -> EncodedDatum:
    newest = datums[-1]
    if len(datums) == 1:
        return newest
    contents = [*map(json.loads, datums)]
    content: Distribution | Statistics = combined(map(_distribution, contents))
    if any("StatisticValues" in each for each in contents):
        content = _statistics(contents)
    return f"{series}{TIMESTAMP_MEMBER}{unix_seconds_of(newest)},{content_json(content)}}}"


def _distribution(content: dict[str, Any]) -> Distribution:
    if "StatisticValues" in content:
        return Distribution((), ())
    values, counts = content.get("Values", [content.get("Value")]), content.get("Counts", [1])
    return Distribution.of(zip(map(float, values), counts, strict=True))


def _statistics(contents: list[dict[str, Any]]) -> Statistics:
    each = [content.get("StatisticValues") or _as_statistics(content) for content in contents]
    return Statistics(
        count=sum(int(statistics["SampleCount"]) for statistics in each),
        sum=math.fsum(statistics["Sum"] for statistics in each),
        minimum=float(min(statistics["Minimum"] for statistics in each)),
        maximum=float(max(statistics["Maximum"] for statistics in each)),
    )


def _as_statistics(content: dict[str, Any]) -> dict[str, float]:
    whole = _distribution(content)
    return {"SampleCount": whole.count, "Sum": whole.sum, "Minimum": whole.values[0], "Maximum": whole.values[-1]}
