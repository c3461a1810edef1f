"""Run the test suites of other projects with and without this package: ``python -m tests.guests``.

Exits with 1 if a test fails that passes without this package, or if the published metrics differ from the recorded
ones. The tests in :data:`EXPECTED` may fail.
"""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from tests.guests.guest_plugin import are_close

_TIMEOUT_SECONDS: Final = 900


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a distribution's test suite with an addition, and the addition to compare with."""

    distribution: str
    addition: str
    compared_with: str


RUNS: Final = (
    Run("flask", "reporter", "nothing"),
    Run("flask", "sync", "nothing"),
    Run("flask", "instrument", "instrumentation"),
    Run("opentelemetry-instrumentation-flask", "reader", "nothing"),
)

EXPECTED: Final = {
    # Wrapping app.wsgi_app, as Flask documents, creates a reference cycle, so only the garbage collector frees the app.
    # A weak reference would not work, because a program may keep only "create_app().wsgi_app". The test also fails
    # with OpenTelemetry's instrumentation.
    "tests/test_basic.py::test_app_freed_on_zero_refcount",
}
"""Tests that fail with any WSGI middleware."""


def main() -> int:
    """Run all test suites, print a table, and return the exit status."""
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as directory:
        suites = {name: unpacked(name, Path(directory)) for name in dict.fromkeys(run.distribution for run in RUNS)}
        print(f"{'test suite':44} {'added':10} {'passed':>7} {'failed':>7} {'without':>8} {'recorded':>9} published")
        for run in RUNS:
            without = results(suites[run.distribution], run.compared_with)
            found = results(suites[run.distribution], run.addition)
            print(row(run, found, without), flush=True)
            problems += [f"{run.addition}: {problem}" for problem in problems_of(found, without)]
    print(
        "\n".join(problems) or "No other test fails than without this package, and each measurement is published once."
    )
    return 1 if problems else 0


def unpacked(distribution: str, directory: Path) -> Path:
    """Download the source distribution of the installed version, and return the directory with its tests."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"]
    target = directory / distribution
    subprocess.run([*command, "-d", target, f"{distribution}=={version(distribution)}"], check=True)
    (archive,) = target.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(target, filter="data")
    (tests,) = target.glob("*/tests")
    return tests.parent


def results(suite: Path, addition: str) -> Mapping[str, Any]:
    """Run a test suite with an addition, and return the plugin's report."""
    report = suite / f"{addition}.json"
    options = ["-q", "-p", "no:cacheprovider", "-p", "guest_plugin", "--add", addition, "--report", report.name]
    with (suite / f"{addition}.txt").open("w", encoding="utf-8") as output:
        subprocess.run(
            [sys.executable, "-m", "pytest", *options, "tests"],
            cwd=suite,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=_TIMEOUT_SECONDS,
            check=False,  # some tests may also fail without this package
        )
    if not report.exists():
        raise RuntimeError((suite / f"{addition}.txt").read_text("utf-8"))
    found: Mapping[str, Any] = json.loads(report.read_text("utf-8"))
    return found


def row(run: Run, found: Mapping[str, Any], without: Mapping[str, Any]) -> str:
    """Return a line of the table."""
    name = f"{run.distribution} {version(run.distribution)}"
    recorded = sum(count for count, _ in found["recorded"].values())
    published = sum(found["published"].get(each, (0, 0))[0] for each in found["recorded"])
    failed, as_before = len(found["failed"]), len(without["failed"])
    return f"{name:44} {run.addition:10} {found['passed']:7} {failed:7} {as_before:8} {recorded:9} {published:9g}"


def problems_of(found: Mapping[str, Any], without: Mapping[str, Any]) -> Iterator[str]:
    """Yield the problems that this package causes, one line per test or metric."""
    expected = EXPECTED.union(without["failed"])
    yield from (f"fails only with this package: {each}" for each in found["failed"] if each not in expected)
    if found["passed"] + len(found["failed"]) != without["passed"] + len(without["failed"]):
        yield f"{found['passed']} tests pass, and {without['passed']} without this package"
    yield from (f"refused: {each}" for each in found["refused"])
    if not found["recorded"]:
        yield "nothing was recorded"
    for name, numbers in found["recorded"].items():
        if not are_close(tuple(numbers), tuple(found["published"].get(name, (0, 0)))):
            yield f"{name}: recorded {numbers}, published {found['published'].get(name)}"


if __name__ == "__main__":
    sys.exit(main())
