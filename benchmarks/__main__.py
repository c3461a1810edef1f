"""Run the benchmarks: all of them, or those named."""

import argparse
import os
import platform
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from benchmarks.report import Claim, Report, claims_table, with_figures

BENCHMARKS = (
    "export_cpu",
    "lock_held",
    "wire_bytes",
    "request_cpu",
    "request_latency",
    "memory",
    "fidelity",
    "cardinality",
    "outage",
    "import_time",
    "lambda_start",
)
"""Modules with a function ``run(*, short)`` that returns a report, in running order."""


def main() -> None:
    """Run benchmarks and print their tables, and then every figure that has a bound."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--short", action="store_true", help="run fewer rounds, with less reliable figures")
    parser.add_argument("--update", type=Path, metavar="FILE", help="write the figures to this Markdown file")
    parser.add_argument("names", nargs="*", metavar="name", choices=[*BENCHMARKS, []], help=", ".join(BENCHMARKS))
    arguments = parser.parse_args()
    console = Console(width=140)
    claims: list[Claim] = []
    for name in arguments.names or BENCHMARKS:
        begun = time.perf_counter()
        # Import lazily, so that the processes of one benchmark do not import other benchmarks.
        report: Report = import_module(f"benchmarks.{name}").run(short=arguments.short)
        claims += report.claims
        console.print(report)
        console.print(f"{name}: {time.perf_counter() - begun:.0f} s\n", highlight=False)
    console.print(claims_table(claims))
    if arguments.update:
        document = arguments.update.read_text("utf-8")
        made_by = f"{'A short' if arguments.short else 'A full'} run on {_machine()}."
        arguments.update.write_text(with_figures(document, claims, made_by=made_by), "utf-8")


def _machine() -> str:
    """Return a description of the machine and the versions."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("flask", "opentelemetry-sdk", "boto3"))
    return f"{os.cpu_count()} processors, {platform.machine()}, Python {platform.python_version()}, {packages}"


if __name__ == "__main__":
    main()
