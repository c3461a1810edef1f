import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from click.testing import CliRunner
from rich.console import Console

from otel_cloudwatch_flask import cli
from otel_cloudwatch_flask.demo import report, run, shop_process
from otel_cloudwatch_flask.demo.comparison import (
    Comparison,
    Expectation,
    Figures,
    between,
    bucket_ratio,
    compare,
    occurrences,
    samples,
    series_of,
    total,
)
from otel_cloudwatch_flask.demo.isolation import isolated_environment
from otel_cloudwatch_flask.demo.load_generator import shop_requests
from otel_cloudwatch_flask.demo.readback import published_series
from otel_cloudwatch_flask.demo.run import Outcome
from otel_cloudwatch_flask.demo.shop_process import ShopProcess, ShopProcessError
from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch, Traffic
from tests.support.fakes import eventually

DEMO = [sys.executable, "-m", "otel_cloudwatch_flask", "demo"]
ORDERS = series_of("Orders", "Count", Payment="card")
THREE = samples((1.0, 1.0, 4.0))
FOUND: Figures = {"samples": 3, "sum": 6, "min": 1, "max": 4, "p50": 1, "p90": 4, "p99": 4}

looks_at_children = pytest.mark.skipif(
    not Path("/proc/thread-self/children").exists(), reason="needs /proc to look at child processes"
)


def outcome(comparisons: list[Comparison], **changes: Any) -> Outcome:
    """Return an outcome in which only the comparisons can be a problem."""
    successful = Outcome(
        seconds=5.0,
        responses=500,
        failures=(),
        comparisons=tuple(comparisons),
        api=Traffic(put_requests=6, bytes_received=9000, datums=120),
        refusals=(),
        delivery={"datums_lost": {}, "datums_pending": 0},
        document={},
        output="api",
    )
    return replace(successful, **changes)


EQUAL = outcome(compare({ORDERS: FOUND}, {ORDERS: THREE}))
UNEQUAL = outcome(compare({ORDERS: {**FOUND, "samples": 4}}, {ORDERS: THREE}))


