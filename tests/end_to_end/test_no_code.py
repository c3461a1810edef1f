"""``opentelemetry-instrument flask run`` in real processes, configured only by environment variables."""

import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from otel_cloudwatch_flask.demo.isolation import isolated_environment
from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch
from tests.reliability.processes import PATIENCE_SECONDS, ROOT
from tests.support.fakes import eventually

pytest.importorskip("opentelemetry.distro")
receiver = pytest.importorskip("tests.support.otlp_receiver")

INSTRUMENT = Path(sys.executable).with_name("opentelemetry-instrument")
REQUESTS = 20


@pytest.fixture
def cloudwatch() -> Iterator[LocalCloudWatch]:
    """A strict CloudWatch emulator on loopback."""
    with LocalCloudWatch() as running:
        yield running


@dataclass(frozen=True)
class FlaskRun:
    """A process of ``opentelemetry-instrument flask run`` and its output file."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def said(self) -> str:
        """Return the process's output so far."""
        return self.log.read_text()

    def url(self) -> str:
        """Return the server's URL as soon as it is printed."""
        found = r"Running on (http://127\.0\.0\.1:\d+)"
        is_there = eventually(
            lambda: re.search(found, self.said()) or self.process.poll() is not None, within_seconds=PATIENCE_SECONDS
        )
        match = re.search(found, self.said())
        assert is_there, "the process printed no URL"
        assert match, self.said()
        return match[1]

    def visit(self) -> None:
        """Send all requests."""
        url = self.url()
        for _ in range(REQUESTS):
            with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310 - it is http
                assert answer.read() == b"ordered"

    def interrupt(self) -> None:
        """Send SIGINT and wait for the process to end."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(PATIENCE_SECONDS)


@contextmanager
def flask_run(
    cloudwatch: LocalCloudWatch, log: Path, app: str = "tests.support.no_code_app", **variables: str
) -> Iterator[FlaskRun]:
    """Run the command until the end of the block."""
    with isolated_environment(), log.open("wb") as log_file:
        environment = {
            **os.environ,
            **cloudwatch.environment(),
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "cloudwatch",
            "OTEL_SERVICE_NAME": "no-code-shop",
            "OTEL_EXPORTER_CLOUDWATCH_FLUSH_MIN_INTERVAL_SECONDS": "1",
            "PYTHONUNBUFFERED": "1",
            "PATH": os.pathsep.join([str(INSTRUMENT.parent), os.environ.get("PATH", "")]),
            **variables,
        }
        command = [str(INSTRUMENT), "flask", "--app", app, "run", "--port", "0"]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log_file, stderr=log_file)
    with process:
        try:
            yield FlaskRun(process, log)
        finally:
            process.kill()


def assert_published_once(cloudwatch: LocalCloudWatch, duration: str = "http.server.duration") -> None:
    """Assert that each request has one duration and one order, all in the service's namespace."""
    assert {metric.namespace for metric in cloudwatch.published.metrics()} == {"no-code-shop"}
    assert cloudwatch.published.count(duration) == REQUESTS
    assert cloudwatch.published.sum("Orders") == REQUESTS
    assert cloudwatch.validation_errors == []


@pytest.mark.parametrize(
    ("names", "duration"), [("", "http.server.duration"), ("http", "http.server.request.duration")]
)
def test_cloudwatch_alone(cloudwatch: LocalCloudWatch, tmp_path: Path, names: str, duration: str) -> None:
    """Request durations and facade metrics are published once, soon after the requests and at exit."""
    with flask_run(cloudwatch, tmp_path / "log", OTEL_SEMCONV_STABILITY_OPT_IN=names) as run:
        run.visit()
        assert eventually(lambda: cloudwatch.published.count(duration) == REQUESTS, within_seconds=PATIENCE_SECONDS)
        run.interrupt()
    assert_published_once(cloudwatch, duration)


def no_code_line() -> list[str]:
    """Return the README's command for unchanged programs, as a list of arguments."""
    line = re.search(
        r"^`(OTEL_METRICS_EXPORTER=cloudwatch .*)`\.$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE
    )
    assert line
    return ["env", *shlex.split(line[1])]


def test_the_command_of_the_readme(cloudwatch: LocalCloudWatch, tmp_path: Path) -> None:
    """The README's command publishes an app's requests without changes or errors in the log."""
    (tmp_path / "shop.py").write_text('import flask\napp = flask.Flask("shop")\napp.get("/")(lambda: "ordered")\n')
    with isolated_environment(), (tmp_path / "log").open("wb") as log:
        environment = {
            **os.environ,
            **cloudwatch.environment(),
            "FLASK_RUN_PORT": "0",
            "PYTHONUNBUFFERED": "1",
            "PATH": os.pathsep.join([str(INSTRUMENT.parent), os.environ.get("PATH", "")]),
        }
        process = subprocess.Popen(no_code_line(), cwd=tmp_path, env=environment, stdout=log, stderr=log)
    with process:
        run = FlaskRun(process, tmp_path / "log")
        try:
            run.visit()
            run.interrupt()
        finally:
            process.kill()
    assert cloudwatch.published.count("http.server.duration") == REQUESTS
    assert {metric.namespace for metric in cloudwatch.published.metrics()} == {"Shop"}
    assert not re.search(r"Traceback|ERROR|Exception|WARNING:(?! This is a development server)", run.said()), run.said()


