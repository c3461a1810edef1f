import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from otel_cloudwatch_flask.cli import main
from otel_cloudwatch_flask.commands.reports.alarm_template import Thresholds, alarms, rounded_up
from otel_cloudwatch_flask.commands.reports.template_formats import cdk, terraform
from otel_cloudwatch_flask.commands.shared.document import SeriesSummary
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch
from tests.support.command_runs import demo_document, demo_result
from tests.support.template_tools import cfn_lint, parsed_terraform, synthesized

DEFAULTS = Thresholds()


def duration(
    route: str, status: str = "200", *, samples: float = 1, p99: float | None = None, unit: str = "Milliseconds"
) -> SeriesSummary:
    """Return a series as recorded by OpenTelemetry's Flask instrumentation."""
    dimensions = (("http.method", "GET"), ("http.status_code", status), ("http.target", route))
    return SeriesSummary("Shop", "http.server.duration", dimensions, unit, samples, 3, p99)


def suggested(*series: SeriesSummary, thresholds: Thresholds = DEFAULTS, routes: int = 10) -> dict[str, dict[str, Any]]:
    """Return the properties of each suggested alarm, by logical ID."""
    template = alarms(series, thresholds, routes=routes).template
    return {name: each["Properties"] for name, each in template["Resources"].items()}


def dimensions_of(query: dict[str, Any]) -> dict[str, str]:
    """Return the dimensions of a query's metric."""
    return {each["Name"]: each["Value"] for each in query["MetricStat"]["Metric"]["Dimensions"]}


def test_the_template_of_the_demo_passes_cfn_lint(tmp_path: Path) -> None:
    """cfn-lint accepts the template; a broken template fails, which shows that cfn-lint works."""
    (tmp_path / "seen.json").write_text(json.dumps(demo_result()), "utf-8")
    result = CliRunner().invoke(main, ["alarms", "--from", str(tmp_path / "seen.json")])
    assert result.exit_code == 0
    assert cfn_lint(tmp_path, result.stdout) == ""
    assert re.fullmatch(r"\d+ alarms on \d+ metrics: \$\d+\.\d\d a month\.\n", result.stderr)
    broken = json.dumps(alarms([SeriesSummary("Shop", "Views")], DEFAULTS, routes=1).template).replace(
        "LessThan", "Less"
    )
    assert "E3030" in cfn_lint(tmp_path, broken)


@pytest.mark.parametrize(("routes", "is_large"), [(3, False), (10, True)])
def test_a_template_that_must_be_deployed_from_a_bucket(routes: int, is_large: bool) -> None:  # noqa: FBT001
    """Above 51,200 bytes, the AWS CLI requires --s3-bucket, and the command says so."""
    series = [
        {"namespace": "Shop", "metric_name": "http.server.duration", "dimensions": dict(each.dimensions)}
        for number in range(routes)
        for each in (duration(f"/route{number}", "200"), duration(f"/route{number}", "404"))
    ]
    result = CliRunner().invoke(main, ["alarms", "--from=-"], input=json.dumps({"series": series}))
    assert (len(result.stdout) > 51_200) is is_large
    hint = (
        f"The template is {len(result.stdout):,} bytes long. To deploy more than 51,200 bytes, pass --s3-bucket BUCKET"
    )
    assert (hint in result.stderr) is is_large


def test_alarms_of_the_demo() -> None:
    """The alarms cover the 5xx rate and latency of the busiest routes, and missing data; their price is shown."""
    made = alarms(demo_document().series, DEFAULTS, routes=3)
    names = made.template["Resources"].keys()
    assert "Silence" in names
    assert sum(name.startswith("Failures") for name in names) == 3
    assert sum(name.startswith("Latency") for name in names) <= 3
    assert made.dollars == pytest.approx(0.1 * made.metrics)


def test_the_5xx_rate_is_relative_to_all_requests_of_a_route() -> None:
    """The rate counts observed and common 5xx statuses, and is 0 in periods with few requests."""
    rate, *queries = suggested(duration("/cart", "200"), duration("/cart", "507"))["FailuresCart"]["Metrics"]
    failed = " + ".join(f"FILL(m{number}, 0)" for number in range(1, 6))
    total = f"{failed} + FILL(m6, 0)"
    assert rate["Expression"] == f"IF({total} >= 50, 100 * ({failed}) / ({total}), 0)"
    statuses = [dimensions_of(query)["http.status_code"] for query in queries]
    assert statuses == ["507", "500", "502", "503", "504", "200"]
    assert {query["MetricStat"]["Stat"] for query in queries} == {"SampleCount"}