@pytest.mark.parametrize(("opt_in", "output"), [("", "api"), ("http", "emf")])
def test_all_numbers_match(opt_in: str, output: str) -> None:
    """The command finds no differences, with old and new HTTP semantic conventions, and with both outputs."""
    environment = {**os.environ, "AWS_PROFILE": "of-somebody-else", "OTEL_SEMCONV_STABILITY_OPT_IN": opt_in}
    completed = subprocess.run(
        [*DEMO, "--seconds", "2", "--output", output, "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    result = json.loads(completed.stdout)
    assert (result["equal"], result["problems"], completed.stderr) == (True, [], "")
    assert result["requests"] > 50
    assert 0 < result["delivery"]["requests_sent"] < 10
    assert (result["put_metric_data"]["refused"], result["delivery"]["datums_lost"]) == (0, {})
    by_name = {metric["metric"]: metric for metric in result["metrics"]}
    assert by_name["Basket Size"]["cloudwatch"].keys() == by_name["Basket Size"]["counted"].keys() == FOUND.keys()
    duration = "http.server.request.duration" if opt_in else "http.server.duration"
    assert by_name[duration]["cloudwatch"]["p99"] > 0
    assert by_name["shop.product.views"]["counted"].keys() == {"sum"}
    assert any(metric["dimensions"].get("Kind") == "refund" for metric in result["metrics"])
    costs = result["dollars_per_month"]["background"]
    assert (costs["requests_dollars"] > 0, costs["logs_dollars"] > 0) == (output == "api", output == "emf")
    assert result["dollars_per_month"]["interval"]["dollars"] < result["dollars_per_month"]["background"]["dollars"]


@looks_at_children
def test_ctrl_c_while_the_shop_starts() -> None:
    """The exit status is 130, one word is printed, and no process remains."""
    with subprocess.Popen([*DEMO], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        shop = wait_for_child(process)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, ("", "Stopped.\n"))
    assert eventually(lambda: not is_running(shop))  # The command may notice the closed pipe only after it has started.


@looks_at_children
def test_ctrl_c_during_the_traffic() -> None:
    """On a terminal that shows the progress bar, the exit status and the output are the same."""
    screen, terminal = os.openpty()
    with subprocess.Popen([*DEMO, "--seconds", "600"], stdout=subprocess.PIPE, stderr=terminal) as process:
        os.close(terminal)
        shown = read_until(screen, b"Sending traffic")
        shop = wait_for_child(process)
        process.send_signal(signal.SIGINT)
        shown += read_until(screen, b"Stopped.")
        printed, _ = process.communicate(timeout=60)
    os.close(screen)
    assert (process.returncode, printed) == (130, b"")
    assert b"Traceback" not in shown
    assert not is_running(shop)


@looks_at_children
def test_serve_runs_until_ctrl_c() -> None:
    """Traffic is sent, the live page shows the published metrics, and no process remains after Ctrl-C."""
    with subprocess.Popen(
        [*DEMO, "--serve", "--rate", "50"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("Live page").strip()
        try:
            shop = wait_for_child(process)
            are_there = eventually(
                lambda: {"Orders", "http.server.duration"} <= published_names(f"{url}/data.json"), within_seconds=60
            )
        finally:
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
    assert are_there
    assert (process.returncode, said) == (0, "Stopped.\n")
    assert not is_running(shop)


def published_names(url: str) -> set[str]:
    """Return the names of the metrics that a live page shows."""
    with urlopen(url, timeout=10) as response:  # noqa: S310 - the shop's own
        return {series["metric_name"] for series in json.load(response)["series"]}


def read_until(screen: int, text: bytes) -> bytes:
    """Read a terminal's output up to this text, and return it."""
    shown = b""
    while text not in shown:
        shown += os.read(screen, 4096)
    return shown


@looks_at_children
def test_a_killed_demo_leaves_no_process() -> None:
    """If the demo is killed, the shop stops, because its standard input is closed."""
    with subprocess.Popen([*DEMO, "--seconds", "600"]) as process:
        shop = wait_for_child(process)
        process.kill()
    assert eventually(lambda: not is_running(shop))


def wait_for_child(process: "subprocess.Popen[Any]") -> int:
    """Wait for a child process and return its ID."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    found: list[int] = []

    def has_child() -> bool:
        # Read only once: Linux does not guarantee that a second read finds the same child.
        found[:] = map(int, children.read_text().split())
        return bool(found) or process.poll() is not None

    assert eventually(has_child)
    return found[0]


def is_running(pid: int) -> bool:
    """Return whether the process exists and is not a zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("module", ["rich", "waitress"])
def test_a_missing_extra_is_named(module: str) -> None:
    """The message names the extra to install, and the exit status is that of a usage error."""
    program = f"import sys; sys.modules[{module!r}] = None; from otel_cloudwatch_flask.cli import main; main(['demo'])"
    completed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert completed.returncode == 2
    assert completed.stderr == f'Error: The demo requires {module}. Run pip install "otel-cloudwatch-flask[demo]".\n'


@pytest.mark.parametrize(
    ("ended", "exit_code"),
    [(EQUAL, 0), (UNEQUAL, 1), (KeyboardInterrupt(), 130), (ShopProcessError("The shop did not start."), 2)],
    ids=["equal", "unequal", "interrupted", "did not start"],
)
@pytest.mark.parametrize("arguments", [[], ["--json"]], ids=["table", "json"])
def test_exit_codes(
    monkeypatch: pytest.MonkeyPatch, ended: Outcome | BaseException, exit_code: int, arguments: list[str]
) -> None:
    """The exit codes are the same for both output formats."""

    def run_demo(**_arguments: object) -> Outcome:
        if isinstance(ended, BaseException):
            raise ended
        return ended

    monkeypatch.setattr(run, "run_demo", run_demo)
    result = CliRunner().invoke(cli.main, ["demo", *arguments])
    assert result.exit_code == exit_code, result.output
    assert "Traceback" not in result.output


def test_a_shop_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message contains the last output of the shop."""
    monkeypatch.setenv("OTEL_EXPORTER_CLOUDWATCH_FLUSH", "sometimes")
    with pytest.raises(ShopProcessError, match=r"(?s)did not start.*sometimes"), ShopProcess({}, StringIO()):
        pass


def test_a_shop_that_does_not_stop_properly() -> None:
    """A shop that had to be killed returns no summary."""
    with isolated_environment(), ShopProcess({}, StringIO()) as shop:
        shop._process.kill()
        with pytest.raises(ShopProcessError, match="did not stop"):
            shop.close()


def test_the_start_of_the_shop_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that prints nothing before the timeout is killed."""
    monkeypatch.setattr(shop_process, "_START_SECONDS", 0.0)
    with isolated_environment(), pytest.raises(ShopProcessError, match="did not start"), ShopProcess({}, StringIO()):
        pass


@pytest.mark.parametrize(
    ("expectation", "found", "sentences"),
    [
        (THREE, FOUND, []),
        (THREE, {**FOUND, "samples": 2}, ["CloudWatch has samples=2, expected 3."]),
        (THREE, {**FOUND, "sum": 6 + 1e-8}, ["CloudWatch has sum=6.00000001, expected 6.0."]),
        (THREE, {**FOUND, "sum": 6 + 1e-10}, []),
        (THREE, {**FOUND, "min": 0.9999}, ["CloudWatch has min=0.9999, expected 1.0."]),
        (THREE, {**FOUND, "max": 4.0001}, ["CloudWatch has max=4.0001, expected 4.0."]),
        (THREE, {**FOUND, "p90": 3.98}, []),
        (THREE, {**FOUND, "p90": 3.9}, ["CloudWatch has p90=3.9, expected 4.0."]),
        (THREE, {**FOUND, "p99": 4.1}, ["CloudWatch has p99=4.1, expected 4.0."]),
        (samples((-3.0, 3.0)), {"samples": 2, "sum": 1e-9, "min": -3, "max": 3}, []),
        (
            samples((-3.0, 3.0)),
            {"samples": 2, "sum": 0, "min": -3, "max": 3, "p50": -3},
            ["CloudWatch has p50=-3, expected None."],
        ),
        (total(7), {"samples": 2, "sum": 7, "min": 3, "max": 4}, []),
        (total(7), {"samples": 2, "sum": 8, "min": 3, "max": 5}, ["CloudWatch has sum=8, expected 7."]),
        (occurrences(2, 9.5), {"samples": 2, "sum": 10, "min": 3, "max": 7}, []),
        (occurrences(2, 9.5), {"samples": 1, "sum": 7, "min": 7, "max": 7}, ["samples=1, expected 2."]),
        (occurrences(1, 9.5), {"samples": 1, "sum": 10, "min": 10, "max": 10}, ["max=10, expected at most 9.5."]),
        (between(0, 8), {"samples": 2, "sum": 8, "min": 0, "max": 8}, []),
        (between(0, 8), {"samples": 2, "sum": 7, "min": -1, "max": 8}, ["min=-1, expected at least 0."]),
    ],
)
def test_differences(expectation: Expectation, found: Figures, sentences: list[str]) -> None:
    """Each kind of expectation compares the figures that it has, within its tolerance, and no others."""
    differences = list(expectation.differences(found))
    assert len(differences) == len(sentences)
    for difference, sentence in zip(differences, sentences, strict=True):
        assert sentence in difference


def test_a_series_on_only_one_side_is_a_difference() -> None:
    """The series is reported as missing in CloudWatch, or as unexpected there."""
    missing, extra = compare({series_of("B"): FOUND}, {series_of("A"): THREE})
    assert missing.differences == ("Missing from CloudWatch.",)
    assert extra.differences == ("In CloudWatch, but not expected.",)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"failures": ("GET /: timed out",)}, "A request to the shop failed: GET /: timed out"),
        ({"refusals": ("InvalidParameterValue: no",)}, "CloudWatch rejected a request: InvalidParameterValue: no"),
        (
            {"delivery": {"datums_lost": {"shutdown": 3}, "datums_pending": 0}},
            "3 data points did not arrive: shutdown.",
        ),
        ({"delivery": {"datums_lost": {}, "datums_pending": 1}}, "1 data point did not arrive: pending."),
        ({"comparisons": ()}, "No metrics were published."),
    ],
)
def test_losses_and_failures_are_problems(changes: dict[str, Any], problem: str) -> None:
    """Losses and failures are problems even if all numbers match."""
    assert EQUAL.problems == []
    assert replace(EQUAL, **changes).problems == [problem]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_report_fits_the_terminal(width: int) -> None:
    """Both sides are aligned, no line is longer than the terminal, and markup in names is printed as text."""
    hostile = series_of("[bold]Orders[/]", "Count", Payment="card", Path="/products/<int:product_id>" * 2)
    comparisons = compare({ORDERS: FOUND, hostile: FOUND}, {ORDERS: THREE})
    text = StringIO()
    report.show(outcome(comparisons), Console(file=text, width=width))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert any("[bold]Orders[/]" in line for line in lines)
    if width > 40:
        assert ["card", "3", "6", "1", "4", "1", "4", "4", "✓"] in [line.split() for line in lines]
        assert ["shop", "3", "6", "1", "4", "1", "4", "4"] in [line.split() for line in lines]
        assert any(line.startswith("✗ Problems: 1") for line in lines)


