import io
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from flask.cli import ScriptInfo

from otel_cloudwatch_flask.cli import flask_commands, main
from otel_cloudwatch_flask.commands.shared.command import CommandError
from otel_cloudwatch_flask.commands.shared.document import SeriesSummary, document_from, read_document
from tests.support.command_runs import MINIMAL, run, run_flask

COMMANDS = ["alarms", "cost", "dashboard", "demo", "doctor", "policy", "preview", "scaling"]


def test_commands() -> None:
    """``flask cloudwatch`` has the same commands as ``python -m otel_cloudwatch_flask``."""
    for group in (main, flask_commands):
        assert isinstance(group, click.Group)
        assert group.list_commands(click.Context(group)) == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command(name: str) -> None:
    """The help text describes the exit status and every option."""
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert re.search(r"Exit\s+status:\s+0", result.output)
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert all(each.help for each in command.params if isinstance(each, click.Option))


def test_shell_completion() -> None:
    """A shell completes the names of the commands with the completion of Flask's command line."""
    variables = {"_FLASK_COMPLETE": "bash_complete", "COMP_WORDS": "flask cloudwatch d", "COMP_CWORD": "2"}
    program = Path(sys.executable).with_name("flask")
    ended = subprocess.run(
        [program], env={**os.environ, **variables}, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stdout.split() == ["plain,dashboard", "plain,demo", "plain,doctor"]


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option(name: str) -> None:
    """The message lists the available options, and the exit status is that of a usage error."""
    result = CliRunner().invoke(main, [name, "--colour"])
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert result.exit_code == 2
    assert "No such option: --colour. Available: " in result.output
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert max(parameter.opts, key=len) in result.output


@pytest.mark.parametrize("group", [main, flask_commands], ids=["python -m", "flask"])
def test_an_unknown_command(group: click.Group) -> None:
    """The message lists the available commands."""
    result = CliRunner().invoke(group, ["docter"])
    assert result.exit_code == 2
    assert f"No such command: docter. Available: {', '.join(COMMANDS)}." in result.output


def test_an_invalid_setting_is_reported_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the invalid setting."""
    monkeypatch.setenv("OTEL_EXPORTER_CLOUDWATCH_FLUSH", "often")
    result = CliRunner().invoke(main, ["cost", "--metrics", "3"])
    assert result.exit_code == 2
    assert result.output.startswith("Error: OTEL_EXPORTER_CLOUDWATCH_FLUSH='often' is not a flush policy;")


def test_an_encoding_without_the_letters_of_a_name() -> None:
    """Letters that the encoding of standard output lacks are escaped."""
    document = json.dumps({"series": [{**SERIES, "metric_name": "日本"}]})
    ended = run("cost", "--from=-", environment={"PYTHONIOENCODING": "latin-1"}, stdin=document)
    assert ended.returncode == 0, ended.stderr
    assert "\n\\u65e5\\u672c " in ended.stdout


@pytest.mark.parametrize(("value", "is_colored"), [("1", False), ("", True)])
def test_no_color(value: str, is_colored: bool) -> None:  # noqa: FBT001
    """The variable NO_COLOR disables colors in a terminal, unless it is empty: https://no-color.org."""
    result = CliRunner().invoke(main, ["cost", "--metrics", "3"], color=True, env={"NO_COLOR": value})
    assert ("\x1b[" in result.stdout) is is_colored


BROKEN = {
    "import": ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
    "exception": ("raise ValueError('\\x1b[2J' + 'no database')\n", "ValueError: \\x1b[2Jno database"),
    "syntax": ("def (:\n", "SyntaxError: invalid syntax"),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize(
    "arguments",
    [["preview"], ["policy"], ["cost", "--metrics=3"], ["alarms", "--list"], ["dashboard", "--list"]],
    ids=lambda arguments: arguments[0],
)
def test_an_app_that_cannot_be_loaded(tmp_path: Path, kind: str, arguments: list[str]) -> None:
    """The error contains the last line of the traceback; --traceback prints the whole traceback."""
    program, line = BROKEN[kind]
    (tmp_path / "broken.py").write_text(program, "utf-8")
    info = ScriptInfo(app_import_path=str(tmp_path / "broken.py"))
    error = f"Error: The app cannot be loaded: {line}"
    short = CliRunner().invoke(flask_commands, arguments, obj=info)
    assert (short.exit_code, short.stdout) == (2, "")
    assert short.stderr == f"{error} Pass --traceback for details.\n"
    long = CliRunner().invoke(flask_commands, [*arguments, "--traceback"], obj=info)
    assert "Traceback (most recent call last):" in long.stderr
    assert long.stderr.endswith(f"{error}\n")


def test_doctor_reports_an_app_that_cannot_be_loaded(tmp_path: Path) -> None:
    """The failure is reported like any other problem, and the other checks still run."""
    program, line = BROKEN["import"]
    (tmp_path / "broken.py").write_text(program, "utf-8")
    ended = run_flask(tmp_path / "broken.py", "doctor")
    assert (ended.returncode, ended.stderr) == (1, "")
    assert ended.stdout.startswith(f"App\n  ✗ The app cannot be loaded: {line} Pass --traceback for details.\n")
    assert "Traceback (most recent call last):" in run_flask(tmp_path / "broken.py", "doctor", "--traceback").stderr


def test_an_app_that_is_not_found() -> None:
    """Flask's own error message is printed."""
    ended = run_flask(Path("no_such_app"), "preview")
    assert ended.returncode == 2
    assert ended.stderr == "Error: The app cannot be loaded: Could not import 'no_such_app'.\n"


def test_flask_finds_the_commands() -> None:
    """The commands are registered as an entry point, and use the namespace of the loaded app."""
    ended = run_flask(MINIMAL, "policy")
    assert ended.returncode == 0, ended.stderr
    assert '"cloudwatch:namespace": "Shop"' in ended.stdout


@pytest.mark.parametrize(
    "arguments", [["policy", "--namespace", "Shop"], ["doctor", "--help"], ["cost", "--metrics=9"]]
)
def test_a_bare_install_is_enough(arguments: list[str]) -> None:
    """Only the demo needs the extra."""
    missing = dict.fromkeys(("rich", "waitress"))
    program = (
        f"import sys; sys.modules.update({missing}); from otel_cloudwatch_flask.cli import main; main({arguments})"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_commands_are_imported_lazily() -> None:
    """The module of a command is imported only when the command runs, so the command line starts fast."""
    program = (
        "import sys, otel_cloudwatch_flask.cli; "
        "print(*[name for name in sys.modules if name == 'boto3' or 'otel_cloudwatch_flask.commands.' in name])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported = ["otel_cloudwatch_flask.commands.shared", "otel_cloudwatch_flask.commands.shared.command"]
    assert ended.stdout.split() == imported


SERIES = {"namespace": "Shop", "metric_name": "Orders", "dimensions": {"b": "2", "a": "1"}, "unit": "Count"}


def test_documents() -> None:
    """A document is found at the top level or nested in another one, with the call rate if it is known."""
    series = SeriesSummary("Shop", "Orders", (("a", "1"), ("b", "2")), "Count")
    assert document_from({"series": [SERIES]}).series == (series,)
    assert document_from({"document": {"series": [SERIES]}, "requests": 3}).series == (series,)
    assert document_from({"series": [], "requests": 6, "seconds": 2.0}).requests_per_second == 3
    assert document_from({"series": [], "requests": 6, "seconds": 0}).requests_per_second is None
    assert document_from({"series": [], "requests": 10**400, "seconds": 2}).requests_per_second is None
    assert document_from({"series": [], "requests_per_second": math.inf}).requests_per_second is None
    assert document_from({"series": [], "requests": 6, "seconds": 2, "requests_per_second": None}) == document_from(
        {"series": []}
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("[]", 'not a JSON object with a list "series"'),
        ('{"series": 3}', 'not a JSON object with a list "series"'),
        ('{"series": [3]}', "it contains an invalid series: 3"),
        ('{"series": [{"metric_name": "Orders"}]}', "it contains an invalid series"),
        ('{"series": [{"namespace": "S", "metric_name": "O", "dimensions": 1}]}', "it contains an invalid series"),
        *(
            (
                f'{{"series": [{{"namespace": "S", "metric_name": "O", "dimensions": {{}}, {field}}}]}}',
                "an invalid series",
            )
            for field in (
                '"samples": "many"',
                '"samples": NaN',
                '"samples": 1e400',
                '"p99": -Infinity',
                f'"p99": {10**400}',
            )
        ),
    ],
)
def test_invalid_documents_are_rejected(tmp_path: Path, text: str, reason: str) -> None:
    """The message says what is wrong, and what to pass instead."""
    path = tmp_path / "seen.json"
    path.write_text(text, "utf-8")
    with pytest.raises(CommandError, match="Pass the output of preview --json") as caught:
        read_document(str(path))
    assert reason in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_encoding_of_a_document(tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PowerShell redirects output as UTF-16, or with a byte order mark. The locale's encoding does not matter."""
    content = json.dumps({"series": [{**SERIES, "metric_name": "Größe"}]}, ensure_ascii=False).encode(encoding)
    (tmp_path / "seen.json").write_bytes(content)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content), "ascii", "surrogateescape"))
    for source in (str(tmp_path / "seen.json"), "-"):
        (series,) = read_document(source).series
        assert series.name == "Größe"


def test_a_closed_standard_input() -> None:
    """A closed standard input is reported in one sentence."""
    command = f"{sys.executable} -m otel_cloudwatch_flask cost --from - <&-"
    ended = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("Error: Cannot read -: standard input is closed. Pass the output of preview --json")


@pytest.mark.parametrize("url", ["http://localhost:port/data.json", "http://not a host/"])
def test_an_invalid_url_is_reported(url: str) -> None:
    """A URL that Python's HTTP client refuses is an error of the command."""
    with pytest.raises(CommandError, match=f"^Cannot read {url}: "):
        read_document(url)


def test_a_missing_document() -> None:
    """A missing file and an unreachable URL are reported in one sentence, without a traceback."""
    for source in ("no-such-file.json", "http://127.0.0.1:9/data.json"):
        ended = run("cost", "--from", source)
        assert ended.returncode == 2
        assert ended.stderr.startswith(f"Error: Cannot read {source}: ")
        assert "Traceback" not in ended.stderr
