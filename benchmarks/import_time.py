"""The time that importing the package adds to a program's start, after the import of Flask and OpenTelemetry.

Each figure is the median of new processes, which alternate, so that other load on the machine affects all of them.
"""

import os
import statistics
import subprocess
import sys
import tempfile

from rich.table import Table

from benchmarks.report import Claim, Report

_FRAMEWORKS = "import flask, opentelemetry.sdk.metrics.export, opentelemetry.sdk.metrics.view"
_WITHOUT = "Flask and the OpenTelemetry SDK"
_WITH = "... and everything this package exports"
_PROGRAMS = {
    _WITHOUT: _FRAMEWORKS,
    _WITH: f"{_FRAMEWORKS}\nfrom otel_cloudwatch_flask import *",
    "... and what pytest imports of it": f"{_FRAMEWORKS}\nimport otel_cloudwatch_flask",
    "... and boto3, for comparison": f"{_FRAMEWORKS}\nimport boto3",
}
_TIMED = """
import time
begun = time.perf_counter(), time.process_time()
{program}
print(time.perf_counter() - begun[0], time.process_time() - begun[1])
"""


def run(*, short: bool) -> Report:
    """Import in alternating processes, and return the report."""
    rounds = 5 if short else 31
    milliseconds: dict[str, list[tuple[float, float]]] = {name: [] for name in _PROGRAMS}
    with tempfile.TemporaryDirectory() as cache:
        for number in range(rounds + 1):
            for name, program in _PROGRAMS.items():
                timed = _timed(program, cache)
                if number:  # the first round compiles, as pip does during installation
                    milliseconds[name].append(timed)
    medians = {name: _medians(each) for name, each in milliseconds.items()}
    more = medians[_WITH][0] - medians[_WITHOUT][0]
    return Report(
        [_table(medians)], [Claim("import beyond Flask and the OpenTelemetry SDK", more, at_most=60, unit=" ms")]
    )


def _timed(program: str, cache: str) -> tuple[float, float]:
    """Return the wall-clock and the CPU time of a new process, in milliseconds."""
    command = [sys.executable, "-X", f"pycache_prefix={cache}", "-c", _TIMED.format(program=program)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)  # noqa: S603 - our own code
    clock, processor = (1000 * float(seconds) for seconds in done.stdout.split())
    return clock, processor


def _medians(milliseconds: list[tuple[float, float]]) -> list[float]:
    return [statistics.median(column) for column in zip(*milliseconds, strict=True)]


def _table(medians: dict[str, list[float]]) -> Table:
    table = Table(title="Import in a fresh process")
    for heading in ("", "median ms", "more", "CPU ms", "more"):
        table.add_column(heading, justify="left" if not heading else "right")
    without = medians[_WITHOUT]
    for name, (clock, processor) in medians.items():
        more = (f"{clock - without[0]:+.0f}", f"{processor - without[1]:+.0f}")
        table.add_row(name, f"{clock:.0f}", more[0], f"{processor:.0f}", more[1])
    return table
