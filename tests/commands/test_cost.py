import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.cli import ScriptInfo
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider

from otel_cloudwatch_flask import CloudWatchMetricsReporter, MetricRule
from otel_cloudwatch_flask.cli import flask_commands, main
from otel_cloudwatch_flask.commands.reports.cost_estimate import (
    Fleet,
    billed,
    by_dimension,
    by_metric,
    by_rule,
    emf_bytes,
)
from otel_cloudwatch_flask.commands.reports.cost_gate import growth, largest_share
from otel_cloudwatch_flask.commands.shared.document import Metric, SeriesSummary
from otel_cloudwatch_flask.delivery.batch import datum_of
from otel_cloudwatch_flask.delivery.emf import EmfEnvelope
from otel_cloudwatch_flask.model.datum import Datum
from otel_cloudwatch_flask.pricing import metrics_dollars
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch
from tests.support.command_runs import demo_document, demo_result, run, run_flask


def metric(name: str, **dimensions: str) -> Metric:
    """Return a metric in the shop's namespace."""
    return Metric("Shop", name, tuple(sorted(dimensions.items())))


ORDERS = [metric("Orders", Payment=payment, Stage="live") for payment in ("card", "invoice", "voucher")]
VIEWS = [metric("Views", Page=page, Status=status) for page in "abcd" for status in ("200", "404")]
EVERY = [*ORDERS, *VIEWS, metric("Report Time")]


def test_the_estimate_agrees_with_the_demo() -> None:
    """Metrics, calls and dollars equal those that the demo reports, under every policy."""
    reported = demo_result()["dollars_per_month"]
    metrics = len(billed(demo_document().series))
    assert metrics == reported["background"]["metrics"]
    estimated = json.loads(run("cost", "--from", "-", "--json", stdin=json.dumps(demo_result())).stdout)
    for ours, theirs in {"as in the data": "background", "interval": "interval"}.items():
        cost = estimated["dollars_per_month"][ours]
        assert cost["requests"] == pytest.approx(reported[theirs]["requests"])
        assert cost["dollars"] == pytest.approx(reported[theirs]["dollars"])


def test_the_output_of_the_demo_can_be_piped_into_cost() -> None:
    """The output of the demo is accepted, and the contributions of all metrics add up to the total."""
    ended = run("cost", "--from", "-", "--json", stdin=json.dumps(demo_result()))
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    assert result["metrics"] == demo_result()["dollars_per_month"]["background"]["metrics"]
    assert sum(each["metrics"] for each in result["by_metric"]) == result["metrics"]
    total = result["dollars_per_month"]["interval"]["metrics_dollars"]
    assert sum(each["saved_dollars"] for each in result["by_metric"]) == pytest.approx(total)


@pytest.mark.parametrize(
    ("fleet", "background", "interval", "sync"),
    [
        (Fleet(1, None, 10, 60), 0.1, 1 / 60, None),
        (Fleet(40, None, 10, 60), 4.0, 40 / 60, None),
        (Fleet(40, 1, 10, 60), 1.0, 40 / 60, 1.0),
        (Fleet(2, 500, 10, 60), 0.2, 2 / 60, 500.0),
        (Fleet(1, 0, 10, 60), 1 / 60, 1 / 60, 1 / 60),
        (Fleet(1, None, 10, 5), 0.2, 0.2, None),
        (Fleet(1, None, 5, 60), 0.2, 1 / 60, None),
        (Fleet(1, None, 0, 60), None, 1 / 60, None),
        (Fleet(1, 7, 0, 60), 7.0, 1 / 60, 7.0),
    ],
)
def test_calls_follow_from_policy_and_processes(
    fleet: Fleet, background: float | None, interval: float, sync: float | None
) -> None:
    """Calls depend on the policy: at most one per request, at least one per interval, or unknown (``None``)."""
    assert fleet.calls_per_second("background") == background
    assert fleet.calls_per_second("interval") == interval
    assert fleet.calls_per_second("sync") == sync


