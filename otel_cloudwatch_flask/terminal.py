"""Format output for terminals: escape and truncate untrusted text, align tables, and format numbers."""

import shutil
import unicodedata
from collections.abc import Sequence
from typing import Final

import click

_TRUNCATION_MARK: Final = "~"
_MOST_LISTED: Final = 10
_GAP: Final = "  "
_MIN_COLUMN_WIDTH: Final = 12
"""The width below which columns are not truncated."""


def escaped(text: str, width: int | None = None) -> str:
    r"""Escape everything that a terminal might interpret or a reader might not see, and truncate to ``width`` columns.

    Printable ASCII and the letters and digits of left-to-right scripts are kept. Everything else is escaped: control
    characters, bidirectional marks, right-to-left letters, combining and invisible characters, and symbols such as
    emoji. The backslash is escaped too, so that different strings remain different.

    >>> escaped("Orders \x1b[31m\u202e")
    'Orders \\x1b[31m\\u202e'
    """
    safe = "".join(map(_escaped_character, text))
    return safe if width is None else truncated(safe, width)


def truncated(text: str, width: int) -> str:
    """Shorten text that is wider than ``width`` columns so that it fits and ends with ``~``."""
    if display_width(text) <= width:
        return text
    shown = text[:width]
    while display_width(shown + _TRUNCATION_MARK) > width:
        shown = shown[:-1]
    return shown + _TRUNCATION_MARK


def display_width(text: str) -> int:
    """Return the number of terminal columns that escaped ``text`` occupies. Wide East Asian characters occupy two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def terminal_width() -> int:
    """Return the width of the terminal in columns, at least 40. An unknown width counts as 100."""
    return max(shutil.get_terminal_size((100, 24)).columns, 40)


def echo_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), indent: int = 0
) -> None:
    """Print a table with a dim header. If it is wider than the terminal, its widest columns are truncated.

    Truncated columns remain at least 12 wide, so a table with many columns may still be too wide. Columns whose index
    is in ``right`` are right-aligned. Cells must already be escaped.
    """
    widths = [max(map(display_width, column)) for column in zip(header, *rows, strict=True)]
    available = terminal_width() - indent - len(_GAP) * (len(widths) - 1)
    while sum(widths) > available and max(widths) > _MIN_COLUMN_WIDTH:
        widths[widths.index(max(widths))] -= 1
    for row in (header, *rows):
        cells = (_padded(*cell, is_right=number in right) for number, cell in enumerate(zip(row, widths, strict=True)))
        line = _GAP.join(cells).rstrip()
        click.echo(" " * indent + (click.style(line, dim=True) if row is header else line))


def number(value: float | None) -> str:
    """Format a finite number, or return ``"-"`` for ``None``.

    By magnitude, whole numbers below 10^15 are exact, other numbers from 1,000 to 10^15 have two decimal places, and
    the rest have four significant digits.

    >>> [number(value) for value in (12345.0, -12345.678, 123.456, 0.0123456, None)]
    ['12,345', '-12,345.68', '123.5', '0.01235', '-']
    """
    if value is None:
        return "-"
    if value == int(value) and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:,.2f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"


def counted(count: int, noun: str) -> str:
    """Format a count, followed by ``noun`` in the singular or plural.

    >>> counted(1, "metric"), counted(1200, "metric")
    ('1 metric', '1,200 metrics')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def listed(texts: Sequence[str]) -> str:
    """Join the first ten texts, and say how many more there are.

    >>> listed("abc"), listed("abcdefghijklmno")
    ('a, b, c', 'a, b, c, d, e, f, g, h, i, j and 5 more')
    """
    more = f" and {len(texts) - _MOST_LISTED:,} more" if len(texts) > _MOST_LISTED else ""
    return ", ".join(texts[:_MOST_LISTED]) + more


def _escaped_character(character: str) -> str:
    # Right-to-left letters would reorder the rest of the line.
    if character.isalnum() and unicodedata.bidirectional(character) == "L":
        return character
    return character.encode("unicode_escape").decode()


def _padded(text: str, width: int, *, is_right: bool) -> str:
    text = truncated(text, width)
    padding = " " * (width - display_width(text))
    return padding + text if is_right else text + padding
