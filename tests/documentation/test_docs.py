"""What the documentation shows is what happens: programs run, commands run, configuration is read."""

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
    ("testing", "py"): "tests of pytest's fixture, which run as a project of their own",
    ("command-line", "console"): "the command line's own tests write that page's output",
}
"""Blocks that other tests run, by page and language."""

NOT_RUN = {
    "pip ": "would change the environment that the tests run in; the README's commands do install",
    "python -m otel_cloudwatch_flask demo": "takes seconds; tests/commands/test_demo.py runs it",
    "python -m benchmarks": "takes half an hour, or two minutes; .ci/run runs the short form",
    "uwsgi ": "compiled by hand where it is wanted; tests/reliability runs uWSGI with these options, where it is there",
}
"""Commands that are not run here, by how they begin."""

PROGRAMS = blocks("python")
PAGES_WITH_COMMANDS = sorted({each.page for each in blocks("console")} - {page for page, _ in OWN_TESTS})
SHOWN_ONLY = {"text", "md", "xml", ""}


@contextmanager
def environment_of(cloudwatch: LocalCloudWatch) -> Iterator[dict[str, str]]:
    """What a program finds that publishes here."""
    with isolated_environment():
        yield {**os.environ, **cloudwatch.environment()}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """How each program ended. All are run at once: to start Python and boto3 for each takes longer than they do."""
    with LocalCloudWatch() as cloudwatch, environment_of(cloudwatch) as environment:
        ended = outcomes(PROGRAMS, environment, tmp_path_factory.mktemp("programs"))
        assert cloudwatch.validation_errors == []
    return ended


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the programs are run in forks")
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda block: block.id)
def test_each_program_runs(program: Block, ended: dict[str, Outcome]) -> None:
    """Every Python block runs as it stands, what it asserts is true, and what it records arrives."""
    assert ended[program.id].code == 0, ended[program.id].said


@pytest.mark.parametrize("page", PAGES_WITH_COMMANDS)
def test_each_command_does_what_is_shown(page: str, tmp_path: Path) -> None:
    """The commands of a page, one after the other, with the files that it tells to save, print what stands there."""
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
    """The commands of a block, each with what it prints."""
    assert block.text.startswith("$ "), f"{block.id} begins with something else than a command"
    return re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block.text, re.MULTILINE)


def is_known(command: str) -> bool:
    """Whether the terminal knows it as something that prints nothing, or goes on."""
    return command.startswith(("export ", "gunicorn ")) or " run" in command


def test_only_what_is_listed_is_not_run() -> None:
    """Nothing is in the lists above that is not in the documentation any more."""
    commands = [command for block in blocks("console") for command, _ in steps(block)]
    assert {start for start in NOT_RUN if not any(command.startswith(start) for command in commands)} == set()


@pytest.mark.parametrize("block", [each for each in blocks() if each.language != "python"], ids=lambda block: block.id)
def test_every_other_block_can_be_read(block: Block) -> None:
    """Configuration is what it says it is, and no block is in a language that nobody tests."""
    readers: dict[str, Callable[[str], object]] = {"json": json.loads, "ini": ini}
    if block.language in readers:
        assert readers[block.language](block.text)
    else:
        is_tested_elsewhere = block.language == "console" or (block.page, block.language) in OWN_TESTS
        assert is_tested_elsewhere or block.language in SHOWN_ONLY


def ini(text: str) -> object:
    """The sections of an INI file, or, where there are none, the settings that a file of variables makes."""
    parser = configparser.RawConfigParser(delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # the way configparser documents
    if text.startswith("["):
        parser.read_string(text)
        return parser.sections()
    parser.read_string("[environment]\n" + text)
    return Settings.resolve(arguments={}, app_config={}, environ=dict(parser["environment"]))