def test_both_outputs_are_estimated() -> None:
    """The price of EMF lines depends on their size: that of the last data points, or a typical size."""
    from_document = json.loads(run("cost", "--from", "-", "--json", stdin=json.dumps(demo_result())).stdout)
    from_number = json.loads(run("cost", "--metrics", str(from_document["metrics"]), "--json").stdout)
    for result in (from_document, from_number):
        api, emf = (result[name]["interval"] for name in ("dollars_per_month", "dollars_per_month_emf"))
        assert result["output"] == "api"
        assert (api["log_gigabytes"], emf["requests"]) == (0, 0)
        assert emf["metrics_dollars"] == api["metrics_dollars"]
    written = sum(len(line) + 1 for line in EmfEnvelope("").texts(last_datums()))
    assert emf_bytes(demo_document().series) == written
    assert from_document["dollars_per_month_emf"]["interval"]["log_gigabytes"] == pytest.approx(written * 43_200 / 1e9)
    assert from_number["dollars_per_month_emf"]["interval"]["log_gigabytes"] == pytest.approx(
        250 * from_document["metrics"] * 43_200 / 1e9
    )


def last_datums() -> list[Datum]:
    """Return the last data point of each of the demo's series, as if they were from one flush."""
    return [
        datum_of({**each["last_datum"], "Timestamp": 1_800_000_000}) for each in demo_result()["document"]["series"]
    ]


def test_the_output_of_the_app_is_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """--max applies to the cost of the app's current output."""
    monkeypatch.setenv("CLOUDWATCH_OUTPUT", "emf")
    result = CliRunner().invoke(main, ["cost", "--metrics", "120", "--processes", "4", "--max", "50"])
    assert result.exit_code == 1
    assert "* background  emf         36.00          0       15.55    51.55\n" in result.output
    assert "$51.55 a month" in result.output


def test_units_do_not_make_metrics() -> None:
    """CloudWatch bills each combination of name and dimensions once, whatever the unit."""
    assert (
        len(billed([SeriesSummary("Shop", "Orders", unit="Count"), SeriesSummary("Shop", "Orders", unit="None")])) == 1
    )


def test_contribution_of_a_metric_name() -> None:
    """The contribution of a name is its number of series; the largest comes first."""
    found = [(each.metric, each.metrics, round(each.saved_dollars, 9)) for each in by_metric(EVERY)]
    assert found == [("Views", 8, 2.4), ("Orders", 3, 0.9), ("Report Time", 1, 0.3)]


def test_contribution_of_a_dimension() -> None:
    """Without a dimension, series that differ only in it become one; a constant dimension saves nothing."""
    found = {(each.metric, each.dimension): (each.values, each.saved_metrics) for each in by_dimension(EVERY)}
    assert found == {
        ("Views", "Page"): (4, 6),
        ("Views", "Status"): (2, 4),
        ("Orders", "Payment"): (3, 2),
        ("Orders", "Stage"): (1, 0),
    }


def test_contribution_of_a_dimension_with_a_rollup() -> None:
    """Without a dimension, its series become the existing rollup."""
    (found,) = by_dimension([metric("Orders", Payment="card"), metric("Orders", Payment="cash"), metric("Orders")])
    assert found.saved_metrics == 2


def test_contribution_of_a_rule() -> None:
    """Rules, their rollups, and metrics without a rule are listed."""
    rules = [MetricRule(match="V*", rollups=[["Page"]]), MetricRule(match="O*", keep_original=True)]
    rollups = [metric("Views", Page=page) for page in "abcd"]
    found = {each.rule: each.saved_metrics for each in by_rule([*EVERY, *rollups], rules)}
    assert found == {"V*": 12, "V*, rollup [Page]": 4, "O*": 3, "(no rule)": 1}


def test_contribution_of_a_rollup_under_the_other_name_of_an_attribute() -> None:
    """A rule that names an attribute by its stable name applies to metrics with the old name, and vice versa."""
    for rollup in (["http.route"], ["http.target"]):
        rules = [MetricRule("Requests", rollups=[rollup])]
        for published in ("http.route", "http.target"):
            found = by_rule([metric("Requests", **{published: path}) for path in "ab"], rules)
            assert {each.rule: each.metrics for each in found} == {
                "Requests": 2,
                f"Requests, rollup [{rollup[0]}]": 2,
            }


