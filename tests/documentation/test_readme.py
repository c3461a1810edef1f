"""What the README shows is what happens."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.generated import setting_texts
from otel_cloudwatch_flask.config import KEYS
from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch

README = Path(__file__).parents[2] / "README.md"

# What a reader would do next: use the app once, and look whether everything arrived.
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
    """The Python programs in the README."""
    return re.findall(r"^```python\n(.*?)^```", README.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def settings_table() -> str:
    """The table of settings, as it has to stand in the README."""
    defaults = {key.name: "" if key.default in (None, (), {}) else f"`{key.default}`" for key in KEYS}
    texts = setting_texts()
    rows = [f"| `{key.name}` | {defaults[key.name]} | {texts[key.field]} |" for key in KEYS]
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows])


@pytest.mark.parametrize("number", range(len(code_blocks())))
def test_each_program_runs_and_its_metrics_arrive(number: int, tmp_path: Path) -> None:
    """Every Python block, copied into a file and run as it stands, publishes to the namespace it names."""
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


def test_every_setting_is_listed() -> None:
    """The table of settings is the one that the code would write."""
    assert settings_table() in README.read_text("utf-8"), f"paste this into the README:\n{settings_table()}"


def test_there_are_exactly_two_commands() -> None:
    """A newcomer copies one line to see it work and one to test it."""
    commands = re.findall(r"^```console\n(.*?)^```", README.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert [command.count("\n") for command in commands] == [1, 1]
