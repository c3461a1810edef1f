"""What the documentation shows is what happens."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
PROGRAMS = [
    pytest.param(code, id=f"{path.stem}-{number}")
    for path in sorted(DOCS.glob("*.md"))
    for number, code in enumerate(
        re.findall(r"^```python\n(.*?)^```", path.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    )
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_program_runs(program: str) -> None:
    """Every Python block runs as it stands, and what it asserts is true."""
    exec(compile(program, "docs", "exec"), {})  # noqa: S102 - our own documentation