@given(st.integers(1, 400_000), st.data())
def test_savings_use_the_price_of_the_last_tier(total: int, data: st.DataObject) -> None:
    """Prices fall with the number of metrics, so dropping metrics saves the price of the last tier."""
    dropped = data.draw(st.integers(0, total))
    saved = metrics_dollars(total) - metrics_dollars(total - dropped)
    assert 0 <= saved <= metrics_dollars(dropped) + 1e-6


def test_a_number_of_metrics_instead_of_a_document(monkeypatch: pytest.MonkeyPatch) -> None:
    """Policy and intervals are those of the settings; options take precedence."""
    monkeypatch.setenv("OTEL_EXPORTER_CLOUDWATCH_FLUSH", "interval")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "30000")
    result = CliRunner().invoke(main, ["cost", "--metrics", "12000", "--processes", "40", "--json"])
    found = json.loads(result.output)
    assert (found["flush"], found["fleet"]["export_interval_seconds"]) == ("interval", 30)
    assert found["dollars_per_month"]["interval"]["requests"] == 40 * 86_400
    assert found["dollars_per_month"]["interval"]["metrics_dollars"] == 3200
    assert "sync" not in found["dollars_per_month"]
    given = CliRunner().invoke(main, ["cost", "--metrics", "1", "--flush", "sync", "--rate", "5", "--json"])
    assert json.loads(given.output)["dollars_per_month"]["sync"]["requests"] == 5 * 30 * 86_400


def test_rules_and_policy_of_the_app_are_used(tmp_path: Path) -> None:
    """``flask cloudwatch cost`` uses the rules and the policy of the loaded app."""
    app = Flask("shop")
    app.config.update(CLOUDWATCH_FLUSH="sync", CLOUDWATCH_RULES=[{"match": "http.server.*", "rollups": [[]]}])
    reporter = CloudWatchMetricsReporter(app, "Shop", FakeCloudWatch(), meter_provider=MeterProvider())
    (tmp_path / "seen.json").write_text(json.dumps(demo_result()), "utf-8")
    info = ScriptInfo(create_app=lambda *_: app)
    result = CliRunner().invoke(flask_commands, ["cost", "--from", str(tmp_path / "seen.json"), "--json"], obj=info)
    reporter.shutdown()
    found = json.loads(result.output)
    assert found["flush"] == "sync"
    rules = {each["rule"]: each["metrics"] for each in found["by_rule"]}
    of_http = [each["metrics"] for each in found["by_metric"] if each["metric"].startswith("http.server.")]
    assert rules["http.server.*"] == sum(of_http)
    assert rules["http.server.*, rollup []"] == 0


@pytest.mark.parametrize("arguments", [[], ["--metrics", "3", "--from", "seen.json"]])
def test_either_a_document_or_a_number_is_required(arguments: list[str]) -> None:
    """Passing both or neither is a usage error."""
    result = CliRunner().invoke(main, ["cost", *arguments])
    assert result.exit_code == 2
    assert "Pass either --from FILE or --metrics NUMBER" in result.output


