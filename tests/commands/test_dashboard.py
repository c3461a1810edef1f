import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from otel_cloudwatch_flask.cli import main
from otel_cloudwatch_flask.commands.reports.dashboard_body import LATENCY_PERCENTILES, dashboard
from otel_cloudwatch_flask.commands.reports.template_formats import cdk, terraform
from otel_cloudwatch_flask.commands.shared.document import SeriesSummary
from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch
from tests.support.command_runs import MINIMAL, demo_document, demo_result, finished, run, run_flask
from tests.support.dashboard_rules import body_faults
from tests.support.template_tools import cfn_lint, parsed_terraform, synthesized


def duration(route: str, status: str = "200", method: str = "GET") -> SeriesSummary:
    """Return a series as recorded by OpenTelemetry's Flask instrumentation."""
    dimensions = (("http.method", method), ("http.status_code", status), ("http.target", route))
    return SeriesSummary("Shop", "http.server.duration", dimensions, "Milliseconds")


def body_of(*series: SeriesSummary) -> dict[str, Any]:
    """Return the dashboard body of these series."""
    return dashboard(series, region="us-east-1", name="Shop").body


def charts(body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the properties of each chart, by title."""
    return {each["properties"]["title"]: each["properties"] for each in body["widgets"] if each["type"] == "metric"}


def shown(body: dict[str, Any], series: Iterable[SeriesSummary] = ()) -> set[tuple[str, ...]]:
    """Return the metrics shown in charts: namespace, name and dimensions. Searches select from ``series``."""
    lines = [line for chart in charts(body).values() for line in chart["metrics"]]
    found = [
        each for line in lines for each in series if "expression" in line[-1] and finds(line[-1]["expression"], each)
    ]
    return {tuple(line[:-1]) for line in lines if len(line) > 1} | {
        (each.namespace, each.name, *sum(each.dimensions, ())) for each in found
    }


def finds(expression: str, series: SeriesSummary) -> bool:
    """Return whether CloudWatch would find a series by this search expression."""
    (terms,) = re.findall(r"^SEARCH\('([^']*)', '[A-Za-z0-9]+', 60\)$", expression)
    actual = {"Namespace": series.namespace, "MetricName": series.name, **dict(series.dimensions)}
    wanted = re.findall(r'(NOT )?"?([\w.]+)"?(?:="((?:[^"\\]|\\.)*)"|=\(([^)]*)\))?(?: |$)', terms)
    return all(bool(excluded) != _has(actual, *term) for excluded, *term in wanted)


def _has(actual: dict[str, str], name: str, value: str, choices: str) -> bool:
    value = re.sub(r"\\(.)", r"\1", value)
    return name in actual and (not value or actual[name] == value) and (not choices or f'"{actual[name]}"' in choices)


def test_the_dashboard_of_the_demo_shows_every_metric() -> None:
    """Every metric is shown, and the body satisfies CloudWatch's rules."""
    series = demo_document().series
    body = body_of(*series)
    assert list(body_faults(json.dumps(body))) == []
    assert shown(body, series) == {(*each.metric[:2], *sum(each.dimensions, ())) for each in series}
    assert len(shown(body, series)) == demo_result()["dollars_per_month"]["background"]["metrics"]
    assert charts(body).keys() >= {"Requests per minute", "Errors per minute", "Count, total", "No unit, average"}


def test_requests_errors_and_latency_are_shown_by_route() -> None:
    """Requests are counted by the samples of durations, and each percentile has its own chart."""
    found = charts(body_of(duration("/")))
    assert found["Requests per minute"]["stat"] == "SampleCount"
    statistics = {f"Latency by route, {each}": each for each in LATENCY_PERCENTILES}
    for title, statistic in {"Requests per minute": "SampleCount", **statistics}.items():
        ((line,),) = found[title]["metrics"]
        search = f"""SEARCH('Namespace="Shop" MetricName="http.server.duration" "http.target"', '{statistic}', 60)"""
        assert line["expression"] == search
        assert line["label"] == "${PROP('Dim.http.method')} ${PROP('Dim.http.target')} ${PROP('Dim.http.status_code')}"


def test_routes_and_statuses_that_come_later_are_shown() -> None:
    """Charts include statuses and routes that were not in the preview, but not totals over all routes."""
    found = charts(body_of(duration("/")))
    total = SeriesSummary("Shop", "http.server.duration", (("http.method", "GET"),), "Milliseconds")
    other = SeriesSummary("Other", "http.server.duration", duration("/").dimensions, "Milliseconds")
    for title, chart in found.items():
        ((line,),) = chart["metrics"]
        seen = [each for each in (duration("/", "503"), duration("/new", "404")) if finds(line["expression"], each)]
        assert len(seen) == 2
        assert finds(line["expression"], duration("/new")) == (title != "Errors per minute")
        assert not finds(line["expression"], total)
        assert not finds(line["expression"], other)
        assert len(line["expression"]) <= 1024


def test_request_counts_of_decorators_are_used_without_durations() -> None:
    """The sum of the counts is the number of requests; with durations, counts are charted like any other metric."""
    count = SeriesSummary("Shop", "RequestCount", (("ResourceName", "Index"), ("StatusCode", "404")), "Count")
    alone = charts(body_of(count))
    assert {title: chart["stat"] for title, chart in alone.items()} == {
        "Requests per minute": "Sum",
        "Errors per minute": "Sum",
    }
    assert charts(body_of(count, duration("/"))).keys() >= {"Count, total", "Latency by route, p50"}


@pytest.mark.parametrize(
    ("unit", "title", "statistic"),
    [
        ("Count", "Count, total", "Sum"),
        ("Bytes", "Bytes, total", "Sum"),
        ("Milliseconds", "Milliseconds, p90", "p90"),
        ("Percent", "Percent, average", "Average"),
        ("Bytes/Second", "Bytes/Second, average", "Average"),
        ("None", "No unit, average", "Average"),
    ],
)
def test_other_metrics_are_grouped_by_unit(unit: str, title: str, statistic: str) -> None:
    """The statistic of a chart depends on its unit."""
    ((found, chart),) = charts(body_of(SeriesSummary("Shop", "Orders", (), unit))).items()
    assert (found, chart["stat"]) == (title, statistic)


def test_active_requests_are_shown_by_their_maximum() -> None:
    """Active requests are charted by their maximum, since a sum of current values is meaningless."""
    found = charts(body_of(SeriesSummary("Shop", "http.server.active_requests", (), "Count")))
    assert found["Active requests, maximum"]["stat"] == "Maximum"


def test_widgets_do_not_overlap() -> None:
    """Each cell of the grid belongs to at most one widget."""
    body = body_of(*demo_document().series)
    cells = [
        (column, row)
        for each in body["widgets"]
        for column in range(each["x"], each["x"] + each["width"])
        for row in range(each["y"], each["y"] + each["height"])
    ]
    assert len(cells) == len(set(cells))


@pytest.mark.parametrize(("name", "unit"), [("Views", "Count"), ("http.server.active_requests", "Count")])
def test_dimension_values_that_come_later_are_shown(name: str, unit: str) -> None:
    """A chart shows all series of a metric: other values, other dimensions, and the overflow series."""
    (chart,) = charts(body_of(SeriesSummary("Shop", name, (("Page", "index"),), unit))).values()
    ((line,),) = chart["metrics"]
    assert line["label"] == f"{name} ${{PROP('Dim.Page')}}"
    for dimensions in ([], [("Page", "cart")], [("Page", "cart"), ("Plan", "pro")], [("otel.metric.overflow", "true")]):
        assert finds(line["expression"], SeriesSummary("Shop", name, tuple(dimensions), unit))
    assert not finds(line["expression"], SeriesSummary("Shop", f"{name}s", (("Page", "index"),), unit))
    assert not finds(line["expression"], SeriesSummary("Shops", name, (("Page", "index"),), unit))


def test_totals_of_requests_have_a_chart_of_their_own() -> None:
    """A rollup over all routes is charted separately from the routes."""
    total = SeriesSummary("Shop", "http.server.duration", (("http.method", "GET"),), "Milliseconds")
    found = charts(body_of(duration("/"), total))
    ((line,),) = found["Milliseconds, p90"]["metrics"]
    assert finds(line["expression"], total)
    assert not finds(line["expression"], duration("/new"))


def test_a_search_is_valid_for_any_name() -> None:
    """Quotes, backslashes and parentheses are escaped; metrics that a search cannot name are listed individually."""
    hostile = SeriesSummary("Shop (EU)", 'C:\\Reads "hot"', (("Page", "."),), "Count")
    quoted = SeriesSummary("Shop", "Joe's", (("Page", "index"),), "Count")
    made = body_of(hostile, quoted)
    assert list(body_faults(json.dumps(made))) == []
    assert shown(made, [hostile, quoted]) == {
        ("Shop (EU)", 'C:\\Reads "hot"', "Page", "."),
        ("Shop", "Joe's", "Page", "index"),
    }
    searches = [line[-1]["expression"] for line in charts(made)["Count, total"]["metrics"] if "expression" in line[-1]]
    assert 'MetricName="C:\\\\Reads \\"hot\\""' in searches[0]


def test_requests_in_a_namespace_that_a_search_cannot_name() -> None:
    """The series of requests are listed individually too, because a single quote would end the search."""
    quoted = SeriesSummary("Joe's", "http.server.duration", duration("/").dimensions, "Milliseconds")
    made = body_of(quoted, duration("/"))
    for each in (quoted, duration("/")):
        assert (*each.metric[:2], *sum(each.dimensions, ())) in shown(made, [duration("/")])
    lines = [line[-1] for chart in charts(made).values() for line in chart["metrics"]]
    assert not any("Joe" in line.get("expression", "") for line in lines)


@pytest.mark.parametrize("number", [150, 700, 3000])
def test_large_apps_stay_within_the_limits(number: int) -> None:
    """Charts are split to fit, and series beyond the limits are reported."""
    named = [SeriesSummary("Shop", f"Views{page}", (), "Count") for page in range(number)]
    made = dashboard(named, region="us-east-1", name="Shop")
    assert list(body_faults(json.dumps(made.body))) == []
    assert len(made.omitted) == max(number - 2500, 0)
    assert "Count, total (2)" in charts(made.body)
    paged = [SeriesSummary("Shop", "Views", (("Page", str(page)),), "Count") for page in range(number)]
    made = dashboard([*paged, *named[:1]], region="us-east-1", name="Shop")
    assert len(made.omitted) == max(number - 500, 0)
    assert [len(chart["metrics"]) for chart in charts(made.body).values()] == [1, 1]


def test_a_dashboard_has_at_most_500_charts() -> None:
    """Metrics with so many series that each needs a chart of its own are reported beyond 500 charts."""
    paged = [
        SeriesSummary("Shop", f"Views{name}", (("Page", str(page)),), "Count")
        for name in range(502)
        for page in range(51)
    ]
    made = dashboard(paged, region="us-east-1", name="Shop")
    assert list(body_faults(json.dumps(made.body))) == []
    assert len(charts(made.body)) == 500
    assert len(made.omitted) == 2 * 51


def test_untrusted_names_are_shown_as_text() -> None:
    """Dynamic labels in names are not interpreted."""
    labelled = SeriesSummary("Shop", "${PROP('MetricName')}", (("Page", "index"),))
    made = dashboard([labelled], region="us-east-1", name="Shop")
    (chart,) = charts(made.body).values()
    assert chart["metrics"][0][-1]["label"] == "$ {PROP('MetricName')} index"
    searched = SeriesSummary("Shop", "${LABEL}", labelled.dimensions)
    (chart,) = charts(body_of(searched)).values()
    assert chart["metrics"][0][-1]["label"] == "$ {LABEL} ${PROP('Dim.Page')}"


def test_the_dashboard_in_each_format(tmp_path: Path) -> None:
    """CloudFormation, Terraform and the CDK create the same body, and do not interpret its dynamic labels."""
    made = dashboard([duration("/"), SeriesSummary("Shop", "Orders")], region="us-east-1", name="My Shop, Other")
    template = made.template()
    properties = template["Resources"]["Dashboard"]["Properties"]
    assert properties["DashboardName"] == "My-Shop-Other"
    assert json.loads(properties["DashboardBody"]) == made.body
    assert cfn_lint(tmp_path, json.dumps(template)) == ""
    text = terraform(template)
    assert "$${PROP(" in text
    (line,) = [each.strip() for each in text.splitlines() if "dashboard_body" in each]
    quoted = line.removeprefix("dashboard_body = ").replace("$${", "${").replace("%%{", "%{")
    assert json.loads(json.loads(quoted)) == made.body
    assert "aws_cloudwatch_dashboard" in str(parsed_terraform(text)["resource"])


def test_the_cdk_synthesizes_the_dashboard(tmp_path: Path) -> None:
    """The stack is a Python module from which the CDK creates the same body."""
    made = dashboard([duration("/")], region="us-east-1", name="Shop")
    found = synthesized(tmp_path, cdk(made.template()))["Dashboard"]["Properties"]
    assert (found["DashboardName"], json.loads(found["DashboardBody"])) == ("Shop", made.body)


APP = 'from flask import Flask\n\napp = Flask("shop")\napp.config["CLOUDWATCH_REGION"] = "eu-west-1"\n'


def test_put_and_list() -> None:
    """--put creates a dashboard from a document, and --list prints one for the metrics in CloudWatch."""
    with LocalCloudWatch() as cloudwatch:
        environment = cloudwatch.environment()
        put = run("dashboard", "--from", "-", "--put", "Shop", environment=environment, stdin=json.dumps(demo_result()))
        assert put.returncode == 0, put.stderr
        assert "#dashboards/dashboard/Shop" in put.stdout
        kept = json.loads(cloudwatch.dashboards["Shop"])
        assert kept == body_of(*demo_document().series)
        arguments = ["dashboard", "--from=-", "--put=Shop", "--json"]
        again = CliRunner().invoke(main, arguments, input=json.dumps(demo_result()), env=environment)
        assert json.loads(again.stdout) == {
            "format": "body",
            "output": kept,
            "omitted": 0,
            "url": put.stdout.splitlines()[-1],
        }

        cloudwatch.client().put_metric_data(
            Namespace="Shop", MetricData=[{"MetricName": "Orders", "Value": 1, "Unit": "Count"}]
        )
        listed = run_flask(MINIMAL, "dashboard", "--list", environment=environment)
        assert listed.returncode == 0, listed.stderr
        orders = SeriesSummary("Shop", "Orders")
        assert shown(json.loads(listed.stdout), [orders]) == {("Shop", "Orders")}


@pytest.mark.parametrize(
    ("region", "console"),
    [
        ("eu-central-1", "eu-central-1.console.aws.amazon.com"),
        ("cn-north-1", "cn-north-1.console.amazonaws.cn"),
        ("us-gov-west-1", "us-gov-west-1.console.amazonaws-us-gov.com"),
    ],
)
def test_the_url_of_a_saved_dashboard(region: str, console: str) -> None:
    """The URL is that of the console in the Region's partition."""
    with LocalCloudWatch() as cloudwatch:
        arguments = ["dashboard", "--from=-", "--put=Shop", "--region", region, "--json"]
        document, environment = json.dumps(demo_result()), cloudwatch.environment()
        result = CliRunner().invoke(main, arguments, input=document, env=environment)
    url = f"https://{console}/cloudwatch/home?region={region}#dashboards/dashboard/Shop"
    assert json.loads(result.stdout)["url"] == url


@pytest.mark.parametrize(("program", "region"), [(APP, "eu-west-1"), ("import no_such_module\n", "us-east-1")])
def test_the_region_is_that_of_the_app(tmp_path: Path, program: str, region: str) -> None:
    """The app's own setting takes precedence over the environment, which is used if there is no working app."""
    (tmp_path / "app.py").write_text(program, "utf-8")
    command = [sys.executable, "-m", "flask", "cloudwatch", "dashboard", "--from=-"]
    ended = finished(command, {"AWS_REGION": "us-east-1"}, tmp_path, json.dumps(demo_result()), 100)
    assert ended.returncode == 0, ended.stderr
    assert {chart["region"] for chart in charts(json.loads(ended.stdout)).values()} == {region}


def test_errors_of_aws_have_a_remedy() -> None:
    """An error is printed as one sentence instead of boto3's traceback."""
    environment = {"AWS_ENDPOINT_URL_CLOUDWATCH": "http://127.0.0.1:9", "AWS_REGION": "us-east-1"}
    ended = run("dashboard", "--list", "--namespace", "Shop", environment=environment)
    assert ended.returncode == 2
    assert ended.stderr.startswith("Error: NoCredentialsError: ")
    assert "the policy that the policy command prints" in ended.stderr
    keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    unreachable = run("dashboard", "--list", "--namespace", "Shop", environment={**environment, **keys})
    assert unreachable.returncode == 2
    assert "Check the network" in unreachable.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Pass either --from FILE"),
        (["--list", "--from", "x"], "Pass either --from FILE"),
        (["--from", "EMPTY"], "No metrics found"),
        (["--from", "SEEN", "--put", "My Shop"], "'My Shop' is invalid"),
        (["--from", "SEEN", "--put", ""], "'' is invalid"),
        (["--from", "SEEN", "--put", "a" * 256], "use 1 to 255 characters"),
        (["--from", "SEEN", "--put", "Bücher"], "'Bücher' is invalid"),
        (["--from", "SEEN", "--put", "Shop\n"], "is invalid"),
    ],
)
def test_usage_errors(tmp_path: Path, arguments: list[str], message: str) -> None:
    """The exit status is 2, and the message says what to do."""
    (tmp_path / "EMPTY").write_text('{"series": []}', "utf-8")
    result = CliRunner().invoke(
        main, ["dashboard", *(str(tmp_path / each) if each.isupper() else each for each in arguments)]
    )
    assert result.exit_code == 2
    assert message in result.output
