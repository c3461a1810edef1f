"""CloudWatch's own questions about what was published: GetMetricStatistics, GetMetricData and ListMetrics.

moto answers none of them as CloudWatch does: it takes dimensions as a filter instead of as the metric's identity, knows
no percentiles and lists a metric once for each of its samples.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Final

from otel_cloudwatch_flask.accepted_datum import (
    AcceptedDatum,
    PublishedMetric,
    dimensions_of,
    merged_samples,
    merged_statistics,
    nearest_rank,
)
from otel_cloudwatch_flask.validation import Refusal, unix_time

# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricStatistics.html
_REQUIRED: Final = ("Namespace", "MetricName", "StartTime", "EndTime", "Period")
_STATISTICS: Final = frozenset({"SampleCount", "Average", "Sum", "Minimum", "Maximum"})
_PERCENTILE: Final = re.compile(r"p(\d{1,2}(?:\.\d{1,10})?|100)")
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_ListMetrics.html
_METRICS_PER_PAGE: Final = 500


def metric_statistics(accepted: Iterable[AcceptedDatum], parameters: Mapping[str, Any]) -> dict[str, Any] | Refusal:
    """Answer GetMetricStatistics: one data point for each period and unit, of the metric with exactly these dimensions.

    Percentiles are nearest ranks. As in CloudWatch there are none where a statistic set or a negative value is.
    """
    refused = next(_question_faults(parameters), None)
    if refused is not None:
        return refused
    period = int(parameters["Period"])
    periods: dict[tuple[float, str], list[AcceptedDatum]] = {}
    for datum in _asked_for(accepted, parameters):
        start = datum.unix_time - datum.unix_time % period
        periods.setdefault((start, datum.metric.unit), []).append(datum)
    points = (_data_point(start, unit, datums, parameters) for (start, unit), datums in sorted(periods.items()))
    return {"Label": parameters["MetricName"], "Datapoints": [point for point in points if point]}


def metric_data(accepted: Iterable[AcceptedDatum], parameters: Mapping[str, Any]) -> dict[str, Any] | Refusal | None:
    """Answer GetMetricData: each query as GetMetricStatistics would; ``None`` if one of them is an expression."""
    queries = parameters.get("MetricDataQueries") or ()
    if not all(query.get("MetricStat") for query in queries):
        return None
    datums, results = list(accepted), []
    for query in queries:
        asked = {**parameters, **query["MetricStat"].get("Metric", {}), **query["MetricStat"]}
        name = asked.get("Stat", "")
        kind = "Statistics" if name in _STATISTICS else "ExtendedStatistics"
        found = metric_statistics(datums, {**asked, kind: [name]})
        if isinstance(found, Refusal):
            return found
        if query.get("ReturnData") not in (False, "false"):
            points = found["Datapoints"][:: 1 if parameters.get("ScanBy") == "TimestampAscending" else -1]
            results.append(_data_result(query, f"{found['Label']} {name}", points, name))
    return {"MetricDataResults": results, "Messages": []}


def _data_result(query: Mapping[str, Any], label: str, points: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return {
        "Id": query.get("Id", ""),
        "Label": query.get("Label", label),
        "Timestamps": [point["Timestamp"] for point in points],
        "Values": [{**point, **point.get("ExtendedStatistics", {})}[name] for point in points],
        "StatusCode": "Complete",
    }


def list_metrics(metrics: Iterable[PublishedMetric], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Answer ListMetrics: each metric that has the given namespace, name and dimensions, and perhaps more of these."""
    found = {
        (metric.namespace, metric.name, metric.dimensions): {
            "Namespace": metric.namespace,
            "MetricName": metric.name,
            "Dimensions": [{"Name": name, "Value": value} for name, value in metric.dimensions],
        }
        for metric in metrics
        if _is_listed(metric, parameters)
    }
    start = int(parameters.get("NextToken") or 0)
    result: dict[str, Any] = {"Metrics": list(found.values())[start : start + _METRICS_PER_PAGE]}
    if len(found) > start + _METRICS_PER_PAGE:
        result["NextToken"] = str(start + _METRICS_PER_PAGE)
    return result


