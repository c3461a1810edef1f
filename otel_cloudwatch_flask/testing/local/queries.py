"""Answer GetMetricStatistics, GetMetricData and ListMetrics from the accepted datums."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Final

from otel_cloudwatch_flask.observation.tally import Tally
from otel_cloudwatch_flask.testing.published import AcceptedDatum, PublishedMetric, dimensions_of
from otel_cloudwatch_flask.testing.request_rules import ValidationError, unix_time

_STATISTIC: Final = re.compile(r"SampleCount|Average|Sum|Minimum|Maximum")
_PERCENTILE: Final = re.compile(r"p(\d{1,2}(?:\.\d{1,10})?|100)")
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricStat.html
_SHORT_PERIODS: Final = (1, 5, 10, 20, 30)
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_ListMetrics.html
_METRICS_PER_PAGE: Final = 500


def metric_statistics(accepted: Iterable[AcceptedDatum], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Answer GetMetricStatistics, with one data point for each period and unit in which the metric has data.

    The metric must have exactly the given dimensions. As in CloudWatch, the first period begins at the start of the
    time range, and there are no percentiles for periods that contain negative values, or statistic sets whose minimum
    and maximum differ. Raises :class:`ValidationError` if the parameters are invalid.
    """
    _check_statistics(parameters)
    start, end = _time_range(parameters)
    period, statistics = parameters["Period"], parameters.get("Statistics")
    identity = (parameters["Namespace"], parameters["MetricName"], dimensions_of(parameters.get("Dimensions")))
    tallies: defaultdict[tuple[float, str], Tally] = defaultdict(Tally)
    for datum in accepted:
        unit = datum.metric.unit
        is_wanted = datum.metric.identity == identity and parameters.get("Unit") in (None, unit)
        if is_wanted and start <= datum.unix_time < end:
            tallies[start + (datum.unix_time - start) // period * period, unit].add(datum.content)
    points = []
    for time, unit in sorted(tallies):
        found = {name: tallies[time, unit].statistic(name) for name in statistics or parameters["ExtendedStatistics"]}
        if None not in found.values():
            members = found if statistics else {"ExtendedStatistics": found}
            points.append({"Timestamp": datetime.fromtimestamp(time, timezone.utc), "Unit": unit, **members})
    return {"Label": parameters["MetricName"], "Datapoints": points}


def metric_data(accepted: Sequence[AcceptedDatum], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Answer GetMetricData by calling :func:`metric_statistics` for each query.

    Raises :class:`ValidationError` if a query is invalid or contains metric math, which is not supported.
    """
    results = []
    for query in parameters["MetricDataQueries"]:
        if "MetricStat" not in query:
            raise ValidationError("ValidationError", "LocalCloudWatch does not support metric math.")
        merged = {**parameters, **query["MetricStat"]["Metric"], **query["MetricStat"]}
        name = merged["Stat"]
        kind = "Statistics" if _STATISTIC.fullmatch(name) else "ExtendedStatistics"
        found = metric_statistics(accepted, {**merged, kind: [name]})
        if query.get("ReturnData", True):
            points = found["Datapoints"][:: 1 if parameters.get("ScanBy") == "TimestampAscending" else -1]
            results.append(_data_result(query, f"{found['Label']} {name}", points, name))
    return {"MetricDataResults": results, "Messages": []}


def _data_result(query: Mapping[str, Any], label: str, points: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return {
        "Id": query["Id"],
        "Label": query.get("Label", label),
        "Timestamps": [point["Timestamp"] for point in points],
        "Values": [{**point, **point.get("ExtendedStatistics", {})}[name] for point in points],
        "StatusCode": "Complete",
    }


def list_metrics(accepted: Iterable[AcceptedDatum], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Answer ListMetrics with the metrics that have the given namespace and name, and at least the given dimensions."""
    metrics = dict.fromkeys(datum.metric for datum in accepted)
    found = list(dict.fromkeys(metric.identity for metric in metrics if _is_listed(metric, parameters)))
    start = int(parameters.get("NextToken") or 0)
    end = start + _METRICS_PER_PAGE
    more = {"NextToken": str(end)} if len(found) > end else {}
    listed = [
        {"Namespace": namespace, "MetricName": name, "Dimensions": [{"Name": k, "Value": v} for k, v in dimensions]}
        for namespace, name, dimensions in found[start:end]
    ]
    return {"Metrics": listed, **more}


def _check_statistics(parameters: Mapping[str, Any]) -> None:
    """Raise :class:`ValidationError` unless a query has a valid period and supported statistics of one kind."""
    period = parameters["Period"]
    if period not in _SHORT_PERIODS and (period < 60 or period % 60):
        message = "The parameter Period must be 1, 5, 10, 20, 30 or a multiple of 60."
        raise ValidationError("InvalidParameterValue", message)
    statistics, percentiles = parameters.get("Statistics") or [], parameters.get("ExtendedStatistics") or []
    if bool(statistics) == bool(percentiles):
        message = "Must specify either Statistics or ExtendedStatistics, but not both."
        raise ValidationError("InvalidParameterCombination", message)
    if not all([*map(_STATISTIC.fullmatch, statistics), *map(_PERCENTILE.fullmatch, percentiles)]):
        message = f"One of the statistics {', '.join([*statistics, *percentiles])} is not supported here."
        raise ValidationError("InvalidParameterValue", message)


def _time_range(parameters: Mapping[str, Any]) -> tuple[float, float]:
    """Return the start and the end of a query's time range. Raises :class:`ValidationError` if they are invalid.

    As in CloudWatch, the start is rounded down to the minute, or to the period if that is shorter. CloudWatch rounds a
    start of more than 15 days ago to five minutes or an hour.
    """
    start, end = unix_time(parameters["StartTime"]), unix_time(parameters["EndTime"])
    if start is None or end is None or start >= end:
        message = "The parameter StartTime must be less than the parameter EndTime."
        raise ValidationError("InvalidParameterValue", message)
    return start - start % min(parameters["Period"], 60), end


def _is_listed(metric: PublishedMetric, parameters: Mapping[str, Any]) -> bool:
    dimensions = dict(metric.dimensions)
    return (
        parameters.get("Namespace") in (None, metric.namespace)
        and parameters.get("MetricName") in (None, metric.name)
        and all(
            each["Name"] in dimensions and each.get("Value") in (None, dimensions[each["Name"]])
            for each in parameters.get("Dimensions") or ()
        )
    )
