"""Suggest alarms for an app's metrics as a CloudFormation template.

https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-cloudwatch-alarm.html
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Any, Final

from otel_cloudwatch_flask.commands.reports.request_series import RequestSeries, request_series
from otel_cloudwatch_flask.commands.reports.template_formats import MAX_NAME_LENGTH, Resource, printable, template_of
from otel_cloudwatch_flask.commands.shared.document import SeriesSummary
from otel_cloudwatch_flask.model.http_metrics import ACTIVE_REQUESTS, ERROR_TYPE, PER_SECOND, STABLE_DURATION

DOLLARS_PER_ALARM_METRIC: Final = 0.10
"""The monthly price of a standard-resolution alarm, per metric: https://aws.amazon.com/cloudwatch/pricing/."""
_MAX_METRICS_PER_ALARM: Final = 10
_PERIOD_SECONDS: Final = 300
_FAILURE_STATUSES: Final = ("500", "502", "503", "504")
"""The statuses that an alarm watches, if its limit allows, even if they have not been observed yet, so that the first
errors trigger it.
"""
_TWO_OF_THREE: Final = {"EvaluationPeriods": 3, "DatapointsToAlarm": 2, "TreatMissingData": "notBreaching"}
_LATENCY_HEADROOM: Final = 2.0
"""The ratio of the threshold, before rounding, to the observed p99."""
_MIN_LATENCY_SECONDS: Final = 0.1
"""The lowest threshold derived from an observed p99, because a preview without a network is unusually fast."""
_DEFAULT_LATENCY_SECONDS: Final = 1.0
_BAND_WIDTH: Final = 2
"""How far the band of expected values extends to each side, in standard deviations: CloudWatch's default."""
_NOT_ALPHANUMERIC: Final = re.compile(r"[^A-Za-z0-9]+")
_MAX_ID_LENGTH: Final = 100


