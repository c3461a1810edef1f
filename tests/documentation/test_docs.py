"""The documentation is correct: its programs and commands run, and its configuration parses."""

import configparser
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from otel_cloudwatch_flask.config import Settings
from otel_cloudwatch_flask.demo.isolation import isolated_environment
from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch
from tests.documentation.test_examples import terminal
from tests.support.doc_blocks import Block, Outcome, blocks, outcomes

OWN_TESTS = {
    ("testing", "py"): "tests with the pytest fixture, which run as a separate project",
    ("operations", "py"): "a program for uvicorn's workers; tests/reliability/test_sigterm.py runs one like it",
    ("integration", "yaml"): "tests/end_to_end/test_configuration_file.py runs an app with it",
    ("command-line", "console"): "test_command_docs.py compares that page's output",
}
"""Blocks that other tests run, by page and language."""

NOT_RUN = {
    "pip ": "would change the environment of the tests",
    "python -m otel_cloudwatch_flask demo": "takes seconds; tests/commands/test_demo.py runs it",
    "python -m benchmarks": "takes half an hour, or four minutes; .ci/run runs the short form",
    "uwsgi ": "must be compiled; tests/reliability runs uWSGI with these options if it is installed",
}
"""Commands that are not run, by their first words, with the reason."""

PROGRAMS = blocks("python")
PAGES_WITH_COMMANDS = sorted({each.page for each in blocks("console")} - {page for page, _ in OWN_TESTS})
SHOWN_ONLY = {"text", "md", "xml", ""}
ROOT = Path(__file__).parents[2]
LARGEST_PICTURE = 60_000
SHORTEST_DESCRIPTION = 5  # words


@contextmanager
def environment_of(cloudwatch: LocalCloudWatch) -> Iterator[dict[str, str]]:
    """The environment variables of a program that publishes to a local CloudWatch emulator."""
    with isolated_environment():
        yield {**os.environ, **cloudwatch.environment()}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """The outcome of each program. All are forks of one process, because importing boto3 is slow."""
    with LocalCloudWatch() as cloudwatch, environment_of(cloudwatch) as environment:
        ended = outcomes(PROGRAMS, environment, tmp_path_factory.mktemp("programs"))
        assert cloudwatch.validation_errors == []
    return ended


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the programs run in forks")
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda block: block.id)
def test_each_program_runs(program: Block, ended: dict[str, Outcome]) -> None:
    """Every Python block runs unchanged, its assertions are true, and its metrics are delivered."""
    assert ended[program.id].code == 0, ended[program.id].said


@pytest.mark.parametrize("page", PAGES_WITH_COMMANDS)
def test_each_command_prints_the_documented_output(page: str, tmp_path: Path) -> None:
    """The commands of a page run in order, with the files that the page says to save."""
    for block in blocks():
        if block.page == page and block.file:
            (tmp_path / block.file).write_text(block.text, "utf-8")
    commands = [each for block in blocks("console") if block.page == page for each in steps(block)]
    assert all("\n" not in command for command, _ in commands)
    runnable = [(command, said) for command, said in commands if not command.startswith(tuple(NOT_RUN))]
    with LocalCloudWatch() as cloudwatch, terminal(tmp_path / "log", cloudwatch.environment(), folder=tmp_path) as at:
        for command, said in runnable:
            at.run(command if said or is_known(command) else f"{command} > {os.devnull}", said)
    assert cloudwatch.validation_errors == []
    assert cloudwatch.published.metrics() or not any(command.startswith("curl") for command, _ in runnable)


def steps(block: Block) -> list[tuple[str, str]]:
    """Return the commands of a block, each with its documented output."""
    assert block.text.startswith("$ "), f"{block.id} does not begin with a command"
    return re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block.text, re.MULTILINE)


def is_known(command: str) -> bool:
    """Return whether the terminal handles this command itself, because it prints nothing or starts a server."""
    return command.startswith(("export ", "gunicorn ")) or " run" in command


def test_exceptions_are_up_to_date() -> None:
    """Every command that is listed as not run is still in the documentation."""
    commands = [command for block in blocks("console") for command, _ in steps(block)]
    assert {start for start in NOT_RUN if not any(command.startswith(start) for command in commands)} == set()


@pytest.mark.parametrize("block", [each for each in blocks() if each.language != "python"], ids=lambda block: block.id)
def test_every_other_block_is_valid(block: Block) -> None:
    """Configuration can be parsed, and every block is in a language that is tested."""
    readers: dict[str, Callable[[str], object]] = {"json": json.loads, "ini": ini}
    if block.language in readers:
        assert readers[block.language](block.text)
    else:
        is_tested_elsewhere = block.language == "console" or (block.page, block.language) in OWN_TESTS
        assert is_tested_elsewhere or block.language in SHOWN_ONLY


def ini(text: str) -> object:
    """Return the sections of an INI file, or the settings in its variables if it has no sections."""
    parser = configparser.RawConfigParser(delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # as configparser documents
    if text.startswith("["):
        parser.read_string(text)
        return parser.sections()
    parser.read_string("[environment]\n" + text)
    return Settings.resolve(arguments={}, app_config={}, environ=dict(parser["environment"]))


def test_pictures() -> None:
    """Every picture is used, small, and described for those who cannot see it."""
    text = "\n".join(page.read_text("utf-8") for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    described = {path.rpartition("/")[2]: alt for alt, path in re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", text)}
    described |= {path.rpartition("/")[2]: alt for alt, path in re.findall(r'<img alt="([^"]+)" src="([^"]+)"', text)}
    assert [name for name, alt in described.items() if len(alt.split()) < SHORTEST_DESCRIPTION] == []
    pictures = [*(ROOT / "docs" / "images").iterdir()]
    assert {picture.name for picture in pictures if picture.name not in text} == set()
    assert [picture.name for picture in pictures if picture.stat().st_size > LARGEST_PICTURE] == []
