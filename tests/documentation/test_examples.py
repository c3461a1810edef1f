"""The examples do what their README says: their commands run, and their output and metrics match."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import HTTPError, URLError

import pytest

from otel_cloudwatch_flask.demo.isolation import isolated_environment
from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch
from tests.reliability.processes import PATIENCE_SECONDS, ROOT
from tests.support.fakes import eventually

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="its commands are for a shell")
pytest.importorskip("opentelemetry.distro", reason="the examples' extra is not installed")
receiver = pytest.importorskip("tests.support.otlp_receiver")

BIN = Path(sys.executable).parent
README = ROOT / "examples" / "README.md"
OF_EVERY_APP = ("http.server.",)
"""Prefixes of metrics that the README lists by name, without their series."""


@dataclass(frozen=True)
class Section:
    """An example: its commands with their output, and its published metrics."""

    title: str
    steps: list[tuple[str, str]]
    metrics: set[str]
    names: set[str]


def sections() -> list[Section]:
    """Return the sections of the README."""
    found = []
    for text in re.split(r"^## ", README.read_text("utf-8"), flags=re.MULTILINE)[1:]:
        blocks = "".join(re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
        steps = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", blocks, re.MULTILINE)
        listed = re.findall(
            r"`([^`]+)`", "".join(re.findall(r"^In CloudWatch.*?(?=\n\n|\Z)", text, re.DOTALL | re.MULTILINE))
        )
        metrics = {each for each in listed if re.fullmatch(r"\w+: .* \{.*\} in \w+", each)}
        names = {each for each in listed if each.startswith(OF_EVERY_APP)} | {
            each.split()[1] for each in metrics if each.split()[1].startswith(OF_EVERY_APP)
        }
        found.append(Section(text.partition("\n")[0], steps, metrics, names))
    return found


@dataclass
class Terminal:
    """Runs commands like a reader who copies them, but on free ports."""

    log: Path
    environment: dict[str, str]
    folder: Path = ROOT
    server: "subprocess.Popen[bytes] | None" = None
    port: int = field(default=0)

    def run(self, command: str, expected: str) -> None:
        """Run a command, and compare its output."""
        words = shlex.split(command)
        if words[0] == "export":
            self.environment.update({name: value for name, _, value in (word.partition("=") for word in words[1:])})
        elif words[0] == "curl":
            assert self._curl(words[1:]) == expected, self.log.read_text()
        elif "run" in words or words[0] == "gunicorn":
            self._serve(command)
        else:
            done = subprocess.run(
                ["/bin/sh", "-c", command],
                cwd=self.folder,
                env=self.environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert (done.stdout, done.returncode) == (expected, 0), done.stderr

    def end(self) -> None:
        """Stop the server with the signal that its command line expects, and wait until it ends."""
        if self.server is not None:
            self.server.send_signal(signal.SIGINT if "flask" in str(self.server.args) else signal.SIGTERM)
            self.server.wait(PATIENCE_SECONDS)
            self.server = None

    def _serve(self, command: str) -> None:
        self.end()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        address = f"127.0.0.1:{self.port}"
        ports = {"FLASK_RUN_PORT": str(self.port), "GUNICORN_CMD_ARGS": f"--bind {address}"}
        words = shlex.split(command.replace("127.0.0.1:8000", address))
        with self.log.open("ab") as log:
            self.server = subprocess.Popen(
                words, cwd=self.folder, env={**self.environment, **ports}, stdout=log, stderr=log
            )
        assert eventually(self._is_serving, within_seconds=PATIENCE_SECONDS), self.log.read_text()

    def _is_serving(self) -> bool:
        with socket.socket() as knocking:
            return knocking.connect_ex(("127.0.0.1", self.port)) == 0

    def _curl(self, words: list[str]) -> str:
        *options, url = words
        given = dict(zip(options[::2], options[1::2], strict=True))
        headers = dict([given["-H"].split(": ", 1)]) if "-H" in given else {}
        request = urllib.request.Request(  # noqa: S310 - from the README
            re.sub(r"(127\.0\.0\.1):\d+", rf"\1:{self.port}", url),
            method=given.get("-X", "GET"),
            data=given.get("-d", "").encode() or None,
            headers=headers,
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310 - from the README
                return str(answer.read().decode())
        except HTTPError as answer:
            with answer:
                return answer.read().decode()
        except URLError as error:
            return str(error)


@contextmanager
def terminal(log: Path, *environments: dict[str, str], folder: Path = ROOT) -> Iterator[Terminal]:
    """Open a terminal in this folder, and stop its server at the end."""
    with isolated_environment():
        environment = {**os.environ, "PATH": os.pathsep.join([str(BIN), os.environ.get("PATH", "")])}
    # The Lambda function waits for the delivery, which takes longer than usual if the machine is busy.
    environment["OTEL_EXPORTER_CLOUDWATCH_SYNC_TIMEOUT_SECONDS"] = str(PATIENCE_SECONDS)
    for each in environments:
        environment.update(each)
    opened = Terminal(log, environment, folder)
    try:
        yield opened
        opened.end()
    finally:
        if opened.server is not None:
            opened.server.kill()
            opened.server.wait(PATIENCE_SECONDS)


@pytest.mark.parametrize("section", sections(), ids=lambda section: section.title)
def test_each_example(section: Section, tmp_path: Path) -> None:
    """The commands print the documented output, and publish exactly the listed metrics."""
    with (
        LocalCloudWatch() as cloudwatch,
        receiver.OtlpReceiver() as otlp,
        terminal(tmp_path / "log", cloudwatch.environment(), otlp.environment()) as at,
    ):
        for command, expected in section.steps:
            at.run(command, expected)
    published = {str(metric) for metric in cloudwatch.published.metrics()}
    of_every_app = {each for each in published if each.split()[1].startswith(OF_EVERY_APP)}
    assert published - of_every_app == {each for each in section.metrics if each not in of_every_app}
    assert {each.split()[1] for each in of_every_app} == section.names
    assert cloudwatch.validation_errors == []
    if "OTLP" in section.title:
        assert (otlp.count("shop.orders"), otlp.count("http.server.duration"), otlp.count("order_value")) == (1, 1, 1)


def test_every_program_is_in_the_readme() -> None:
    """The README describes every example."""
    text = README.read_text("utf-8")
    programs = {path.relative_to(README.parent).as_posix() for path in README.parent.glob("*.py")}
    programs |= {path.relative_to(README.parent).as_posix() for path in README.parent.glob("migration/*.py")}
    assert {program for program in programs if program not in text} == set()
