"""The time that importing the package adds to a program's start, after the import of Flask and OpenTelemetry.

Each figure is the median of new processes, which alternate, so that other load on the machine affects all of them.
"""

import os
import subprocess
import sys
import tempfile
from functools import partial

from rich.table import Table

from benchmarks.harness import interleaved, medians
from benchmarks.report import Claim, Report, table

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
    with tempfile.TemporaryDirectory() as cache:
        measures = {name: partial(_timed, program, cache) for name, program in _PROGRAMS.items()}
        # The first round compiles, as pip does during installation.
        milliseconds = interleaved(measures, 5 if short else 31, warm_up_rounds=1)
    typical = {name: medians(each) for name, each in milliseconds.items()}
    more = typical[_WITH][0] - typical[_WITHOUT][0]
    return Report(
        [_table(typical)], [Claim("import beyond Flask and the OpenTelemetry SDK", more, at_most=60, unit=" ms")]
    )


def _timed(program: str, cache: str) -> tuple[float, float]:
    """Return the wall-clock and the CPU time of a new process, in milliseconds."""
    command = [sys.executable, "-X", f"pycache_prefix={cache}", "-c", _TIMED.format(program=program)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)  # noqa: S603 - our own code
    clock, processor = (1000 * float(seconds) for seconds in done.stdout.split())
    return clock, processor


def _table(typical: dict[str, list[float]]) -> Table:
    without = typical[_WITHOUT]
    rows = (
        (name, f"{clock:.0f}", f"{clock - without[0]:+.0f}", f"{processor:.0f}", f"{processor - without[1]:+.0f}")
        for name, (clock, processor) in typical.items()
    )
    return table("Import in a fresh process", ("", "median ms", "more", "CPU ms", "more"), rows)