@pytest.mark.parametrize(
    ("counts", "state"),
    [
        ({"200": 95, "503": 5}, "ALARM"),
        ({"200": 95, "502": 2, "504": 3}, "ALARM"),
        ({"200": 19, "503": 1}, "OK"),
        ({"200": 100}, "OK"),
        ({}, "OK"),
    ],
)
def test_an_alarm_fires_on_statuses_that_were_not_observed(counts: dict[str, int], state: str) -> None:
    """The rate counts 5xx statuses that were not in the preview, unless the period has too few requests."""
    template = alarms([duration("/cart", "200")], DEFAULTS, routes=1).template
    cloudwatch = FakeCloudWatch(clock=lambda: 1_800_000_000.0)
    for status, count in counts.items():
        series = duration("/cart", status)
        pairs = [{"Name": name, "Value": value} for name, value in series.dimensions]
        for ago in (0, 300):
            datum: dict[str, Any] = {"MetricName": series.name, "Dimensions": pairs, "Values": [5], "Counts": [count]}
            datum |= {"Timestamp": 1_800_000_000 - ago, "Unit": series.unit}
            cloudwatch.put_metric_data(Namespace=series.namespace, MetricData=[datum])
    assert cloudwatch.alarm(template, "FailuresCart") == state


@pytest.mark.parametrize("status", ["500", "503"])
def test_alarms_find_the_error_type_of_the_stable_conventions(status: str) -> None:
    """The rate counts 5xx series with the attribute error.type, which OpenTelemetry's stable conventions add."""
    name, method, route = "http.server.request.duration", ("http.request.method", "GET"), ("http.route", "/cart")
    failed = (("error.type", status), method, ("http.response.status_code", status), route)
    good = (method, ("http.response.status_code", "200"), route)
    series = [SeriesSummary("Shop", name, each, "Seconds", 9, 3) for each in (good, failed)]
    for given in (series, series[:1]):
        _, *queries = suggested(*given)["FailuresCart"]["Metrics"]
        watched = [tuple(dimensions_of(query).items()) for query in queries]
        assert (len(watched), watched[-1]) == (5, good)
        assert failed in watched


def test_names_say_app_and_route_and_are_unique() -> None:
    """Alarms are named after the namespace and the route; equal names are numbered."""
    names = [each["AlarmName"] for each in suggested(duration("/cart"), duration("/" + "x" * 300 + "1")).values()]
    assert names[0] == "Shop: 5xx rate of GET /cart"
    series = [duration("/" + "x" * 300 + end) for end in "12"]
    found = [each["AlarmName"] for each in suggested(*series).values()]
    assert len(set(found)) == len(found) == 5
    assert max(map(len, found)) == 255


def test_an_alarm_has_at_most_ten_metrics() -> None:
    """The series with the fewest requests are omitted to stay within CloudWatch's limit."""
    statuses = [*map(str, range(200, 212)), *map(str, range(500, 512))]
    series = [duration("/", status, samples=1000 - int(status)) for status in statuses]
    found = suggested(*series)["Failures"]["Metrics"][1:]
    assert len(found) == 10
    assert [dimensions_of(query)["http.status_code"] for query in found[:5]] == ["500", "501", "502", "503", "504"]


@pytest.mark.parametrize(
    ("series", "thresholds", "threshold"),
    [
        (duration("/", p99=170.0), DEFAULTS, 400.0),
        (duration("/", p99=0.17, unit="Seconds"), DEFAULTS, 0.4),
        (duration("/", p99=0.0), DEFAULTS, 100.0),
        (duration("/"), DEFAULTS, 1000.0),
        (duration("/", p99=170.0), Thresholds(latency_seconds=0.25), 250.0),
        (duration("/", unit="Seconds"), Thresholds(latency_seconds=0.25), 0.25),
    ],
)
def test_the_latency_threshold_is_twice_the_observed_p99(
    series: SeriesSummary, thresholds: Thresholds, threshold: float
) -> None:
    """The threshold is twice the observed p99, rounded up, or the configured one, in the unit of the metric."""
    found = suggested(series, thresholds=thresholds)["Latency"]
    assert (found["ExtendedStatistic"], found["Threshold"]) == ("p99", threshold)


