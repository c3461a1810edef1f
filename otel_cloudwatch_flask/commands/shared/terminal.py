"""Text on a terminal: names that strangers chose are shown, cut and never executed; columns stand below each other."""

import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final

import click

CUT_MARK: Final = "~"
"""Stands where something was cut off."""

_GAP: Final = "  "
_LEAST_WIDTH: Final = 12
"""Columns are not cut below this."""
_ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\"}


def inert(text: str, width: int | None = None) -> str:
    r"""The text with everything escaped that a terminal might obey or a reader might not see, cut to ``width`` columns.

    Shown as they are: printable ASCII, and letters and digits of scripts that run from left to right. Escaped: control
    characters, so escape sequences too, bidirectional marks and letters that run from right to left, combining and
    invisible characters, emoji and other symbols, and the backslash itself.

    >>> inert("Orders \x1b[31m\u202e")
    'Orders \\x1b[31m\\u202e'
    """
    escaped = "".join(map(_escaped, text if width is None else text[: width + 1]))
    return escaped if width is None else cut(escaped, width)


def cut(text: str, width: int) -> str:
    """What fits in so many columns, with a mark at the end if that is not all."""
    if columns(text) <= width:
        return text
    shown = text[:width]
    while shown and columns(shown) > width - len(CUT_MARK):
        shown = shown[:-1]
    return shown + CUT_MARK


def columns(text: str) -> int:
    """How many columns a text takes on a terminal; East Asian characters take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def terminal_width() -> int:
    """The columns there are; 100 where nobody knows."""
    return max(shutil.get_terminal_size((100, 24)).columns, 40)


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), width: int = 100
) -> Iterator[str]:
    """Lines of a table: the columns whose numbers are in ``right`` are flush right, and if it is too wide for a
    terminal of ``width``, the widest column is cut.

    The cells must be inert already.
    """  # noqa: D205 - one sentence
    every = [header, *rows]
    widths = [max(map(columns, column)) for column in zip(*every, strict=True)]
    while sum(widths) + len(_GAP) * (len(widths) - 1) > width and max(widths) > _LEAST_WIDTH:
        widths[widths.index(max(widths))] -= 1
    for row in every:
        cells = (_padded(*cell, is_right=number in right) for number, cell in enumerate(zip(row, widths, strict=True)))
        yield _GAP.join(cells).rstrip()


def echo_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), indent: int = 0
) -> None:
    """Print a table, its header dim, no wider than the terminal."""
    lines = table(header, rows, right=right, width=terminal_width() - indent)
    click.echo(" " * indent + click.style(next(lines), dim=True))
    for line in lines:
        click.echo(" " * indent + line)


def number(value: float | None) -> str:
    """A number in few characters: whole ones exactly, others to four digits, or to the cent if that is more.

    >>> [number(value) for value in (12345.0, -12345.678, 123.456, 0.0123456, None)]
    ['12,345', '-12,345.68', '123.5', '0.01235', '-']
    """
    if value is None:
        return "-"
    if value == int(value) and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:,.2f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isascii():
        return character if character.isprintable() else f"\\x{ord(character):02x}"
    if character.isalnum() and unicodedata.bidirectional(character) == "L":
        return character
    return character.encode("ascii", "backslashreplace").decode()


def _padded(text: str, width: int, *, is_right: bool) -> str:
    text = cut(text, width)
    padding = " " * (width - columns(text))
    return padding + text if is_right else text + padding
