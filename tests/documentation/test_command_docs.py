import re

import click

from otel_cloudwatch_flask.cli import main
from tests.support.command_docs import PAGE, masked, written_anew


def test_the_page_shows_the_output_of_the_commands() -> None:
    """The page shows the real output of the commands; `python -m tests.support.command_docs` updates it."""
    page = PAGE.read_text("utf-8")
    assert masked(written_anew(page)) == masked(page)


def test_every_command_has_a_section() -> None:
    """Each command's section shows its help and an example."""
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE))
    assert isinstance(main, click.Group)
    assert sorted(sections) == main.list_commands(click.Context(main))
    for name, section in sections.items():
        commands = re.findall(r"^\$ (.*)$", section, re.MULTILINE)
        assert any(f"{name} --help" in command for command in commands)
        assert any(name in command and "--help" not in command for command in commands)
