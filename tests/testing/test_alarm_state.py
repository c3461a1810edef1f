"""Alarms of a template are evaluated on published metrics, as documented by CloudWatch."""

import json
import re
from typing import Any

import pytest

from otel_cloudwatch_flask.commands.reports.alarm_template import Thresholds, alarms
from otel_cloudwatch_flask.commands.shared.document import SeriesSummary
from otel_cloudwatch_flask.testing.alarm_state import State, judged
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch

NOW = 1_800_000_000.0
TREATMENTS = ["missing", "ignore", "breaching", "notBreaching"]
POINTS = {"-": None, "0": False, "X": True}

# The tables of https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html: the number
# of breaching points needed, the points (X is breaching, - is missing), and the state for each of the TREATMENTS.
TABLES: list[tuple[int, str, str, str, str, str]] = [
    (3, "0-X-X", "OK", "OK", "OK", "OK"),
    (3, "0----", "OK", "OK", "OK", "OK"),
    (3, "-----", "INSUFFICIENT_DATA", "kept", "ALARM", "OK"),
    (3, "0XX-X", "ALARM", "ALARM", "ALARM", "ALARM"),
    (3, "--X--", "ALARM", "kept", "ALARM", "OK"),
    (2, "0-X-X", "ALARM", "ALARM", "ALARM", "ALARM"),
    (2, "00X0X", "ALARM", "ALARM", "ALARM", "ALARM"),
    (2, "0-X--", "OK", "OK", "ALARM", "OK"),
    (2, "----0", "OK", "OK", "ALARM", "OK"),
    (2, "---X-", "ALARM", "kept", "ALARM", "OK"),
    # Three rows from an earlier edition, in doc_source/AlarmThatSendsEmail.md of github.com/awsdocs. Today's page
    # describes these cases in "Avoiding premature transitions to alarm state", without giving their states.
    (3, "----X", "INSUFFICIENT_DATA", "kept", "ALARM", "OK"),
    (3, "X----", "ALARM", "kept", "ALARM", "OK"),
    (2, "----X", "INSUFFICIENT_DATA", "kept", "ALARM", "OK"),
]


@pytest.mark.parametrize("state", ["OK", "ALARM"])
@pytest.mark.parametrize(
    ("needed", "points", "results"), [(needed, points, results) for needed, points, *results in TABLES]
)
def test_missing_data(needed: int, points: str, results: list[str], state: State) -> None:
    """The states are those of the documentation's tables."""
    for treatment, result in zip(TREATMENTS, results, strict=True):
        found = judged([POINTS[each] for each in points], needed=needed, periods=3, missing=treatment, state=state)
        assert found == (state if result == "kept" else result), treatment


def series(status: str = "200", *, flushes: int = 3) -> SeriesSummary:
    """Return a series as recorded by OpenTelemetry's Flask instrumentation."""
    dimensions = (("http.method", "GET"), ("http.status_code", status), ("http.target", "/cart"))
    return SeriesSummary("Shop", "http.server.duration", dimensions, "Milliseconds", 9, flushes, 40.0)


TEMPLATE = alarms([series(), series("503", flushes=1)], Thresholds(), routes=1).template
NAMES = {name[:7]: name for name in TEMPLATE["Resources"]}
FAILURES, LATENCY, SILENCE = NAMES["Failure"], NAMES["Latency"], NAMES["Silence"]


def published(*periods: tuple[int, int], milliseconds: float = 20.0, age: int = 0) -> FakeCloudWatch:
    """Return a fake CloudWatch with requests and failures in the last five-minute periods, the latest last."""
    fake = FakeCloudWatch(clock=lambda: NOW)
    for ago, counts in enumerate(reversed(periods)):
        for status, count in zip(("200", "503"), counts, strict=True):
            pairs = [{"Name": name, "Value": value} for name, value in series(status).dimensions]
            datum: dict[str, Any] = {"MetricName": "http.server.duration", "Dimensions": pairs, "Unit": "Milliseconds"}
            datum |= {"Timestamp": NOW - 300 * (ago + age), "Values": [milliseconds], "Counts": [count]}
            if count:
                fake.put_metric_data(Namespace="Shop", MetricData=[datum])
    return fake


