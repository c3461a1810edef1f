import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_cloudwatch_flask.terminal import display_width, echo_table, escaped, number, truncated

HOSTILE = [
    ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
    ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
    ("a\r\nb\tc\0", "a\\r\\nb\\tc\\x00"),
    ("\x9b2J", "\\x9b2J"),
    ("user\u202egnp.exe", "user\\u202egnp.exe"),
    ("\u2066x\u2069\u200f", "\\u2066x\\u2069\\u200f"),
    ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
    ("a\u0301\u0489", "a\\u0301\\u0489"),
    ("שלום", "\\u05e9\\u05dc\\u05d5\\u05dd"),
    ("🦄", "\\U0001f984"),
    ("\ud800", "\\ud800"),
    ("[red]markup[/red]", "[red]markup[/red]"),
    ("<script>", "<script>"),
    ("back\\slash", "back\\\\slash"),
    ("Bücher Ω 注文", "Bücher Ω 注文"),
]


@pytest.mark.parametrize(("text", "shown"), HOSTILE)
def test_escaping(text: str, shown: str) -> None:
    """Control, bidirectional, invisible and combining characters and emoji are escaped, but not markup."""
    assert escaped(text) == shown


@given(st.text(max_size=60), st.integers(2, 40))
def test_escaped_text_is_safe_and_fits(text: str, width: int) -> None:
    """Escaped text is printable and left-to-right, and no wider than requested."""
    shown = escaped(text, width)
    assert display_width(shown) <= width
    for character in shown:
        assert character.isprintable()
        assert character.isascii() or unicodedata.bidirectional(character) == "L"


@given(st.text(max_size=30), st.text(max_size=30))
def test_escaping_is_unambiguous(one: str, other: str) -> None:
    """Different texts stay different, unless they are truncated."""
    assert (escaped(one) == escaped(other)) is (one == other)


def test_truncation() -> None:
    """Long texts are truncated with a mark; wide characters count as two columns."""
    assert escaped("x" * 1000, 10) == "xxxxxxxxx~"
    assert truncated("注文注文", 5) == "注文~"
    assert truncated("short", 5) == "short"


def test_tables_are_aligned_and_fit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers are right-aligned, and the widest column is truncated until the line fits the terminal."""
    monkeypatch.setenv("COLUMNS", "42")
    rows = [["Orders", "12"], ["注文", "3"], ["n" * 200, "1,234"]]
    echo_table(["metric", "sum"], rows, right=[1], indent=2)
    lines = capsys.readouterr().out.splitlines()
    assert {display_width(line) for line in lines} == {42}
    assert [display_width(line[: line.rindex(" ")]) for line in lines[1:3]] == [39, 40]
    assert lines[3].startswith("  nnnn")
    assert "~" in lines[3]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (-1.5, "-1.5"), (1e20, "1e+20"), (123456.0, "123,456"), (1234.5, "1,234.50")]
)
def test_number_formats(value: float, text: str) -> None:
    """Integers are exact; other numbers have four significant digits, or two decimal places from 1,000 on."""
    assert number(value) == text
