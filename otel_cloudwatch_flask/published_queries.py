"""CloudWatch's own questions about what was published: GetMetricStatistics and ListMetrics.

moto answers neither as CloudWatch does: it takes dimensions as a filter instead of as the metric's identity, knows no
percentiles and lists a metric once for each of its samples.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, Final

from otel_cloudwatch_flask.published import AcceptedDatum, PublishedMetric, dimensions_of
from otel_cloudwatch_flask.tally import Tally
from otel_cloudwatch_flask.validation import Refusal, unix_time

# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricStatistics.html
_REQUIRED: Final = ("Namespace", "MetricName", "StartTime", "EndTime", "Period")
_STATISTIC: Final = re.compile(r"SampleCount|Average|Sum|Minimum|Maximum")
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
    tallies: defaultdict[tuple[float, str], Tally] = defaultdict(Tally)
    for datum in _asked_for(accepted, parameters):
        tallies[datum.unix_time - datum.unix_time % period, datum.metric.unit].add(datum.content)
    points = [
        {"Timestamp": datetime.fromtimestamp(start, timezone.utc), "Unit": unit, **figures}
        for (start, unit), tally in sorted(tallies.items(), key=lambda each: each[0])
        if (figures := _figures(tally, parameters))
    ]
    return {"Label": parameters["MetricName"], "Datapoints": points}


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
    end = start + _METRICS_PER_PAGE
    more = {"NextToken": str(end)} if len(found) > end else {}
    return {"Metrics": list(found.values())[start:end], **more}


def _question_faults(parameters: Mapping[str, Any]) -> Iterator[Refusal]:
    missing = [name for name in _REQUIRED if parameters.get(name) is None]
    if missing:
        yield Refusal("MissingParameter", f"The parameter {missing[0]} is required.")
        return
    statistics, percentiles = parameters.get("Statistics") or [], parameters.get("ExtendedStatistics") or []
    if bool(statistics) == bool(percentiles):
        message = "Must specify either Statistics or ExtendedStatistics, and not both."
        yield Refusal("InvalidParameterCombination", message)
    if not (all(map(_STATISTIC.fullmatch, statistics)) and all(map(_PERCENTILE.fullmatch, percentiles))):
        message = f"One of the statistics {', '.join([*statistics, *percentiles])} is not supported here."
        yield Refusal("InvalidParameterValue", message)
    yield from _time_faults(parameters)


def _time_faults(parameters: Mapping[str, Any]) -> Iterator[Refusal]:
    start, end = (unix_time(parameters[name]) for name in ("StartTime", "EndTime"))
    if start is None or end is None or start >= end:
        message = "The parameter StartTime must be less than the parameter EndTime."
        yield Refusal("InvalidParameterValue", message)
    if not isinstance(parameters["Period"], (int, float)) or parameters["Period"] < 1:
        yield Refusal("InvalidParameterValue", "The parameter Period must be a number of seconds greater than 0.")


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


def _figures(tally: Tally, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for; nothing where CloudWatch has no percentiles."""
    if percentiles := parameters.get("ExtendedStatistics"):
        found = tally.percentiles([float(name.removeprefix("p")) for name in percentiles])
        has_any = found is not None and tally.minimum >= 0
        return {"ExtendedStatistics": dict(zip(percentiles, found or (), strict=True))} if has_any else {}
    every = {
        "SampleCount": tally.count,
        "Average": tally.sum / tally.count,
        "Sum": tally.sum,
        "Minimum": tally.minimum,
        "Maximum": tally.maximum,
    }
    return {name: every[name] for name in parameters["Statistics"]}


def _is_listed(metric: PublishedMetric, parameters: Mapping[str, Any]) -> bool:
    values = dict(metric.dimensions)
    return (
        parameters.get("Namespace") in (None, metric.namespace)
        and parameters.get("MetricName") in (None, metric.name)
        and all(
            each["Name"] in values and each.get("Value") in (None, values[each["Name"]])
            for each in parameters.get("Dimensions") or ()
        )
    )
