import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from otel_cloudwatch_flask.cli import flask_commands, main
from otel_cloudwatch_flask.commands.shared.document import SeenSeries, document_from, read_document
from otel_cloudwatch_flask.commands.shared.usage import Unusable
from tests.support.command_runs import MINIMAL, run, run_flask

COMMANDS = ["alarms", "cost", "dashboard", "demo", "doctor", "policy", "preview"]


def test_there_are_these_commands() -> None:
    """The same ones with and without an app."""
    for group in (main, flask_commands):
        assert isinstance(group, click.Group)
        assert group.list_commands(click.Context(group)) == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_teaches(name: str) -> None:
    """Its help has a summary, how it exits, and every option with a sentence."""
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert re.search(r"Exits\s+with\s+0", result.output)
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert all(each.help for each in command.params if isinstance(each, click.Option))


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option_is_answered_with_the_known(name: str) -> None:
    """All of them, and the exit code of wrong usage."""
    result = CliRunner().invoke(main, [name, "--colour"])
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert result.exit_code == 2
    assert "There is no option --colour. Known: " in result.output
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert max(parameter.opts, key=len) in result.output


@pytest.mark.parametrize("group", [main, flask_commands], ids=["python -m", "flask"])
def test_an_unknown_command_is_answered_with_the_known(group: click.Group) -> None:
    """All of them."""
    result = CliRunner().invoke(group, ["docter"])
    assert result.exit_code == 2
    assert f"There is no command 'docter'. Known: {', '.join(COMMANDS)}." in result.output


def test_a_setting_that_cannot_be_used_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever command meets it says which one it is."""
    monkeypatch.setenv("OTEL_EXPORTER_CLOUDWATCH_FLUSH", "often")
    result = CliRunner().invoke(main, ["cost", "--metrics", "3"])
    assert result.exit_code == 2
    assert result.output.startswith("Error: OTEL_EXPORTER_CLOUDWATCH_FLUSH='often' is not a flush policy;")


def test_flask_finds_the_commands() -> None:
    """The entry point is flask's, and the app is asked for its namespace."""
    ended = run_flask(MINIMAL, "policy")
    assert ended.returncode == 0, ended.stderr
    assert '"cloudwatch:namespace": "Shop"' in ended.stdout


@pytest.mark.parametrize(
    "arguments", [["policy", "--namespace", "Shop"], ["doctor", "--help"], ["cost", "--metrics=9"]]
)
def test_a_bare_install_is_enough(arguments: list[str]) -> None:
    """Only the demo needs what its extra installs."""
    missing = dict.fromkeys(("rich", "moto", "waitress"))
    program = (
        f"import sys; sys.modules.update({missing}); from otel_cloudwatch_flask.cli import main; main({arguments})"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_importing_the_package_imports_no_command() -> None:
    """An app pays nothing for them, and flask itself little: commands are imported when they are run."""
    program = (
        "import sys, otel_cloudwatch_flask.cli; "
        "print([name for name in sys.modules if name == 'boto3' or name.startswith('otel_cloudwatch_flask.commands.')])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (
        ended.stdout.strip()
        == "['otel_cloudwatch_flask.commands.shared', 'otel_cloudwatch_flask.commands.shared.usage']"
    )


SERIES = {"namespace": "Shop", "metric_name": "Orders", "dimensions": {"b": "2", "a": "1"}, "unit": "Count"}


def test_documents_are_read_wherever_they_are() -> None:
    """An observation, one inside another document, and what is known of calls."""
    series = SeenSeries("Shop", "Orders", (("a", "1"), ("b", "2")), "Count")
    assert document_from({"series": [SERIES]}).series == (series,)
    assert document_from({"document": {"series": [SERIES]}, "requests": 3}).series == (series,)
    assert document_from({"series": [], "requests": 6, "seconds": 2.0}).requests_per_second == 3
    assert document_from({"series": [], "requests": 6, "seconds": 0}).requests_per_second is None
    assert document_from({"series": [], "requests": 6, "seconds": 2, "requests_per_second": None}) == document_from(
        {"series": []}
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("[]", 'not a JSON object with a list "series"'),
        ('{"series": 3}', 'not a JSON object with a list "series"'),
        ('{"series": [3]}', "it has a series that is none: 3"),
        ('{"series": [{"metric_name": "Orders"}]}', "it has a series that is none"),
        ('{"series": [{"namespace": "S", "metric_name": "O", "dimensions": 1}]}', "it has a series that is none"),
    ],
)
def test_other_documents_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    """With what is wrong, and what to give."""
    path = tmp_path / "seen.json"
    path.write_text(text, "utf-8")
    with pytest.raises(Unusable, match="Give the output of preview --json") as caught:
        read_document(str(path))
    assert reason in str(caught.value)


def test_a_document_that_is_not_there() -> None:
    """A file, and a URL that nobody listens at; one sentence, no traceback."""
    for source in ("no-such-file.json", "http://127.0.0.1:9/data.json"):
        ended = run("cost", "--from", source)
        assert ended.returncode == 2
        assert ended.stderr.startswith(f"Error: {source} cannot be read: ")
        assert "Traceback" not in ended.stderr