@pytest.mark.parametrize(
    ("name", "route", "threshold", "unit"),
    [
        ("http.server.duration", "http.target", 1000.0, "Milliseconds"),
        ("http.server.request.duration", "http.route", 1.0, "Seconds"),
    ],
)
def test_a_threshold_without_a_known_unit(name: str, route: str, threshold: float, unit: str) -> None:
    """For metrics from ListMetrics, which returns no units, the unit is that of OpenTelemetry's conventions."""
    found = suggested(SeriesSummary("Shop", name, ((route, "/"),)))["Latency"]
    assert (found["Threshold"], found["AlarmDescription"]) == (threshold, f"p99 too high, in {unit}: /")


def test_anomaly_detection_learns_the_latency_threshold(tmp_path: Path) -> None:
    """The alarm compares the p99 with a band, is billed as three metrics, and is valid in each format."""
    made = alarms([duration("/")], Thresholds(is_learned=True), routes=1)
    found = made.template["Resources"]["Latency"]["Properties"]
    p99, band = found["Metrics"]
    assert (p99["MetricStat"]["Stat"], band["Expression"]) == ("p99", "ANOMALY_DETECTION_BAND(p99, 2)")
    assert (found["ThresholdMetricId"], found["ComparisonOperator"]) == (band["Id"], "GreaterThanUpperThreshold")
    assert "Threshold" not in found
    assert made.metrics == alarms([duration("/")], DEFAULTS, routes=1).metrics + 2
    assert cfn_lint(tmp_path, json.dumps(made.template)) == ""
    assert 'threshold_metric_id = "expected"' in terraform(made.template)
    assert '"ThresholdMetricId": "expected"' in cdk(made.template)


def test_latency_alarms_ignore_errors() -> None:
    """Latency alarms watch successful responses; a route without successful responses has no latency alarm."""
    found = suggested(duration("/", "404", samples=9), duration("/", "200"))["Latency"]
    assert {"Name": "http.status_code", "Value": "200"} in found["Dimensions"]
    assert "Latency" not in suggested(duration("/", "500"))


def test_the_missing_data_alarm_watches_the_most_frequent_series() -> None:
    """The alarm treats missing data as breaching."""
    rare, often = SeriesSummary("Shop", "Refunds", flushes=1), SeriesSummary("Shop", "Views", flushes=9)
    found = suggested(rare, often)
    assert list(found) == ["Silence"]
    assert (found["Silence"]["MetricName"], found["Silence"]["TreatMissingData"]) == ("Views", "breaching")


def test_only_the_busiest_routes_get_alarms() -> None:
    """Routes are ordered by their number of requests."""
    series = [duration(f"/{number}", samples=number) for number in range(20)]
    assert [name for name in suggested(*series, routes=2) if name.startswith("Failures")] == [
        "Failures19",
        "Failures18",
    ]


def test_logical_ids_are_unique_and_alphanumeric() -> None:
    """Logical IDs are unique and alphanumeric, whatever the routes."""
    routes = ["/a-b", "/a/b", "/<b>", "/🦄", "/", "/" + "x" * 1000, "/" + "x" * 1001, "/cart", "/cart/n3", "/cart/"]
    found = suggested(*map(duration, routes))
    assert len(found) == 2 * len(routes) + 1
    assert all(name.isascii() and name.isalnum() and len(name) < 255 for name in found)


def test_resource_names_are_unique_in_terraform() -> None:
    """Routes whose logical IDs would differ only in case get different resources."""
    template = alarms([duration("/ab"), duration("/a-b")], DEFAULTS, routes=10).template
    names = re.findall(r'^resource "\w+" "(\w+)"', terraform(template), re.MULTILINE)
    assert len(names) == len(set(names)) == 5


def test_hostile_routes_pass_cfn_lint(tmp_path: Path) -> None:
    """No part of a route is interpreted as a parameter, YAML or markup."""
    routes = ["/: {a: b}", "/${AWS::Region}", '/"quoted" # no comment', "/%TAB% - [x]", "/!Ref x"]
    made = alarms([duration(route) for route in routes], DEFAULTS, routes=10)
    assert cfn_lint(tmp_path, json.dumps(made.template)) == ""


