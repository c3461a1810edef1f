"""Names in the developer documentation, and sessions that CI runs, exist."""

import re
from pathlib import Path

import pytest

from tests.project.test_layers import LAYERS

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SESSIONS = set(re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text("utf-8"), re.MULTILINE))


@pytest.mark.skipif(not WORKFLOWS, reason="a source distribution has no workflows")
@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_sessions_of_nox(workflow: Path) -> None:
    """Each workflow runs sessions that exist, and pins each action to a version."""
    text = workflow.read_text("utf-8")
    named = re.findall(r"(?:--session|\{ session:) ([a-z]+)", text)
    assert set(named) <= SESSIONS
    assert named
    actions = re.findall(r"uses: (\S+)", text)
    assert all(re.search(r"@(v\d+|release/v\d+)$", action) for action in actions), actions


def test_contributing_names_sessions_that_exist() -> None:
    """The session table in CONTRIBUTING.md names existing sessions."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    rows = "".join(re.findall(r"^\| `.*?\|", text, re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", rows)) <= SESSIONS


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md", "docs/_static/architecture.svg"])
def test_named_files_and_folders_exist(page: str) -> None:
    """Every file and folder named on a developer page exists in the repository or in the package."""
    text = (ROOT / page).read_text("utf-8")
    files = set(re.findall(r"`([\w/]+\.(?:py|js|md|toml|yml))`", text))
    folders = set(re.findall(r"\b([a-z_]+(?:/[a-z_]+)*)/(?=[`<;,. ])", text))
    bases = (
        ROOT,
        ROOT / "otel_cloudwatch_flask",
        ROOT / "otel_cloudwatch_flask" / "testing",
        ROOT / ".github" / "workflows",
    )
    assert files | folders
    assert [name for name in files | folders if not any((base / name).exists() for base in bases)] == []


def test_the_picture_shows_every_folder() -> None:
    """The architecture diagram has each folder of the package, and the modules that it names exist."""
    picture = (ROOT / "docs" / "_static" / "architecture.svg").read_text("utf-8")
    folders = {folder.partition("/")[0] for folder, _ in LAYERS if folder}
    assert {folder for folder in folders if f"{folder}/" not in picture} == set()


def test_the_table_of_changes_is_complete() -> None:
    """Each row of the table of changes names at least one file and two tests or test folders."""
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    table = page.partition("## I want to change")[2].partition("\n\n")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(table) >= 10
    for row in table:
        _, _, opened, guards, _ = row.split("|")
        assert re.search(r"`[\w/]+(\.py|\.js|/)`", opened), row
        assert len(re.findall(r"`tests/[\w/]+(?:\.py|/)`", guards)) >= 2, row
