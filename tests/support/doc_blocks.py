"""The code blocks of the documentation. Each Python program runs in a fork of one prepared process."""

import json
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from otel_cloudwatch_flask import CloudWatchMetricsReporter

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_BLOCK = re.compile(
    r"^(?:<!-- (?P<note>[^\n]*) -->\n)?```(?P<language>[^\s`]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    """A block of a page: its language, the comment before it, and its text."""

    page: str
    number: int
    language: str
    note: str
    text: str

    @property
    def id(self) -> str:
        """The name in test reports."""
        return f"{self.page}-{self.number}"

    @property
    def file(self) -> str | None:
        """The file name that the page tells the reader to use."""
        return self.note.removeprefix("file: ") if self.note.startswith("file: ") else None


def blocks(language: str | None = None) -> list[Block]:
    """Return the blocks of all pages, optionally only those of one language, without Sphinx directives."""
    return [
        Block(path.stem, number, found["language"], found["note"] or "", found["text"])
        for path in sorted(DOCS.glob("*.md"))
        for number, found in enumerate(_BLOCK.finditer(path.read_text("utf-8")), 1)
        if not found["language"].startswith("{") and language in (None, found["language"])
    ]


@dataclass(frozen=True)
class Outcome:
    """The exit code of a program, and its output."""

    code: int
    said: str


def outcomes(programs: list[Block], environment: dict[str, str], folder: Path) -> dict[str, Outcome]:
    """Run programs in this order, each in its own process and namespace, and return their outcomes by block ID."""
    run = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-m", "tests.support.doc_blocks", str(folder)],
        input=json.dumps([asdict(each) for each in programs]),
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return {name: Outcome(**outcome) for name, outcome in json.loads(run.stdout).items()}


def _run_all(programs: list[Block], folder: Path) -> dict[str, dict[str, Any]]:
    _prepare()
    found = {}
    for each in programs:
        log = folder / f"{each.id}.log"
        found[each.id] = asdict(Outcome(_run_in_fork(each, log), log.read_text("utf-8")))
    return found


def _prepare() -> None:
    """Import modules that are slow to import, none of which starts a thread."""
    import boto3  # noqa: F401, PLC0415 - only the runner needs it
    import flask  # noqa: F401, PLC0415
    import opentelemetry.instrumentation.flask  # noqa: PLC0415
    import opentelemetry.sdk.metrics.export  # noqa: F401, PLC0415

    import otel_cloudwatch_flask.sdk.exporter  # noqa: PLC0415
    import otel_cloudwatch_flask.testing.fake  # noqa: F401, PLC0415


def _run_in_fork(program: Block, log: Path) -> int:
    """Run the program and its exit functions in a forked process, and return its exit code."""
    log.touch()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with log.open("w") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    try:
        _run(program)
    except BaseException:  # noqa: BLE001 - any exception of a program is its outcome
        traceback.print_exc()
        sys.exit(1)
    sys.exit(0)


def _run(program: Block) -> None:
    namespace: dict[str, Any] = {"__name__": "program"}
    exec(compile(program.text, program.id, "exec"), namespace)  # noqa: S102 - our own documentation
    if "shutdown(" not in program.text:
        _use(namespace)


def _use(namespace: dict[str, Any]) -> None:
    """Act as the reader would next: visit the app once, and check that all metrics arrive."""
    if app := namespace.get("app"):
        for path in _visitable(app):
            with app.test_client() as client, client.get(path) as response:
                assert response.status_code < 500, path
    for value in namespace.values():
        if isinstance(value, CloudWatchMetricsReporter):
            assert value.flush(), "not all metrics were delivered"


def _visitable(app: Any) -> Iterator[str]:
    return (rule.rule for rule in app.url_map.iter_rules() if "GET" in rule.methods and not rule.arguments)


if __name__ == "__main__":
    # A program's own output goes to its log; stdout has only the result.
    print(json.dumps(_run_all([Block(**each) for each in json.load(sys.stdin)], Path(sys.argv[1]))))  # noqa: T201
