import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from otel_cloudwatch_flask.cli import main
from otel_cloudwatch_flask.commands.reports.dashboard_body import LATENCY_PERCENTILES, dashboard
from otel_cloudwatch_flask.commands.shared.document import SeenSeries
from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch
from tests.support.command_runs import MINIMAL, demo_document, demo_result, run, run_flask
from tests.support.dashboard_rules import body_faults


def duration(route: str, status: str = "200", method: str = "GET") -> SeenSeries:
    """A series as OpenTelemetry's instrumentation makes it."""
    dimensions = (("http.method", method), ("http.status_code", status), ("http.target", route))
    return SeenSeries("Shop", "http.server.duration", dimensions, "Milliseconds")


def body_of(*series: SeenSeries, title: str = "Shop") -> dict[str, Any]:
    """The dashboard's body."""
    return dashboard(series, region="us-east-1", title=title).body


def charts(body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The properties of each chart, by its title."""
    return {each["properties"]["title"]: each["properties"] for each in body["widgets"] if each["type"] == "metric"}


def shown(body: dict[str, Any]) -> set[tuple[str, ...]]:
    """Every metric that is in a chart: namespace, name and dimensions."""
    return {tuple(line[:-1]) for chart in charts(body).values() for line in chart["metrics"]}


def test_every_metric_of_the_demo_is_in_its_dashboard() -> None:
    """And CloudWatch would take it."""
    series = demo_document().series
    body = body_of(*series)
    assert list(body_faults(json.dumps(body))) == []
    assert shown(body) == {(*each.metric[:2], *sum(each.dimensions, ())) for each in series}
    assert len(shown(body)) == demo_result()["dollars_per_month"]["background"]["metrics"]
    assert charts(body).keys() >= {"Requests a minute", "Errors a minute", "Count, total", "No unit, average"}


def test_requests_errors_and_latency_stand_by_route() -> None:
    """Samples are requests; each percentile has a chart of its own."""
    found = charts(body_of(duration("/"), duration("/cart", "500", "POST"), duration("/cart", "302", "POST")))
    assert found["Requests a minute"]["stat"] == "SampleCount"
    assert [line[-1]["label"] for line in found["Errors a minute"]["metrics"]] == ["POST /cart 500"]
    for percentile in LATENCY_PERCENTILES:
        chart = found[f"Latency by route, {percentile}"]
        assert chart["stat"] == percentile
        assert [line[-1]["label"] for line in chart["metrics"]] == ["GET / 200", "POST /cart 500", "POST /cart 302"]


def test_the_decorators_count_requests_where_nothing_else_does() -> None:
    """Their total is the number of requests; beside durations they are like any other metric."""
    count = SeenSeries("Shop", "RequestCount", (("ResourceName", "Index"), ("StatusCode", "404")), "Count")
    alone = charts(body_of(count))
    assert {title: chart["stat"] for title, chart in alone.items()} == {
        "Requests a minute": "Sum",
        "Errors a minute": "Sum",
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
def test_everything_else_stands_by_its_unit(unit: str, title: str, statistic: str) -> None:
    """With the statistic that says something of it."""
    ((found, chart),) = charts(body_of(SeenSeries("Shop", "Orders", (), unit))).items()
    assert (found, chart["stat"]) == (title, statistic)


def test_what_goes_up_and_down_has_its_maximum() -> None:
    """A sum of levels says nothing."""
    found = charts(body_of(SeenSeries("Shop", "http.server.active_requests", (), "Count")))
    assert found["In progress, maximum"]["stat"] == "Maximum"


def test_widgets_do_not_overlap() -> None:
    """From left to right, in rows."""
    body = body_of(*demo_document().series)
    cells = [
        (column, row)
        for each in body["widgets"]
        for column in range(each["x"], each["x"] + each["width"])
        for row in range(each["y"], each["y"] + each["height"])
    ]
    assert len(cells) == len(set(cells))


@pytest.mark.parametrize("number", [150, 700, 3000])
def test_large_apps_stay_within_the_limits(number: int) -> None:
    """Charts are divided; what has no room is told."""
    series = [SeenSeries("Shop", "Views", (("Page", str(page)),), "Count") for page in range(number)]
    made = dashboard(series, region="us-east-1", title="Shop")
    assert list(body_faults(json.dumps(made.body))) == []
    assert len(made.left_out) == max(number - 2500, 0)
    assert "Count, total (2)" in charts(made.body)


def test_hostile_names_stay_text() -> None:
    """In titles and labels; those that mean something else in a chart are left out."""
    dots = SeenSeries("Shop", "Views", (("Page", "."),))
    labelled = SeenSeries("Shop", "Views", (("Page", "${PROP('MetricName')}"),))
    made = dashboard([dots, labelled], region="us-east-1", title="[Shop](http://127.0.0.1) # *")
    assert made.left_out == (dots,)
    (chart,) = charts(made.body).values()
    assert chart["metrics"][0][-1]["label"] == "Views $ {PROP('MetricName')}"
    assert made.body["widgets"][0]["properties"]["markdown"].startswith("## \\[Shop\\]\\(http://127.0.0.1\\) \\# \\*\n")


def test_it_is_put_and_listed() -> None:
    """As a user would: from a document, under a name; and what ListMetrics has."""
    with LocalCloudWatch() as cloudwatch:
        environment = cloudwatch.environment()
        put = run("dashboard", "--from", "-", "--put", "Shop", environment=environment, said=json.dumps(demo_result()))
        assert put.returncode == 0, put.stderr
        assert "#dashboards/dashboard/Shop" in put.stdout
        kept = json.loads(cloudwatch.client().get_dashboard(DashboardName="Shop")["DashboardBody"])
        assert kept == body_of(*demo_document().series)

        cloudwatch.client().put_metric_data(
            Namespace="Shop", MetricData=[{"MetricName": "Orders", "Value": 1, "Unit": "Count"}]
        )
        listed = run_flask(MINIMAL, "dashboard", "--list", environment=environment)
        assert listed.returncode == 0, listed.stderr
        assert shown(json.loads(listed.stdout)) == {("Shop", "Orders")}


def test_errors_of_aws_say_what_to_do() -> None:
    """One sentence instead of boto3's traceback."""
    environment = {"AWS_ENDPOINT_URL_CLOUDWATCH": "http://127.0.0.1:9", "AWS_REGION": "us-east-1"}
    ended = run("dashboard", "--list", "--namespace", "Shop", environment=environment)
    assert ended.returncode == 2
    assert ended.stderr.startswith("Error: NoCredentialsError: ")
    assert "the policy that the command policy prints" in ended.stderr
    keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    unreachable = run("dashboard", "--list", "--namespace", "Shop", environment={**environment, **keys})
    assert unreachable.returncode == 2
    assert "Look at the network" in unreachable.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Say what there is"),
        (["--list", "--from", "x"], "Say what there is"),
        (["--from", "EMPTY"], "There is not a single metric"),
        (["--from", "SEEN", "--put", "My Shop"], "'My Shop' is no name"),
        (["--from", "SEEN", "--put", ""], "'' is no name"),
        (["--from", "SEEN", "--put", "a" * 256], "use 1 to 255 characters"),
        (["--from", "SEEN", "--put", "Bücher"], "'Bücher' is no name"),
        (["--from", "SEEN", "--put", "Shop\n"], "is no name"),
    ],
)
def test_wrong_usage(tmp_path: Path, arguments: list[str], message: str) -> None:
    """Exit code 2, and what to give."""
    (tmp_path / "EMPTY").write_text('{"series": []}', "utf-8")
    result = CliRunner().invoke(
        main, ["dashboard", *(str(tmp_path / each) if each.isupper() else each for each in arguments)]
    )
    assert result.exit_code == 2
    assert message in result.output
