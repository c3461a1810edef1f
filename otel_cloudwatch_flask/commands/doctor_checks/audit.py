"""Compare what a process reports as delivered with what CloudWatch has stored."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final

from otel_cloudwatch_flask.commands.doctor_checks.aws import Target
from otel_cloudwatch_flask.commands.doctor_checks.check import Check, until_failure
from otel_cloudwatch_flask.commands.shared import aws
from otel_cloudwatch_flask.commands.shared.document import SeriesSummary, document_from, finite, read_json
from otel_cloudwatch_flask.limits import QUOTA_REQUESTS_PER_SECOND
from otel_cloudwatch_flask.terminal import counted, listed

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricData.html
_MAX_QUERIES: Final = 500
_MAX_POINTS: Final = 100_800
_PERIODS: Final = ((14 * _DAY, _MINUTE), (62 * _DAY, 5 * _MINUTE), (math.inf, _HOUR))
"""The maximum age of the data that each period is used for. CloudWatch keeps one-minute data for 15 days, and
five-minute data for 63 days.
"""
_USAGE: Final = (("Class", "None"), ("Resource", "PutMetricData"), ("Service", "CloudWatch"), ("Type", "API"))
"""Dimensions of the metric that counts calls:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch-Usage-Metrics.html.
"""
_MISSING: Final = (
    "New data can take two minutes to appear, so run the audit again. If samples are still missing, check that you use "
    "the Region and account of the process."
)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a process recorded from ``started`` to ``now``, both in Unix seconds, according to its live page."""

    started: float
    now: float
    series: Sequence[SeriesSummary]

    @classmethod
    def read(cls, source: str) -> "Recorded":
        """Read the ``data.json`` of a live page. Raises :class:`CommandError` if it cannot be read."""
        return read_json(source, cls._of, "a live page's data.json")

    @classmethod
    def _of(cls, document: Any) -> "Recorded":
        series = document_from(document).series
        try:
            # If the clock was set back, the process started later than now.
            started, now = sorted((finite(document["started"]), finite(document["now"])))
        except (LookupError, TypeError, OverflowError) as error:
            raise ValueError("it is not the data.json of a live page") from error
        return cls(started, now, series)


def audit_checks(target: Target, recorded: Recorded) -> Iterator[Check]:
    """Compare each series with CloudWatch's data, look for other metrics in its namespace, and report quota usage."""
    return until_failure(_checks(target, recorded), "Cannot read metrics from CloudWatch")


def _checks(target: Target, recorded: Recorded) -> Iterator[Check]:
    client = target.publishing_client()
    stored = _sums(client, recorded.series, recorded.started, recorded.now, "SampleCount")
    yield _totals(recorded.series, stored)
    for series in recorded.series:
        delivered = series.samples - series.undelivered
        if stored[series] < delivered:
            finding = f"{series}: {delivered:,.0f} samples were delivered, but CloudWatch has {stored[series]:,.0f}."
            yield Check("problem", finding, _MISSING)
    yield from _other_metrics(client, recorded.series)
    yield _quota(client, recorded.now)


def _totals(every: Sequence[SeriesSummary], stored: Mapping[SeriesSummary, float]) -> Check:
    samples = math.fsum(each.samples for each in every)
    undelivered = math.fsum(each.undelivered for each in every)
    return Check(
        "ok",
        f"{samples:,.0f} samples of {counted(len(every), 'metric')} were recorded: "
        f"{samples - undelivered:,.0f} delivered, {undelivered:,.0f} pending or lost. CloudWatch has "
        f"{math.fsum(stored.values()):,.0f}, including those of other processes.",
    )


def _other_metrics(client: Any, known: Iterable[SeriesSummary]) -> Iterator[Check]:
    """Report metrics that are in a namespace of ``known``, but are not published by the process."""
    metrics = {each.metric for each in known}
    stored = aws.listed_series(client, {each.namespace for each in metrics})
    others = [str(each) for each in stored if each.metric not in metrics]
    if others:
        yield Check(
            "unknown",
            f"The namespace has {counted(len(others), 'other metric')}: {listed(others)}.",
            "They may come from other apps, other processes or an earlier version. Each is billed while it has data.",
        )


def _quota(client: Any, now: float) -> Check:
    usage = SeriesSummary("AWS/Usage", "CallCount", _USAGE)
    calls = _sums(client, [usage], now - _HOUR, now, "Sum")[usage]
    if not calls:
        return Check("unknown", "CloudWatch has no usage metrics for PutMetricData in this Region.")
    share = calls / _HOUR / QUOTA_REQUESTS_PER_SECOND
    finding = f"The account called PutMetricData {calls:,.0f} times in the last hour: {share:.1%} of the default quota."
    return Check("ok", finding)


def _sums(
    client: Any, series: Sequence[SeriesSummary], start: float, end: float, statistic: str
) -> dict[SeriesSummary, float]:
    """Add up a statistic of each series over all periods from ``start`` to ``end``. No data counts as 0."""
    period = next(period for age, period in _PERIODS if time.time() - start <= age)
    points = int(end - start) // period + 2
    size = max(1, min(_MAX_QUERIES, _MAX_POINTS // points))
    found = dict.fromkeys(series, 0.0)
    for begin in range(0, len(series), size):
        part = series[begin : begin + size]
        pages = client.get_paginator("get_metric_data").paginate(
            MetricDataQueries=[_query(f"m{i}", each, statistic, period) for i, each in enumerate(part)],
            StartTime=_datetime(start - start % period),
            EndTime=_datetime(end + period),
        )
        for page in pages:
            for result in page["MetricDataResults"]:
                found[part[int(result["Id"][1:])]] += math.fsum(result["Values"])
    return found


def _query(identifier: str, series: SeriesSummary, statistic: str, period: int) -> dict[str, Any]:
    unit = {} if series.namespace.startswith("AWS/") else {"Unit": series.unit}
    return {"Id": identifier, "MetricStat": {"Metric": series.members, "Period": period, "Stat": statistic, **unit}}


def _datetime(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, tz=timezone.utc)