def test_untrusted_names_are_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Untrusted names are escaped in every table."""
    monkeypatch.setenv("COLUMNS", "80")
    series = [
        {"namespace": "Shop", "metric_name": f"\x1b[2J\u202e{'x' * 1000}", "dimensions": {"\x1b[31m": f"\x07{number}"}}
        for number in range(2)
    ]
    (tmp_path / "seen.json").write_text(json.dumps({"series": series}), "utf-8")
    result = CliRunner().invoke(main, ["cost", "--from", str(tmp_path / "seen.json")])
    assert result.exit_code == 0
    assert all(character.isprintable() or character == "\n" for character in result.output)
    assert "\\x1b[2J\\u202exxx" in result.output
    assert max(map(len, result.output.splitlines())) <= 100


@contextmanager
def served(content: bytes) -> Iterator[str]:
    """Yield a URL that serves this content, like a live page's data."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_arguments: object) -> None:
            """Do not log."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/data.json"
        server.shutdown()
        thread.join()


def test_the_data_of_a_live_page_is_a_document() -> None:
    """The document is read from a URL, with its call rate."""
    document = {"series": [], "requests": 120, "seconds": 60.0}
    with served(json.dumps(document).encode()) as url:
        result = CliRunner().invoke(main, ["cost", "--from", url, "--processes", "3", "--json"])
    cost = json.loads(result.output)["dollars_per_month"]["as in the data"]
    assert cost["requests"] == pytest.approx(3 * 2 * 30 * 86_400)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (EVERY, []),
        (EVERY[1:], []),
        ([*EVERY, metric("Refunds")], ["Refunds is a new metric name, with 1 metric."]),
        ([metric("Report Time", User="7")], ["Report Time has the new dimension User, with 1 value."]),
        (
            [*EVERY, metric("Orders", Payment="cash", Stage="live")],
            ["Orders has 4 metrics instead of 3, because Payment has 4 values instead of 3."],
        ),
        (
            [*ORDERS, metric("Orders", Payment="card"), metric("Orders", Stage="live")],
            ["Orders has 5 metrics instead of 3, because its dimensions have more combinations of values."],
        ),
    ],
)
def test_growth_names_the_metric_and_the_dimension(now: list[Metric], expected: list[str]) -> None:
    """New names, new dimensions, new values and new combinations are distinguished; removals are not growth."""
    assert [*map(str, growth(EVERY, now))] == expected


def test_the_largest_share_names_the_dimension_to_drop() -> None:
    """If no dimension merges series, only the metric is named; without metrics, the text is empty."""
    assert largest_share(EVERY) == " The largest share is Views with 8 metrics, because Page has 4 values."
    assert largest_share([metric("Report Time")]) == " The largest share is Report Time with 1 metric."
    assert not largest_share([])


SHOP = """
from flask import Flask
from otel_cloudwatch_flask import CloudWatchMetricsReporter

app = Flask(__name__)
metrics = CloudWatchMetricsReporter(app, "Shop")


@app.get("/")
def index() -> str:
    metrics.add_metric("Views", 1, "Count", {"Page": "index"})
    return ""
"""


def test_a_ci_job_fails_when_metrics_become_more_expensive(tmp_path: Path) -> None:
    """``--against`` and ``--max`` exit with status 1 and name the cause on standard error; JSON stays valid."""
    main_json, branch_json = (_preview(tmp_path / name, source) for name, source in _VERSIONS.items())
    gate = run("cost", "--from", branch_json, "--against", main_json, "--max", "1", "--json")
    assert gate.returncode == 1
    assert json.loads(gate.stdout)["growth"][0]["dimension"] == "User"
    assert gate.stderr.splitlines() == [
        "$2.89 a month exceeds --max 1. The largest share is Views with 1 metric.",
        f"Compared with {main_json}: Views has the new dimension User, with 1 value.",
    ]
    assert run("cost", "--from", main_json, "--against", branch_json, "--max", "30").returncode == 0


_VERSIONS = {"main": SHOP, "branch": SHOP.replace('"index"}', '"index", "User": "7"}')}


def _preview(folder: Path, source: str) -> str:
    folder.mkdir()
    (folder / "shop.py").write_text(source, "utf-8")
    ended = run_flask(folder / "shop.py", "preview", "--json")
    (folder / "seen.json").write_text(ended.stdout, "utf-8")
    return str(folder / "seen.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metrics", "3", "--against", "main.json"], "--against compares metrics, so it requires --from."),
        (["--metrics", "3", "--max", "30", "--flush", "sync"], "--max requires --rate"),
        (["--metrics", "3", "--max", "nan"], "nan is not a finite number."),
        (["--from", "", "--max", "30"], "Cannot read the file: its name is empty."),
        (["--from", "seen.json", "--against", ""], "Cannot read the file: its name is empty."),
    ],
)
def test_a_gate_that_cannot_decide_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    """If a number to compare is unknown or a variable in a CI job is empty, neither option passes silently."""
    monkeypatch.chdir(tmp_path)
    Path("seen.json").write_text('{"series": []}', "utf-8")
    result = CliRunner().invoke(main, ["cost", *arguments])
    assert result.exit_code == 2
    assert message in result.output