@pytest.mark.parametrize(
    ("periods", "state"),
    [
        ([(100, 0), (100, 0), (100, 0)], "OK"),
        ([(100, 5), (100, 0), (100, 0)], "OK"),
        ([(100, 5), (100, 0), (100, 5)], "ALARM"),
        ([(0, 100), (0, 100)], "ALARM"),
        ([], "OK"),
    ],
)
def test_failures(periods: list[tuple[int, int]], state: str) -> None:
    """The failure rate breaches the threshold in two of three periods; without requests, the rate is 0."""
    assert published(*periods).alarm(TEMPLATE, FAILURES) == state


def test_parameters() -> None:
    """Given parameters replace the template's defaults."""
    cloudwatch = published((100, 5), (100, 5))
    alarm = {**TEMPLATE["Resources"][FAILURES]["Properties"], "Threshold": {"Ref": "Percent"}}
    template = {"Parameters": {"Percent": {"Default": 5}}, "Resources": {"Failures": {"Properties": alarm}}}
    assert cloudwatch.alarm(template, "Failures", Percent=4) == "ALARM"
    assert cloudwatch.alarm(template, "Failures") == "OK"


def test_numbers_that_are_strings() -> None:
    """Numbers in a template may be strings, as the defaults of parameters often are."""
    template = json.loads(re.sub(r'(?<=": )[0-9.]+', r'"\g<0>"', json.dumps(TEMPLATE)))
    assert template["Resources"][SILENCE]["Properties"]["Period"] == "300"
    assert published((100, 5), (100, 5)).alarm(template, FAILURES) == "ALARM"
    assert published((9, 9), age=5).alarm(template, SILENCE) == "ALARM"


# Samples per percentile, from https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/
# percentiles-with-low-samples.html: 10/(1-percentile) from p50 up, 10/percentile below; p0 and p100 are not included.
@pytest.mark.parametrize(
    ("percentile", "enough"), [("p99", 1000), ("p90", 100), ("p50", 20), ("p10", 100), ("p1", 1000), ("p100", 1)]
)
def test_low_sample_counts(percentile: str, enough: int) -> None:
    """An alarm on a percentile keeps its state if a period has fewer samples than CloudWatch requires."""
    metric = {"Namespace": "Shop", "MetricName": "http.server.duration", "ExtendedStatistic": percentile, "Period": 300}
    pairs = [{"Name": name, "Value": text} for name, text in series().dimensions]
    limits = {"Threshold": 10, "ComparisonOperator": "GreaterThanThreshold", "EvaluationPeriods": 1}
    properties = {**metric, **limits, "Dimensions": pairs, "EvaluateLowSampleCountPercentile": "ignore"}
    template = {"Resources": {"Alarm": {"Properties": properties}}}
    assert published((enough, 0)).alarm(template, "Alarm") == "ALARM"
    assert published((enough - 1, 0)).alarm(template, "Alarm", "INSUFFICIENT_DATA") == "INSUFFICIENT_DATA"


@pytest.mark.parametrize(("milliseconds", "state"), [(-5.0, "INSUFFICIENT_DATA"), (5.0, "ALARM")])
def test_percentiles_of_negative_values(milliseconds: float, state: str) -> None:
    """For an alarm on a percentile, a period with negative values has no data."""
    metric = {"Namespace": "Shop", "MetricName": "http.server.duration", "ExtendedStatistic": "p50", "Period": 300}
    pairs = [{"Name": name, "Value": text} for name, text in series().dimensions]
    limits = {"Threshold": 10, "ComparisonOperator": "LessThanThreshold", "EvaluationPeriods": 1}
    template = {"Resources": {"Alarm": {"Properties": {**metric, **limits, "Dimensions": pairs}}}}
    assert published((1000, 0), milliseconds=milliseconds).alarm(template, "Alarm") == state


