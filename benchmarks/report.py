"""The result of a benchmark: tables, and figures with bounds."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table

REQUIREMENTS: Final = "benchmarks/requirements.txt"
"""The requirements file with all packages to compare with."""

_HEADINGS: Final = ("", "bound", "measured", "")
_BEGIN, _END = "<!-- figures -->\n", "<!-- end of figures -->\n"


@dataclass(frozen=True, slots=True)
class Claim:
    """A figure and its bound, if any; a missed bound does not fail the benchmark."""

    text: str
    measured: float
    at_most: float | None = None
    at_least: float | None = None
    unit: str = "x"

    @property
    def is_held(self) -> bool:
        """Return whether the figure is within its bound."""
        return (self.at_most is None or self.measured <= self.at_most) and (
            self.at_least is None or self.measured >= self.at_least
        )

    def cells(self) -> tuple[str, str, str, str]:
        """Return the claim as a row of a table."""
        measured = f"{self.measured:.2f}{self.unit}"
        if self.at_most is None and self.at_least is None:
            return self.text, "", measured, ""
        bound = f"≥ {self.at_least:g}" if self.at_most is None else f"≤ {self.at_most:g}"
        return self.text, f"{bound}{self.unit}", measured, "held" if self.is_held else "missed"


@dataclass(frozen=True)
class Report:
    """The tables and claims of a benchmark, and the ways that are omitted because their packages are not installed."""

    tables: Sequence[RenderableType]
    claims: Sequence[Claim] = ()
    missing: Sequence[str] = field(default=())

    def __rich_console__(self, _console: Console, _options: ConsoleOptions) -> Iterator[RenderableType]:
        yield from self.tables
        if self.claims:
            yield claims_table(self.claims)
        if self.missing:
            yield f"Omitted because not installed: {', '.join(self.missing)}. pip install -r {REQUIREMENTS}"


def table(
    title: str | None, headings: Iterable[str], rows: Iterable[Iterable[str]] = (), *, caption: str | None = None
) -> Table:
    """Return a table whose columns are right-aligned, except those without a heading."""
    made = Table(title=title, caption=caption)
    for heading in headings:
        made.add_column(heading, justify="right" if heading else "left")
    for row in rows:
        made.add_row(*row)
    return made


def claims_table(claims: Iterable[Claim]) -> Table:
    """Return a table of figures and their bounds."""
    return table(None, _HEADINGS, (claim.cells() for claim in claims))


def with_figures(document: str, claims: Iterable[Claim], *, made_by: str) -> str:
    """Return a Markdown document with the figures between two comments replaced, and with a line about their origin.

    Raises ``ValueError`` if the document has no such comments.
    """
    before, begin, rest = document.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"the document has no {_BEGIN.strip()} ... {_END.strip()} comments for the figures")
    rows = [_HEADINGS, ("---", "---:", "---:", "---"), *(claim.cells() for claim in claims)]
    lines = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return f"{before}{begin}{made_by}\n\n{lines}{end}{after}"
