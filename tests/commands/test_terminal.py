import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_cloudwatch_flask.commands.shared.terminal import columns, cut, inert, number, table

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
def test_nothing_is_executed(text: str, shown: str) -> None:
    """Escape sequences, bidirectional marks, invisible and combining characters, emoji are spelt; markup is text."""
    assert inert(text) == shown


@given(st.text(max_size=60), st.integers(2, 40))
def test_whatever_is_shown_is_harmless_and_fits(text: str, width: int) -> None:
    """Printable, from left to right, and no wider than asked for."""
    shown = inert(text, width)
    assert columns(shown) <= width
    for character in shown:
        assert character.isprintable()
        assert character.isascii() or unicodedata.bidirectional(character) == "L"


@given(st.text(max_size=30), st.text(max_size=30))
def test_two_texts_never_look_the_same(one: str, other: str) -> None:
    """As long as nothing is cut off."""
    assert (inert(one) == inert(other)) is (one == other)


def test_long_texts_are_cut_with_a_mark() -> None:
    """Wide characters count twice."""
    assert inert("x" * 1000, 10) == "xxxxxxxxx~"
    assert cut("注文注文", 5) == "注文~"
    assert cut("short", 5) == "short"


def test_columns_stand_below_each_other_and_fit() -> None:
    """Numbers are flush right; the widest column is cut until a line fits."""
    rows = [["Orders", "12"], ["注文", "3"], ["n" * 200, "1,234"]]
    lines = list(table(["metric", "sum"], rows, right=[1], width=40))
    assert {columns(line) for line in lines} == {40}
    assert [columns(line[: line.rindex(" ")]) for line in lines[1:3]] == [37, 38]
    assert lines[3].startswith("nnnn")
    assert "~" in lines[3]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (-1.5, "-1.5"), (1e20, "1e+20"), (123456.0, "123,456"), (1234.5, "1,234.50")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    """Whole ones exactly, others to four digits or to the cent."""
    assert number(value) == text
