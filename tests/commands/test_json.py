import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from flask.cli import ScriptInfo

from otel_cloudwatch_flask.cli import flask_commands, main
from otel_cloudwatch_flask.demo import run, running_shop
from tests.commands.test_demo import EQUAL
from tests.support.command_docs import PAGE
from tests.support.command_runs import MINIMAL, PROGRAM, run_flask

FROM = "--from=seen.json"
SCALING = ("--metric=Orders", "--target=4", "--resource=service/shop/web", "--min=2")
SUCCESS = {
    "alarms": [FROM],
    "cost": [FROM],
    "dashboard": [FROM, "--region=us-east-1"],
    "demo": [],
    "doctor": [],
    "policy": [FROM],
    "scaling": [FROM, *SCALING, "--max=20"],
}
FAILURE: dict[str, tuple[list[str], str]] = {
    "alarms": (["--from=other.json"], "Cannot read other.json: No such file or directory."),
    "cost": ([], "Pass either --from FILE or --metrics NUMBER."),
    "dashboard": (["--from=empty.json"], "No metrics found: publish some first, or preview other paths."),
    "demo": (["--rate=0"], "Invalid value for '--rate': 0.0 is not in the range 1<=x<=2000."),
    "doctor": (["--audit=other.json"], "Cannot read other.json: No such file or directory."),
    "policy": (["--namespace=:x"], "Invalid value for '--namespace': ':x' "),
    "preview": (["--times=0"], "Invalid value for '--times': 0 is not in the range 1<=x<=10000."),
    "scaling": ([FROM, *SCALING, "--max=1"], "--min 2 exceeds --max 1."),
}


