"""Run commands as a new user does: in processes, in an empty folder, with a local CloudWatch emulator."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from otel_cloudwatch_flask.commands.shared.document import Document, document_from
from otel_cloudwatch_flask.demo.isolation import isolated_environment

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-m", "otel_cloudwatch_flask")
SHOP = ROOT / "examples" / "shop.py"
MINIMAL = ROOT / "examples" / "minimal.py"


def run(
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    folder: Path = ROOT,
    stdin: str | None = None,
    width: int = 100,
) -> "subprocess.CompletedProcess[str]":
    """Run ``python -m otel_cloudwatch_flask`` with these arguments and ``stdin`` as its standard input."""
    return finished([*PROGRAM, *arguments], environment, folder, stdin, width)


def run_flask(
    app: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    folder: Path = ROOT,
    stdin: str | None = None,
    width: int = 100,
) -> "subprocess.CompletedProcess[str]":
    """Run ``flask --app APP cloudwatch`` with these arguments."""
    command = [sys.executable, "-m", "flask", "--app", str(app), "cloudwatch", *arguments]
    return finished(command, environment, folder, stdin, width)


def finished(
    command: list[str], environment: Mapping[str, str] | None, folder: Path, stdin: str | None, width: int
) -> "subprocess.CompletedProcess[str]":
    """Run a command until it ends, without this machine's AWS settings, and return its output."""
    with isolated_environment():
        variables = {**os.environ, "COLUMNS": str(width), "PYTHONUTF8": "1", **(environment or {})}
    return subprocess.run(
        command, env=variables, cwd=folder, input=stdin, capture_output=True, text=True, timeout=120, check=False
    )


@cache
def demo_result() -> dict[str, Any]:
    """Return the JSON output of a real demo, shared by all tests."""
    ended = run("demo", "--seconds", "1.5", "--json")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    result: dict[str, Any] = json.loads(ended.stdout)
    return result


@cache
def demo_document() -> Document:
    """Return the data that the demo's CloudWatch received."""
    return document_from(demo_result())