def test_the_json_output() -> None:
    """The output contains the figures of both sides, and the problems."""
    result = report.as_json(UNEQUAL)
    assert result["equal"] is False
    assert result["problems"] == ["Orders {Payment=card} in Count: CloudWatch has samples=4, expected 3."]
    (metric,) = result["metrics"]
    assert metric["cloudwatch"]["samples"] == 4
    assert metric["counted"]["samples"] == 3
    assert json.loads(json.dumps(result)) == result


def test_one_metric_in_two_units_is_billed_once() -> None:
    """The unit is not part of the identity by which a metric is billed."""
    other = ORDERS._replace(unit="Bytes")
    assert outcome(compare({ORDERS: FOUND, other: FOUND}, {ORDERS: THREE, other: THREE})).metrics == 1


def test_bucket_width_follows_from_the_range_of_values() -> None:
    """Equal values have the finest buckets; from 1 to 2**36.5, a bucket is a quarter of a power of two wide."""
    assert bucket_ratio((5.0, 5.0)) == pytest.approx(1, abs=1e-6)
    assert bucket_ratio(()) == bucket_ratio((0.0,)) == 1
    assert bucket_ratio((1.0, 2.0**36.5)) == bucket_ratio((-1.0, 0.0, 2.0**36.5)) == 2**0.25


