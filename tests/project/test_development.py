"""What developers are told, and what CI runs, exists."""

import re
from pathlib import Path

import pytest

from tests.project.test_layers import ORDER

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SESSIONS = set(re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text("utf-8"), re.MULTILINE))


@pytest.mark.skipif(not WORKFLOWS, reason="a source distribution has no workflows")
@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_sessions_of_nox(workflow: Path) -> None:
    """Each workflow names sessions that there are, and pins each action to a version."""
    text = workflow.read_text("utf-8")
    named = re.findall(r"(?:--session|\{ session:) ([a-z]+)", text)
    assert set(named) <= SESSIONS
    assert named
    actions = re.findall(r"uses: (\S+)", text)
    assert all(re.search(r"@(v\d+|release/v\d+)$", action) for action in actions), actions


def test_what_contributors_are_told_exists() -> None:
    """The sessions, files and modules that CONTRIBUTING.md names."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    rows = "".join(re.findall(r"^\| `.*?\|", text, re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", rows)) <= SESSIONS
    paths = set(re.findall(r"`([\w/]+\.(?:py|md|toml))`", text))
    places = (ROOT, ROOT / "otel_cloudwatch_flask", ROOT / ".github" / "workflows")
    assert [path for path in paths if not any((place / path).exists() for place in places)] == []


def test_the_architecture_names_modules_that_exist() -> None:
    """In the text and in the picture."""
    docs = ROOT / "docs"
    named = set(re.findall(r"\(((?:`\w+`(?:, )?)+)\)", (docs / "architecture.md").read_text("utf-8")))
    in_text = {name for group in named for name in re.findall(r"\w+", group)}
    picture = (docs / "_static" / "architecture.svg").read_text("utf-8")
    in_picture = {
        name for line in re.findall(r'class="m">([\w· ]+)<', picture) if "·" in line for name in line.split(" · ")
    }
    assert in_text
    assert in_picture
    assert (in_text | in_picture) - set(ORDER) == set()
