"""The programs in the README run, and the README stays short."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from otel_cloudwatch_flask.testing import LocalCloudWatch

README = Path(__file__).parents[2] / "README.md"

# what the reader does next: use the app once, and check that all metrics were delivered
EPILOGUE = """
if "app" in globals():
    with app.test_client() as client, client.get("/") as response:
        assert response.status_code == 200
    assert metrics.flush()
elif "provider" in globals():
    assert provider.force_flush()
else:
    assert reader.flush()
"""


def code_blocks() -> list[str]:
    """Return the Python programs in the README."""
    return re.findall(r"^```python\n(.*?)^```", README.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("number", range(len(code_blocks())))
def test_each_program_runs_and_its_metrics_arrive(number: int, tmp_path: Path) -> None:
    """Each Python block runs unchanged and publishes to the namespace it names."""
    program = tmp_path / "program.py"
    program.write_text(code_blocks()[number] + EPILOGUE, "utf-8")
    with LocalCloudWatch() as cloudwatch:
        environment = {**os.environ, **cloudwatch.environment(), "PYTHONWARNINGS": "error::UserWarning"}
        run = subprocess.run(
            [sys.executable, program], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert run.returncode == 0, run.stderr
        assert {metric.namespace for metric in cloudwatch.published.metrics()} == {"Shop"}
        assert cloudwatch.validation_errors == []


def test_there_are_exactly_two_commands() -> None:
    """The demo and the tests are each started by a single command."""
    commands = re.findall(r"^```console\n(.*?)^```", README.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert [command.count("\n") for command in commands] == [1, 1]


def test_it_is_short() -> None:
    """The README is short; details are in the documentation."""
    assert len(README.read_text("utf-8").splitlines()) <= 150


LINKS = r"""\]\(([^)#:]+)(?=[)#])|src(?:set)?="([^":]+)\""""


@pytest.mark.parametrize("target", sorted({a or b for a, b in re.findall(LINKS, README.read_text("utf-8"))}))
def test_relative_links_lead_somewhere(target: str) -> None:
    """Every relative link names a file in the repository."""
    assert (README.parent / target).is_file()