def test_the_figures_cover_the_whole_demo() -> None:
    """The figures of a series cover the whole time range, even across midnight."""
    midnight = datetime(2027, 1, 2, tzinfo=timezone.utc)
    start, end = midnight - timedelta(minutes=1), midnight + timedelta(minutes=1)
    with LocalCloudWatch(clock=end.timestamp) as cloudwatch:
        client = cloudwatch.client()
        data: Any = [{"MetricName": "Orders", "Value": 1, "Timestamp": moment} for moment in (start, end)]
        client.put_metric_data(Namespace="Shop", MetricData=data)
        (figures,) = published_series(client, "Shop", start=start, end=end).values()
    assert (figures["samples"], figures["p50"]) == (2, 1)


def test_requests_are_deterministic() -> None:
    """The first ten requests include one of each kind, so that a short demo shows every metric."""
    first = list(islice(shop_requests(3), 200))
    assert first == list(islice(shop_requests(3), 200))
    assert {(each.method, each.route) for each in first[:10]} == {(each.method, each.route) for each in first}


def test_the_environment_is_restored() -> None:
    """Inside the block, AWS configuration is removed; after the block, it is restored."""
    before = dict(os.environ)
    with isolated_environment():
        os.environ["AWS_REGION"] = "eu-west-1"
        assert "AWS_PROFILE" not in os.environ
        assert os.environ["NO_PROXY"] == "127.0.0.1"
    assert dict(os.environ) == before