def test_few_samples_before_the_evaluated_periods() -> None:
    """Only the evaluated periods of an alarm need enough samples."""
    cloudwatch = published((1, 0), (1, 0), (1000, 0), (1000, 0), (1000, 0), milliseconds=500)
    assert cloudwatch.alarm(TEMPLATE, LATENCY, "OK") == "ALARM"


@pytest.mark.parametrize(("requests", "state"), [(1000, "ALARM"), (999, "OK")])
def test_few_samples(requests: int, state: str) -> None:
    """With fewer than 1,000 samples in a period, the alarm on p99 keeps its state."""
    cloudwatch = published((requests, 0), (requests, 0), milliseconds=500)
    assert cloudwatch.alarm(TEMPLATE, LATENCY, "OK") == state


@pytest.mark.parametrize(("age", "state"), [(0, "OK"), (4, "OK"), (5, "ALARM")])
def test_silence(age: int, state: str) -> None:
    """With missing data treated as breaching, the alarm goes off when the whole evaluation range has no data."""
    cloudwatch = published((9, 9), (9, 9), (9, 9), age=age)
    assert cloudwatch.alarm(TEMPLATE, SILENCE) == state


@pytest.mark.parametrize(
    ("statistic", "value"), [("Sum", 40), ("Average", 20), ("Minimum", 20), ("Maximum", 20), ("SampleCount", 2)]
)
def test_statistics(statistic: str, value: float) -> None:
    """An alarm compares its own statistic with the threshold."""
    metric = {"Namespace": "Shop", "MetricName": "http.server.duration", "Statistic": statistic, "Period": 300}
    pairs = [{"Name": name, "Value": text} for name, text in series().dimensions]
    alarm: dict[str, Any] = {**metric, "Dimensions": pairs, "Threshold": value, "EvaluationPeriods": 1}
    for comparison, state in (("GreaterThanThreshold", "OK"), ("LessThanOrEqualToThreshold", "ALARM")):
        template = {"Resources": {"Alarm": {"Properties": {**alarm, "ComparisonOperator": comparison}}}}
        assert published((2, 0)).alarm(template, "Alarm") == state


def test_unknown_names() -> None:
    """The error for an unknown alarm lists the alarms of the template."""
    with pytest.raises(LookupError, match=FAILURES):
        published().alarm(TEMPLATE, "Failure")


@pytest.mark.parametrize("statistic", ["tm99", "IQM", "PR(0:5)"])
def test_unknown_statistics(statistic: str) -> None:
    """A statistic that the fake cannot compute is rejected by its name."""
    metric = {"Namespace": "Shop", "MetricName": "http.server.duration", "ExtendedStatistic": statistic, "Period": 300}
    pairs = [{"Name": name, "Value": text} for name, text in series().dimensions]
    limits = {"Threshold": 10, "ComparisonOperator": "LessThanThreshold", "EvaluationPeriods": 1}
    template = {"Resources": {"Alarm": {"Properties": {**metric, **limits, "Dimensions": pairs}}}}
    with pytest.raises(NotImplementedError, match=re.escape(statistic)):
        published((100, 0)).alarm(template, "Alarm")


@pytest.mark.parametrize("expression", ["ANOMALY_DETECTION_BAND(m1)", "1 = 1", "m1; m2", "REPEAT"])
def test_unknown_metric_math(expression: str) -> None:
    """Unsupported metric math is rejected; the error contains the expression."""
    query = {"Id": "e1", "Expression": expression, "ReturnData": True}
    alarm = {"Metrics": [query], "ComparisonOperator": "LessThanThreshold", "Threshold": 1, "EvaluationPeriods": 1}
    with pytest.raises(NotImplementedError, match=re.escape(expression)):
        published().alarm({"Resources": {"Alarm": {"Properties": alarm}}}, "Alarm")
