"""Answer GetMetricStatistics, GetMetricData and ListMetrics.

Only metric math is left to moto, because moto differs from CloudWatch: it treats dimensions as a filter instead of as
part of the metric's identity, has no percentiles, and lists a metric once for each sample.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, Final

from otel_cloudwatch_flask.model.datum import Dimensions
from otel_cloudwatch_flask.observation.tally import Tally
from otel_cloudwatch_flask.testing.published import AcceptedDatum, PublishedMetric, dimensions_of
from otel_cloudwatch_flask.testing.request_rules import ValidationError, unix_time

# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricStatistics.html
_REQUIRED: Final = ("Namespace", "MetricName", "StartTime", "EndTime", "Period")
_STATISTIC: Final = re.compile(r"SampleCount|Average|Sum|Minimum|Maximum")
_PERCENTILE: Final = re.compile(r"p(\d{1,2}(?:\.\d{1,10})?|100)")
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_ListMetrics.html
_METRICS_PER_PAGE: Final = 500


def metric_statistics(
    accepted: Iterable[AcceptedDatum], parameters: Mapping[str, Any]
) -> dict[str, Any] | ValidationError:
    """Answer GetMetricStatistics, with one data point for each period and unit in which the metric has data.

    The metric must have exactly the given dimensions. Percentiles use the nearest rank. As in CloudWatch, there are no
    percentiles for periods that contain negative values, or statistic sets whose minimum and maximum differ.
    """
    error = next(_query_errors(parameters), None)
    if error is not None:
        return error
    period = int(parameters["Period"])
    tallies: defaultdict[tuple[float, str], Tally] = defaultdict(Tally)
    for datum in filter(_filter(parameters), accepted):
        tallies[datum.unix_time - datum.unix_time % period, datum.metric.unit].add(datum.content)
    figures = _percentiles if parameters.get("ExtendedStatistics") else _statistics
    points = [
        {"Timestamp": datetime.fromtimestamp(start, timezone.utc), "Unit": unit, **found}
        for start, unit in sorted(tallies)
        if (found := figures(tallies[start, unit], parameters))
    ]
    return {"Label": parameters["MetricName"], "Datapoints": points}


def metric_data(
    accepted: Iterable[AcceptedDatum], parameters: Mapping[str, Any]
) -> dict[str, Any] | ValidationError | None:
    """Answer GetMetricData by calling :func:`metric_statistics` for each query.

    Returns ``None`` if any query is a math expression.
    """
    queries = parameters.get("MetricDataQueries") or ()
    if not all(query.get("MetricStat") for query in queries):
        return None
    # A list, because each query iterates over the datums.
    datums, results = list(accepted), []
    for query in queries:
        merged = {**parameters, **query["MetricStat"].get("Metric", {}), **query["MetricStat"]}
        name = merged.get("Stat", "")
        kind = "Statistics" if _STATISTIC.fullmatch(name) else "ExtendedStatistics"
        found = metric_statistics(datums, {**merged, kind: [name]})
        if isinstance(found, ValidationError):
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
    """Answer ListMetrics with the metrics that have the given namespace and name, and at least the given dimensions."""
    found = list(dict.fromkeys(metric.identity for metric in metrics if _is_listed(metric, parameters)))
    start = int(parameters.get("NextToken") or 0)
    end = start + _METRICS_PER_PAGE
    more = {"NextToken": str(end)} if len(found) > end else {}
    return {"Metrics": list(map(_listed, found[start:end])), **more}


def _query_errors(parameters: Mapping[str, Any]) -> Iterator[ValidationError]:
    """Yield a query's errors. Only the first is reliable, because each check assumes that the previous ones passed."""
    for name in _REQUIRED:
        if parameters.get(name) is None:
            yield ValidationError("MissingParameter", f"The parameter {name} is required.")
    yield from _statistic_errors(parameters.get("Statistics") or [], parameters.get("ExtendedStatistics") or [])
    yield from _time_errors(parameters)


def _time_errors(parameters: Mapping[str, Any]) -> Iterator[ValidationError]:
    start, end = map(unix_time, (parameters["StartTime"], parameters["EndTime"]))
    if start is None or end is None or start >= end:
        message = "The parameter StartTime must be less than the parameter EndTime."
        yield ValidationError("InvalidParameterValue", message)
    if not isinstance(parameters["Period"], (int, float)) or parameters["Period"] < 1:
        yield ValidationError(
            "InvalidParameterValue", "The parameter Period must be a number of seconds greater than 0."
        )


def _statistic_errors(statistics: list[str], percentiles: list[str]) -> Iterator[ValidationError]:
    if bool(statistics) == bool(percentiles):
        message = "Must specify either Statistics or ExtendedStatistics, but not both."
        yield ValidationError("InvalidParameterCombination", message)
    if not all([*map(_STATISTIC.fullmatch, statistics), *map(_PERCENTILE.fullmatch, percentiles)]):
        message = f"One of the statistics {', '.join([*statistics, *percentiles])} is not supported here."
        yield ValidationError("InvalidParameterValue", message)


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


def _percentiles(tally: Tally, parameters: Mapping[str, Any]) -> dict[str, Any]:
    names = parameters["ExtendedStatistics"]
    found = tally.percentiles(float(name.removeprefix("p")) for name in names)
    if found is None or tally.minimum < 0:
        return {}
    return {"ExtendedStatistics": dict(zip(names, found, strict=True))}


def _statistics(tally: Tally, parameters: Mapping[str, Any]) -> dict[str, Any]:
    every = {
        "SampleCount": tally.count,
        "Average": tally.sum / tally.count,
        "Sum": tally.sum,
        "Minimum": tally.minimum,
        "Maximum": tally.maximum,
    }
    return {name: every[name] for name in parameters["Statistics"]}


def _is_listed(metric: PublishedMetric, parameters: Mapping[str, Any]) -> bool:
    is_named = parameters.get("Namespace") in (None, metric.namespace) and parameters.get("MetricName") in (
        None,
        metric.name,
    )
    return is_named and all(_has(metric, **each) for each in parameters.get("Dimensions") or ())


def _has(metric: PublishedMetric, Name: str, Value: str | None = None) -> bool:  # noqa: N803 - CloudWatch's names
    values = dict(metric.dimensions)
    return Name in values and Value in (None, values[Name])


def _listed(identity: tuple[str, str, Dimensions]) -> dict[str, Any]:
    namespace, name, dimensions = identity
    pairs = [{"Name": key, "Value": value} for key, value in dimensions]
    return {"Namespace": namespace, "MetricName": name, "Dimensions": pairs}
