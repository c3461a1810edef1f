"""Every guarantee in docs/reliability.md names tests that exist."""

import re

import pytest

from tests.support.doc_blocks import DOCS, ROOT

ROWS = [
    line
    for line in (DOCS / "reliability.md").read_text("utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| guarantee")
]
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py::\w+)`", "\n".join(ROWS))))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:40])
def test_each_guarantee_names_a_test(row: str) -> None:
    """Each row has a guarantee, a limit (or an empty cell), and at least one test."""
    _, guarantee, _, tests, _ = row.split("|")
    assert guarantee.strip()
    assert "::" in tests


@pytest.mark.parametrize("test", TESTS)
def test_each_named_test_exists(test: str) -> None:
    """Tests are named by file and function, or by the test case of a state machine."""
    path, _, name = test.partition("::")
    assert re.search(rf"^\s*(def {name}\(|{name} = )", (ROOT / path).read_text("utf-8"), re.MULTILINE)