@pytest.mark.parametrize(("form", "status"), [("cloudformation", 2), ("cdk", 2), ("terraform", 0)])
def test_a_dimension_that_cloudformation_would_replace(form: str, status: int) -> None:
    """No template is created. Otherwise, a client whose input becomes a dimension could copy a secret into an alarm."""
    value = "{{resolve:secretsmanager:db:SecretString:password}}"
    series = {"namespace": "Shop", "metric_name": "Views", "dimensions": {"Page": value}}
    arguments = ["alarms", "--from=-", "--format", form]
    result = CliRunner().invoke(main, arguments, input=json.dumps({"series": [series]}))
    assert result.exit_code == status
    assert (value in result.stdout) is (status == 0)
    assert ("contains {{resolve:, which CloudFormation would replace" in result.stderr) is (status == 2)


TOPIC = "arn:aws:sns:eu-central-1:111122223333:on-call"
HOSTILE = ("/${AWS::Region}", "/%{if}", '/"quoted" # {x}', "/<int:id>\\", "/'x'", "/ünï")


def test_terraform_reads_the_alarms() -> None:
    """The configuration has the alarms of the template, and no part of a route is interpreted."""
    template = alarms([duration(route, p99=1.0) for route in HOSTILE], DEFAULTS, routes=10).template
    text = terraform(template)
    read = parsed_terraform(text)
    assert len(read["resource"]) == len(template["Resources"])
    assert len(read["variable"]) == 1
    assert '"http.target" = "/$${AWS::Region}"' in text
    assert '"http.target" = "/%%{if}"' in text
    assert "evaluate_low_sample_count_percentiles" in text


def test_the_cdk_synthesizes_the_same_alarms(tmp_path: Path) -> None:
    """The stack is a Python module from which the CDK creates the properties of the template."""
    template = alarms([duration(route, p99=1.0) for route in HOSTILE], DEFAULTS, routes=10).template
    made = synthesized(tmp_path, cdk(template), topic_arn=TOPIC)
    assert made.keys() == template["Resources"].keys()
    for name, resource in template["Resources"].items():
        actions = {"AlarmActions": [TOPIC], "OKActions": [TOPIC]}
        assert made[name] == {"Type": resource["Type"], "Properties": {**resource["Properties"], **actions}}


def test_the_stack_has_the_properties_of_the_template(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python reads each text as it is, even if the text contains a line separator. A stub replaces the CDK."""
    template = alarms([duration(route, p99=1.0) for route in (*HOSTILE, "/a\u2028b\x85")], DEFAULTS, routes=10).template
    made: dict[str, Any] = {}
    stack = type("Stack", (), {"__init__": lambda *_arguments: None})
    stub = SimpleNamespace(Stack=stack, CfnResource=lambda _stack, name, **options: made.update({name: options}))
    monkeypatch.setitem(sys.modules, "aws_cdk", stub)
    namespace: dict[str, Any] = {}
    exec(cdk(template), namespace)  # noqa: S102 - the module that the command prints
    namespace["Monitoring"](None, "Stack", topic_arn=TOPIC)
    actions = {"AlarmActions": [TOPIC], "OKActions": [TOPIC]}
    assert made == {
        name: {"type": resource["Type"], "properties": {**resource["Properties"], **actions}}
        for name, resource in template["Resources"].items()
    }


@pytest.mark.parametrize(("form", "begin"), [("terraform", 'variable "topic_arn" {'), ("cdk", '"""Alarms on metrics')])
def test_the_format_is_an_option(tmp_path: Path, form: str, begin: str) -> None:
    """--format selects the format of the output."""
    (tmp_path / "seen.json").write_text(json.dumps(demo_result()), "utf-8")
    result = CliRunner().invoke(main, ["alarms", "--from", str(tmp_path / "seen.json"), "--format", form])
    assert (result.exit_code, result.stdout.startswith(begin)) == (0, True)


def test_rounding_up() -> None:
    """The result is at least the value, and at most 1.5 times the value."""
    for value in (0.001, 0.99, 1, 1.01, 7, 9.5, 12345):
        assert value <= rounded_up(value) <= 1.5 * value