def _question_faults(parameters: Mapping[str, Any]) -> Iterator[Refusal]:
    missing = [name for name in _REQUIRED if parameters.get(name) is None]
    if missing:
        yield Refusal("MissingParameter", f"The parameter {missing[0]} is required.")
        return
    yield from _statistic_faults(parameters.get("Statistics") or (), parameters.get("ExtendedStatistics") or ())
    yield from _time_faults(parameters)


def _time_faults(parameters: Mapping[str, Any]) -> Iterator[Refusal]:
    start, end = (unix_time(parameters[name]) for name in ("StartTime", "EndTime"))
    if start is None or end is None or start >= end:
        message = "The parameter StartTime must be less than the parameter EndTime."
        yield Refusal("InvalidParameterValue", message)
    if not isinstance(parameters["Period"], (int, float)) or parameters["Period"] < 1:
        yield Refusal("InvalidParameterValue", "The parameter Period must be a number of seconds greater than 0.")


def _statistic_faults(statistics: Sequence[str], percentiles: Sequence[str]) -> Iterator[Refusal]:
    if bool(statistics) == bool(percentiles):
        message = "Must specify either Statistics or ExtendedStatistics, and not both."
        yield Refusal("InvalidParameterCombination", message)
    known = all(name in _STATISTICS for name in statistics) and all(map(_PERCENTILE.fullmatch, percentiles))
    if not known:
        message = f"One of the statistics {', '.join([*statistics, *percentiles])} is not supported here."
        yield Refusal("InvalidParameterValue", message)


def _asked_for(accepted: Iterable[AcceptedDatum], parameters: Mapping[str, Any]) -> list[AcceptedDatum]:
    """The datums of the metric in the time range; CloudWatch rounds the start down to the minute."""
    identity = (parameters["Namespace"], parameters["MetricName"], dimensions_of(parameters.get("Dimensions")))
    start, end = unix_time(parameters["StartTime"]) or 0, unix_time(parameters["EndTime"]) or 0
    start -= start % min(parameters["Period"], 60)
    return [
        datum
        for datum in accepted
        if (datum.metric.namespace, datum.metric.name, datum.metric.dimensions) == identity
        and parameters.get("Unit") in (None, datum.metric.unit)
        and start <= datum.unix_time < end
    ]


def _data_point(
    start: float, unit: str, datums: list[AcceptedDatum], parameters: Mapping[str, Any]
) -> dict[str, Any] | None:
    point = {"Timestamp": datetime.fromtimestamp(start, timezone.utc), "Unit": unit}
    percentiles = parameters.get("ExtendedStatistics")
    if not percentiles:
        return {**point, **_statistics(datums, parameters["Statistics"])}
    samples = merged_samples(datums)
    if not samples or min(samples) < 0:
        return None
    ranks = {name: nearest_rank(samples, float(name.removeprefix("p"))) for name in percentiles}
    return {**point, "ExtendedStatistics": ranks}


def _statistics(datums: list[AcceptedDatum], names: Iterable[str]) -> dict[str, float]:
    merged = merged_statistics(datums)
    every = {
        "SampleCount": merged.sample_count,
        "Average": merged.total / merged.sample_count,
        "Sum": merged.total,
        "Minimum": merged.minimum,
        "Maximum": merged.maximum,
    }
    return {name: every[name] for name in names}


def _is_listed(metric: PublishedMetric, parameters: Mapping[str, Any]) -> bool:
    return (
        parameters.get("Namespace") in (None, metric.namespace)
        and parameters.get("MetricName") in (None, metric.name)
        and all(_has_dimension(metric, each["Name"], each.get("Value")) for each in parameters.get("Dimensions") or ())
    )


def _has_dimension(metric: PublishedMetric, name: str, value: str | None) -> bool:
    return any(pair[0] == name and value in (None, pair[1]) for pair in metric.dimensions)
