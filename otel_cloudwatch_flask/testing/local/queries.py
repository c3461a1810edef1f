"""Answer GetMetricStatistics, GetMetricData and ListMetrics from the accepted datums."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Final

from otel_cloudwatch_flask.observation.tally import Tally
from otel_cloudwatch_flask.testing.published import AcceptedDatum, PublishedMetric, dimensions_of
from otel_cloudwatch_flask.testing.request_rules import ValidationError, unix_time

_STATISTIC: Final = re.compile(r"SampleCount|Average|Sum|Minimum|Maximum")
_PERCENTILE: Final = re.compile(r"p(\d{1,2}(?:\.\d{1,10})?|100)")
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_ListMetrics.html
_METRICS_PER_PAGE: Final = 500


def metric_statistics(accepted: Iterable[AcceptedDatum], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Answer GetMetricStatistics, with one data point for each period and unit in which the metric has data.

    The metric must have exactly the given dimensions. As in CloudWatch, there are no percentiles for periods that
    contain negative values, or statistic sets whose minimum and maximum differ. Raises :class:`ValidationError` if the
    parameters are invalid.
    """
    _check(parameters)
    period, statistics = int(parameters["Period"]), parameters.get("Statistics")
    tallies: defaultdict[tuple[float, str], Tally] = defaultdict(Tally)
    for datum in filter(_filter(parameters), accepted):
        tallies[datum.unix_time - datum.unix_time % period, datum.metric.unit].add(datum.content)
    points = []
    for start, unit in sorted(tallies):
        found = {name: tallies[start, unit].statistic(name) for name in statistics or parameters["ExtendedStatistics"]}
        if None not in found.values():
            members = found if statistics else {"ExtendedStatistics": found}
            points.append({"Timestamp": datetime.fromtimestamp(start, timezone.utc), "Unit": unit, **members})
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


def _check(parameters: Mapping[str, Any]) -> None:
    """Raise :class:`ValidationError` for errors that boto3 does not detect before it sends a query."""
    statistics, percentiles = parameters.get("Statistics") or [], parameters.get("ExtendedStatistics") or []
    if bool(statistics) == bool(percentiles):
        message = "Must specify either Statistics or ExtendedStatistics, but not both."
        raise ValidationError("InvalidParameterCombination", message)
    if not all([*map(_STATISTIC.fullmatch, statistics), *map(_PERCENTILE.fullmatch, percentiles)]):
        message = f"One of the statistics {', '.join([*statistics, *percentiles])} is not supported here."
        raise ValidationError("InvalidParameterValue", message)
    start, end = map(unix_time, (parameters["StartTime"], parameters["EndTime"]))
    if start is None or end is None or start >= end:
        message = "The parameter StartTime must be less than the parameter EndTime."
        raise ValidationError("InvalidParameterValue", message)


def _filter(parameters: Mapping[str, Any]) -> Callable[[AcceptedDatum], bool]:
    """Return a predicate that selects the metric's datums in the time range, and with the given unit, if any.

    As in CloudWatch, the start of the range is rounded down to the minute, or to the period if that is shorter.
    """
    identity = (parameters["Namespace"], parameters["MetricName"], dimensions_of(parameters.get("Dimensions")))
    unit = parameters.get("Unit")
    start, end = (unix_time(parameters[name]) or 0.0 for name in ("StartTime", "EndTime"))
    start -= start % min(parameters["Period"], 60)

    def matches(datum: AcceptedDatum) -> bool:
        metric = datum.metric
        return metric.identity == identity and unit in (None, metric.unit) and start <= datum.unix_time < end

    return matches


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
