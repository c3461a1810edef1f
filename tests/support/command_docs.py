"""Update the output of the commands on their documentation page: ``python -m tests.support.command_docs``.

A block of the page begins with ``$`` and a command, which may continue in lines with ``>``, followed by the command's
output. The commands run one after the other in one folder, in a shell, with a local CloudWatch emulator.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from otel_cloudwatch_flask.demo.isolation import isolated_environment
from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch
from tests.support.command_runs import ROOT, SHOP

PAGE: Final = ROOT / "docs" / "command-line.md"
_BLOCK: Final = re.compile(
    r"(?<=^```console\n)(?P<commands>(?:[$>] [^\n]*\n)+)(?P<said>.*?)(?=^```$)", re.DOTALL | re.MULTILINE
)
_NUMBER: Final = re.compile(r"\d+(?:[.,]\d+)*")
_WIDTH: Final = "96"


def written_anew(page: str) -> str:
    """Return the page with the current output of its commands."""
    with LocalCloudWatch() as cloudwatch, isolated_environment(), tempfile.TemporaryDirectory() as folder:
        shutil.copy(SHOP, folder)
        # programs under the names that users call
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = {**os.environ, **cloudwatch.environment(), "PATH": path, "COLUMNS": _WIDTH, "PYTHONUTF8": "1"}
        return _BLOCK.sub(_answered(Path(folder), environment), page)


def masked(page: str) -> str:
    """Return the page without the parts that differ between runs: numbers, their plurals, and widths of columns."""
    return re.sub(r" {2,}", "  ", _NUMBER.sub("#", page)).replace("PutMetricData requests", "PutMetricData request")


def _answered(folder: Path, environment: Mapping[str, str]) -> Callable[[re.Match[str]], str]:
    return lambda block: block["commands"] + _said(block["commands"], folder, environment)


def _said(commands: str, folder: Path, environment: Mapping[str, str]) -> str:
    """Return the shell's output for these commands, including errors. A trailing backslash continues a command."""
    script = re.sub(r"^[$>] ", "", commands, flags=re.MULTILINE)
    ended = subprocess.run(
        ["/bin/sh", "-c", script],
        env=dict(environment),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return "".join(f"{line.rstrip()}\n" for line in ended.stdout.splitlines())


if __name__ == "__main__":
    PAGE.write_text(written_anew(PAGE.read_text("utf-8")), "utf-8")