@dataclass(frozen=True, slots=True)
class Alarms:
    """A CloudFormation template, and the number of metrics for which its alarms are billed."""

    template: dict[str, Any]
    metrics: int

    @property
    def dollars(self) -> float:
        """The monthly price of the alarms."""
        return self.metrics * DOLLARS_PER_ALARM_METRIC


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The percentage of 5xx responses and the p99 latency above which an alarm is triggered.

    The percentage counts as 0 in a period with fewer requests than ``minimum_requests``. If ``latency_seconds`` is
    ``None``, the latency threshold is derived from the observed p99, or is 1 second if there is none. If ``is_learned``
    is true, CloudWatch's anomaly detection learns it instead.
    """

    error_percent: float = 1.0
    minimum_requests: int = 50
    latency_seconds: float | None = None
    is_learned: bool = False


def alarms(series: Sequence[SeriesSummary], thresholds: Thresholds, *, routes: int) -> Alarms:
    """Suggest alarms on the 5xx rate and p99 latency of the busiest routes, and one alarm on missing data.

    ``series`` must not be empty. ``routes`` is the maximum number of routes; each method of a route counts separately.
    """
    named: dict[str, Resource] = {}
    for group in _busiest(request_series(series), routes):
        for kind, alarm in _route_alarms(group, thresholds):
            _add(named, f"{kind} {group[0].route}", alarm)
    _add(named, "Silence", _silence_alarm(series))
    return Alarms(_template(series, named), sum(map(_metric_count, named.values())))


def _route_alarms(group: Sequence[RequestSeries], thresholds: Thresholds) -> Iterator[tuple[str, Resource]]:
    # Without a status dimension, 5xx responses cannot be distinguished from other responses.
    if all(each.status for each in group):
        yield "Failures", _failure_alarm(group, thresholds)
    # Error responses are excluded because they are often faster than successful ones.
    successful = [each for each in group if each.is_duration and not each.is_error]
    if successful:
        yield "Latency", _latency_alarm(successful[0], thresholds)


def rounded_up(value: float) -> float:
    """Round a positive number up to 1, 1.5, 2, 3, 4, 5, 6 or 8 times a power of ten.

    >>> [rounded_up(value) for value in (0.0123, 17.0, 200.0)]
    [0.015, 20.0, 200.0]
    """
    unit = 10.0 ** math.floor(math.log10(value))
    steps = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
    return next(round(step * unit, 12) for step in steps if step * unit >= value * (1 - 1e-12))


def _busiest(requests: Iterable[RequestSeries], routes: int) -> list[list[RequestSeries]]:
    """Group series that differ only in status.

    Returns the ``routes`` groups with the most requests, busiest first.
    """
    groups: defaultdict[tuple[Any, ...], list[RequestSeries]] = defaultdict(list)
    # Sorted, so that each group starts with its most frequent series.
    for each in sorted(requests, key=lambda each: -each.series.samples):
        groups[_with_status(each, "").metric].append(each)
    return sorted(groups.values(), key=lambda group: -sum(each.series.samples for each in group))[:routes]


def _failure_alarm(group: Sequence[RequestSeries], thresholds: Thresholds) -> Resource:
    """Return an alarm on the 5xx rate of a route. The alarm works even if no 5xx has been observed yet."""
    failures, others = _failures_and_others(group)
    label = group[0].label(with_status=False)
    statistic = "SampleCount" if group[0].is_duration else "Sum"
    # FILL replaces missing data with 0. Otherwise the result would be missing if any of the statuses did not occur.
    queries = [_query(f"m{number}", each, statistic) for number, each in enumerate([*failures, *others], start=1)]
    filled = [f"FILL({query['Id']}, 0)" for query in queries]
    failed, total = " + ".join(filled[: len(failures)]), " + ".join(filled)
    expression = f"IF({total} >= {thresholds.minimum_requests}, 100 * ({failed}) / ({total}), 0)"
    return {
        "AlarmName": f"{group[0].series.namespace}: 5xx rate of {label}",
        "AlarmDescription": f"5xx rate above threshold: {label}",
        "Metrics": [{"Id": "rate", "Expression": expression, "Label": "5xx, percent", "ReturnData": True}, *queries],
        "ComparisonOperator": "GreaterThanThreshold",
        "Threshold": thresholds.error_percent,
        **_TWO_OF_THREE,
    }


def _failures_and_others(group: Sequence[RequestSeries]) -> tuple[list[SeriesSummary], list[SeriesSummary]]:
    """Return the 5xx series and the other series, limited to the number of metrics that one alarm may have.

    If there is room, the 5xx series include those of common 5xx statuses that have not been observed yet.
    """
    observed = {each.status: each.series for each in group if each.is_failure}
    usual = {status: _with_status(group[0], status) for status in _FAILURE_STATUSES}
    # 5xx series may use at most half of the limit, so that there is always room for the other series.
    failures = list({**observed, **usual, **observed}.values())[: _MAX_METRICS_PER_ALARM // 2]
    others = [each.series for each in group if not each.is_failure]
    return failures, others[: _MAX_METRICS_PER_ALARM - len(failures)]


def _latency_alarm(request: RequestSeries, thresholds: Thresholds) -> Resource:
    """Return an alarm that is triggered if p99 latency exceeds its threshold, or the band of anomaly detection."""
    series, label = request.series, request.label()
    # ListMetrics does not return units.
    unit = series.unit if series.unit in PER_SECOND else request.metric.unit
    common = {
        "AlarmName": f"{series.namespace}: p99 latency of {label}",
        "AlarmDescription": f"p99 too high, in {unit}: {label}",
        **_TWO_OF_THREE,
    }
    if thresholds.is_learned:
        return {
            **common,
            "Metrics": [
                {**_query("p99", series, "p99"), "ReturnData": True},
                {"Id": "expected", "Expression": f"ANOMALY_DETECTION_BAND(p99, {_BAND_WIDTH})", "ReturnData": True},
            ],
            "ThresholdMetricId": "expected",
            "ComparisonOperator": "GreaterThanUpperThreshold",
        }
    return {
        **common,
        **series.members,
        "ExtendedStatistic": "p99",
        "Period": _PERIOD_SECONDS,
        "ComparisonOperator": "GreaterThanThreshold",
        "Threshold": _latency_threshold(series.p99, thresholds, PER_SECOND[unit]),
        # The p99 of few samples is their maximum, so a single slow request at night would trigger the alarm.
        "EvaluateLowSampleCountPercentile": "ignore",
    }


def _latency_threshold(p99: float | None, thresholds: Thresholds, per_second: float) -> float:
    """Return the latency threshold in the unit of ``p99``, of which a second has ``per_second``."""
    if thresholds.latency_seconds is None and p99 is not None:
        return rounded_up(max(_LATENCY_HEADROOM * p99, _MIN_LATENCY_SECONDS * per_second))
    return (thresholds.latency_seconds or _DEFAULT_LATENCY_SECONDS) * per_second


def _silence_alarm(every: Sequence[SeriesSummary]) -> Resource:
    """Return an alarm on missing data in one series.

    The series belongs to the active requests metric or, if there is none, is the one published most often.
    """
    # The up-down counter of active requests is published at every flush, even without traffic.
    steady = [each for each in every if each.name == ACTIVE_REQUESTS] or every
    series = max(steady, key=lambda each: (each.flushes, each.samples))
    return {
        "AlarmName": f"{series.namespace}: no data for {series.name}",
        "AlarmDescription": f"No data for 15 minutes: {series.name}",
        **series.members,
        "Statistic": "SampleCount",
        "Period": _PERIOD_SECONDS,
        "ComparisonOperator": "LessThanThreshold",
        "Threshold": 1,
        "EvaluationPeriods": 3,
        "TreatMissingData": "breaching",
    }


def _with_status(request: RequestSeries, status: str) -> SeriesSummary:
    """Return the series of ``request`` with its status replaced by ``status``."""
    series, name = request.series, request.metric.status
    dimensions = {key: status if key == name else value for key, value in series.dimensions}
    dimensions.pop(ERROR_TYPE, None)
    if series.name == STABLE_DURATION and status.startswith("5"):
        dimensions[ERROR_TYPE] = status
    return SeriesSummary(series.namespace, series.name, tuple(sorted(dimensions.items())), series.unit)


def _query(identity: str, series: SeriesSummary, statistic: str) -> Resource:
    stat = {"Metric": series.members, "Period": _PERIOD_SECONDS, "Stat": statistic}
    return {"Id": identity, "MetricStat": stat, "ReturnData": False}


def _metric_count(alarm: Resource) -> int:
    if "ThresholdMetricId" in alarm:
        return 3  # the metric, and the upper and the lower bound of its band
    return sum("MetricStat" in query for query in alarm.get("Metrics", ())) or 1


def _add(named: dict[str, Resource], words: str, alarm: Resource) -> None:
    """Add an alarm, with a name and a logical ID that no other alarm has.

    The ID consists of ``words``, and has only letters and digits, as CloudFormation requires.
    """
    identity = "".join(word[:1].upper() + word[1:] for word in _NOT_ALPHANUMERIC.split(words))
    names = [each["AlarmName"] for each in named.values()]
    alarm["AlarmName"] = _unique(printable(alarm["AlarmName"]), names, " ({})", MAX_NAME_LENGTH)
    alarm["AlarmDescription"] = printable(alarm["AlarmDescription"])
    named[_unique(identity, named, "N{}", _MAX_ID_LENGTH)] = alarm


def _unique(text: str, others: Iterable[str], suffix: str, length: int) -> str:
    """Shorten ``text`` to ``length``, and end it with a numbered suffix if it is one of ``others``.

    Case is ignored, because Terraform's resources have lowercase names.
    """
    taken = set(map(str.lower, others))
    ends = chain([""], map(suffix.format, count(2)))
    candidates = (text[: length - len(end)] + end for end in ends)
    return next(candidate for candidate in candidates if candidate.lower() not in taken)


def _template(every: Sequence[SeriesSummary], named: Mapping[str, Resource]) -> dict[str, Any]:
    namespaces = ", ".join(dict.fromkeys(each.namespace for each in every))
    notify = {"Fn::If": ["HasTopic", [{"Ref": "TopicArn"}], {"Ref": "AWS::NoValue"}]}
    actions = {"AlarmActions": notify, "OKActions": notify}
    topic = "ARN of the SNS topic to notify. If empty, alarms only change state."
    return template_of(
        {name: {"Type": "AWS::CloudWatch::Alarm", "Properties": {**alarm, **actions}} for name, alarm in named.items()},
        f"Alarms on metrics published by otel_cloudwatch_flask in {namespaces}",
        Parameters={"TopicArn": {"Type": "String", "Default": "", "Description": topic}},
        Conditions={"HasTopic": {"Fn::Not": [{"Fn::Equals": [{"Ref": "TopicArn"}, ""]}]}},
    )