def described(name: str) -> set[str]:
    """Return the top-level members of a command's document, according to the page on the command line."""
    (row,) = re.findall(rf"^\| `{name}` \| (.*) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    outside, _, _ = re.sub(r"\([^()]*\)", "", row).partition(";")
    return set(re.findall(r"`(\w+)`", outside))


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change to a folder with the documents that commands read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    series = [{"namespace": "Shop", "metric_name": "Orders", "dimensions": {}}]
    Path("seen.json").write_text(json.dumps({"series": series}), "utf-8")
    Path("empty.json").write_text('{"series": []}', "utf-8")


def invoked(name: str, *arguments: str) -> Result:
    """Run a command with ``--json`` for an app, and return the result."""
    info = ScriptInfo(app_import_path=str(MINIMAL))
    return CliRunner().invoke(flask_commands, [name, *arguments, "--json"], obj=info)


@pytest.mark.parametrize("name", SUCCESS)
def test_every_command_prints_one_document(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --json, standard output is the document that the documentation describes."""
    monkeypatch.setattr(run, "run_demo", lambda **_arguments: EQUAL)
    result = invoked(name, *SUCCESS[name])
    assert result.exit_code in {0, name == "doctor"}, result.stderr
    assert described(name) <= json.loads(result.stdout).keys()


def test_no_command_is_forgotten() -> None:
    """The tables of this module list every command."""
    assert isinstance(main, click.Group)
    assert {*SUCCESS, "preview"} == {*FAILURE} == {*main.list_commands(click.Context(main))}


def test_a_document_in_a_file() -> None:
    """The document can be written to a file while standard error is a pipe, as it is in many CI systems."""
    with Path("policy.json").open("wb") as file:
        subprocess.run([*PROGRAM, "policy", FROM, "--json"], stdout=file, stderr=subprocess.PIPE, check=True)
    assert described("policy") <= json.loads(Path("policy.json").read_text("utf-8")).keys()


@pytest.mark.parametrize("name", FAILURE)
def test_an_error_is_a_document_too(name: str) -> None:
    """Exit status and standard error are the same as without --json, and standard output has the error."""
    arguments, message = FAILURE[name]
    for given, expected in ((arguments, message), (["--colour"], "No such option: --colour. Available: ")):
        result = invoked(name, *given)
        assert result.exit_code == 2
        document = json.loads(result.stdout)
        assert document.keys() == {"error"}
        assert expected in document["error"]
        assert f"Error: {document['error']}\n" in result.stderr


def test_an_unknown_command_is_a_document_too() -> None:
    """The document lists the available commands."""
    assert json.loads(invoked("docter").stdout)["error"].startswith("No such command: docter. Available: alarms, ")


@pytest.mark.parametrize(("form", "kind"), [("body", dict), ("cloudformation", dict), ("terraform", str), ("cdk", str)])
def test_the_output_of_each_format_is_in_the_document(form: str, kind: type) -> None:
    """JSON formats become objects, and other formats become the same text as without --json."""
    names = ["dashboard"] if form == "body" else ["alarms", "dashboard", "scaling"]
    for name in names:
        arguments = [*SUCCESS[name], f"--format={form}"]
        document = json.loads(invoked(name, *arguments).stdout)
        assert (document["format"], type(document["output"])) == (form, kind)
        plain = CliRunner().invoke(main, [name, *arguments]).stdout.removesuffix("\n")
        assert (document["output"] if kind is str else json.dumps(document["output"], indent=2)) == plain


NOISY = """
from flask import Flask
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader

from otel_cloudwatch_flask import CloudWatchMetricsReporter

print("loaded")
app = Flask(__name__)
provider = MeterProvider([PeriodicExportingMetricReader(ConsoleMetricExporter())])
metrics = CloudWatchMetricsReporter(app, "Shop", meter_provider=provider)


@app.get("/")
def index():
    print("requested")
    metrics.add_metric("Views", 1, "Count")
    return ""
"""


def test_what_the_app_prints_is_not_part_of_the_document(tmp_path: Path) -> None:
    """Output of the app and its console exporter goes to standard error, even when the process exits."""
    (tmp_path / "noisy.py").write_text(NOISY, "utf-8")
    ended = run_flask(tmp_path / "noisy.py", "preview", "--json")
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert document.keys() >= described("preview") >= {"series", "visits"}
    assert [each["metric_name"] for each in document["series"]] == ["Views"]
    assert "loaded\n" in ended.stderr
    assert "requested\n" in ended.stderr
    assert '"resource_metrics"' in ended.stderr


def test_an_app_that_exits(tmp_path: Path) -> None:
    """The document names an exception that ends the process."""
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)", "utf-8")
    ended = run_flask(tmp_path / "leaves.py", "preview", "--json")
    assert (ended.returncode, json.loads(ended.stdout)) == (3, {"error": "SystemExit: 3"})


def test_a_closed_pipe() -> None:
    """If the reader closes the pipe, the command ends without a traceback."""
    command = f"{sys.executable} -m otel_cloudwatch_flask policy --namespace Shop --json | true"
    ended = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(
    ("redirection", "status", "is_printed"), [("2>&-", 0, True), (">&-", 0, False), ("--max 0 2>/dev/full", 1, True)]
)
def test_closed_or_full_streams(redirection: str, status: int, *, is_printed: bool) -> None:
    """Standard output is one document if standard error is closed or full, and a closed output is no error."""
    command = f"{sys.executable} -m otel_cloudwatch_flask cost --metrics 3 --json {redirection}"
    ended = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (status, "")
    assert json.loads(ended.stdout)["metrics"] == 3 if is_printed else ended.stdout == ""


def test_an_environment_variable_for_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flask's command line also reads options from environment variables, and errors are then printed as JSON too."""
    monkeypatch.setenv("FLASK_CLOUDWATCH_COST_AS_JSON", "1")
    result = CliRunner().invoke(flask_commands, ["cost"], auto_envvar_prefix="FLASK_CLOUDWATCH", obj=ScriptInfo())
    assert json.loads(result.stdout) == {"error": "Pass either --from FILE or --metrics NUMBER."}


@pytest.mark.parametrize("interrupted", ["demo", "policy"])
def test_ctrl_c(interrupted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit status of every command is 130 after Ctrl-C."""

    def interrupt(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run_demo", interrupt)
    monkeypatch.setattr("otel_cloudwatch_flask.commands.policy.policy_document", interrupt)
    result = invoked(interrupted)
    assert (result.exit_code, json.loads(result.stdout), result.stderr) == (130, {"error": "Stopped."}, "Stopped.\n")


def test_the_document_of_a_running_shop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The document of ``demo --serve`` has the URLs."""

    @contextmanager
    def shop(**_arguments: Any) -> Iterator[SimpleNamespace]:
        cloudwatch = SimpleNamespace(endpoint_url="http://127.0.0.1:3")
        process = SimpleNamespace(url="http://127.0.0.1:2")
        yield SimpleNamespace(live_page_url="http://127.0.0.1:1/_", process=process, cloudwatch=cloudwatch)

    monkeypatch.setattr(running_shop, "running_shop", shop)
    monkeypatch.setattr("otel_cloudwatch_flask.commands.demo.time", SimpleNamespace(sleep=_interrupt))
    result = invoked("demo", "--serve")
    assert (result.exit_code, result.stderr) == (0, "Stopped.\n")
    assert json.loads(result.stdout) == {
        "live_page": "http://127.0.0.1:1/_",
        "shop": "http://127.0.0.1:2",
        "cloudwatch": "http://127.0.0.1:3",
    }


def _interrupt(_seconds: float) -> None:
    """Raise what Ctrl-C raises."""
    raise KeyboardInterrupt