def test_doctor_under_the_command(cloudwatch: LocalCloudWatch, tmp_path: Path) -> None:
    """Under ``opentelemetry-instrument``, doctor does not suggest using it, and reports missing packages."""
    (tmp_path / "shop.py").write_text('import flask\napp = flask.Flask("shop")\n')
    variables = {"OTEL_METRICS_EXPORTER": "none", "OTEL_TRACES_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "zipkin"}
    command = [str(INSTRUMENT), "flask", "--app", "shop", "cloudwatch", "doctor"]
    with isolated_environment():
        path = os.pathsep.join([str(INSTRUMENT.parent), os.environ.get("PATH", "")])
        environment = {**os.environ, **cloudwatch.environment(), **variables, "PATH": path}
        ended = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120
        )
    assert "The process was started by opentelemetry-instrument." in ended.stdout, ended.stdout + ended.stderr
    assert "or set OTEL_METRICS_EXPORTER=cloudwatch." in ended.stdout
    assert "OTEL_LOGS_EXPORTER lists zipkin, which is not installed" in ended.stdout
    assert "OTEL_TRACES_EXPORTER is none." in ended.stdout


def test_an_app_without_our_package(cloudwatch: LocalCloudWatch, tmp_path: Path) -> None:
    """The requests of an app that does not import this package are published, at exit at the latest."""
    (tmp_path / "plain.py").write_text('import flask\napp = flask.Flask("p")\napp.get("/")(lambda: "ordered")\n')
    with flask_run(cloudwatch, tmp_path / "log", app=str(tmp_path / "plain.py")) as run:
        run.visit()
        run.interrupt()
    assert cloudwatch.published.count("http.server.duration") == REQUESTS


def test_console_beside_cloudwatch(cloudwatch: LocalCloudWatch, tmp_path: Path) -> None:
    """With ``console,cloudwatch``, each exporter gets all metrics once."""
    with flask_run(cloudwatch, tmp_path / "log", OTEL_METRICS_EXPORTER="console,cloudwatch") as run:
        run.visit()
        run.interrupt()
    assert_published_once(cloudwatch)
    assert '"name": "http.server.duration"' in run.said()
    assert '"name": "orders"' in run.said()


def test_otlp_beside_cloudwatch(cloudwatch: LocalCloudWatch, tmp_path: Path) -> None:
    """With ``cloudwatch,otlp``, each exporter gets all metrics once, OTLP with its own temporality."""
    with receiver.OtlpReceiver() as otlp:
        variables = {**otlp.environment(), "OTEL_METRICS_EXPORTER": "cloudwatch,otlp"}
        with flask_run(cloudwatch, tmp_path / "log", **variables) as run:
            run.visit()
            run.interrupt()
    assert_published_once(cloudwatch)
    assert (otlp.count("http.server.duration"), otlp.sum("orders")) == (REQUESTS, REQUESTS)
    assert otlp.temporalities - {receiver.DELTA}, "OTLP's default is cumulative"


def test_disabled(cloudwatch: LocalCloudWatch, tmp_path: Path) -> None:
    """With ``OTEL_SDK_DISABLED=true``, the app works and sends nothing."""
    with flask_run(cloudwatch, tmp_path / "log", OTEL_SDK_DISABLED="true") as run:
        run.visit()
        run.interrupt()
    assert cloudwatch.traffic.put_requests == 0
    assert "Traceback" not in run.said()


def test_a_misspelt_exporter(cloudwatch: LocalCloudWatch, tmp_path: Path) -> None:
    """OpenTelemetry's error names the unknown exporter."""
    with flask_run(cloudwatch, tmp_path / "log", OTEL_METRICS_EXPORTER="cloudwach") as run:
        run.url()
        run.interrupt()
    assert "Requested component 'cloudwach' not found" in run.said()


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("FLUSH", "often", "is not a flush policy; use one of 'background', 'sync', 'interval'."),
        ("MAX_METRICS", "-1", "is not a positive integer; use 1 or more."),
        ("EXPORT_INTERVAL_SECONDS", "soon", "is not a positive duration; use a number of seconds greater than 0."),
        ("ENABLED", "maybe", "is neither true nor false; use one of true, 1, yes, on, false, 0, no, off."),
        ("RULES", "[{]", "is not JSON: "),
        ("DEFAULT_DIMENSIONS", "Stage", "is not a list of dimensions; use name=value,name=value or a JSON object."),
        ("NAMESPACE", "AWS/Shop", "is reserved for AWS's own services"),
    ],
)
def test_values_that_do_not_parse(
    cloudwatch: LocalCloudWatch, tmp_path: Path, variable: str, value: str, message: str
) -> None:
    """The program exits at startup, and the error names the invalid variable and its allowed values."""
    name = f"OTEL_EXPORTER_CLOUDWATCH_{variable}"
    with flask_run(cloudwatch, tmp_path / "log", **{name: value}) as run:
        assert run.process.wait(PATIENCE_SECONDS) != 0
    assert f"ConfigurationError: {name}={value!r} {message}" in run.said()
