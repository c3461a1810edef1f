"""Both sides of every series below each other, for terminals of any width."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from otel_cloudwatch_flask.demo.comparison import FIGURES, Comparison, Expectation, Figures


@dataclass(frozen=True, slots=True)
class Signs:
    """How a terminal says yes, no, at least and at most."""

    right: str
    wrong: str
    at_least: str
    at_most: str


UNICODE: Final = Signs("✓", "✗", "≥", "≤")
ASCII: Final = Signs("+", "!", ">", "<")

_SIGN_WIDTH: Final = 1


@dataclass(frozen=True, slots=True)
class ComparisonTable:
    """A block for each metric, with columns that stand below each other."""

    comparisons: Sequence[Comparison]
    width: int
    signs: Signs

    def parts(self) -> Iterator[RenderableType]:
        """Everything, from the top."""
        yield self._row("  in CloudWatch", list(FIGURES), style="dim")
        yield self._row("    counted by", style="dim")
        for (name, unit), group in groupby(self.comparisons, lambda each: (each.series.name, each.series.unit)):
            comparisons = list(group)
            varying = _varying_dimensions(comparisons)
            by = ", by " + ", ".join(varying) if varying else ""
            measured_in = "without unit" if unit == "None" else f"in {unit}"
            yield Text()
            yield Text.assemble((name, "bold cyan"), (f" {measured_in}{by}", "dim"))
            for comparison in comparisons:
                yield from self._rows(comparison, varying)

    def _rows(self, comparison: Comparison, varying: Sequence[str]) -> Iterator[RenderableType]:
        """What CloudWatch says, and below it who says what else."""
        label = _label(comparison, varying)
        if len(label) > self._label_width:
            yield Text(label)
            label = ""
        expectation = comparison.expectation
        yield self._row(label, _cells(comparison.found), sign=self._sign(comparison))
        counted_by = expectation.counted_by if expectation else "nobody"
        yield self._row(f"    {counted_by}", self._counted_cells(expectation), style="dim")

    def _row(self, label: str, cells: Sequence[str] = (), *, sign: Text | None = None, style: str = "") -> Table:
        row = Table.grid(padding=(0, 1, 0, 0))
        row.add_column(width=self._label_width, no_wrap=True, style=style)
        for width in self._widths:
            row.add_column(width=width, justify="right", no_wrap=True, style=style)
        row.add_column(width=_SIGN_WIDTH)
        row.add_row(Text(label), *map(Text, cells or [""] * len(FIGURES)), sign or Text())
        return row

    @property
    def _label_width(self) -> int:
        """What the figures leave, with a blank between all columns, but no more than is needed."""
        room = self.width - sum(self._widths) - len(self._widths) - _SIGN_WIDTH - 1
        longest = max((len(_label(each, [*dict(each.series.dimensions)])) for each in self.comparisons), default=0)
        return max(min(room, longest), len("    counted by"))

    @property
    def _widths(self) -> list[int]:
        rows: list[Sequence[str]] = [FIGURES, *(_cells(each.found) for each in self.comparisons)]
        rows += [self._counted_cells(each.expectation) for each in self.comparisons]
        return [max(map(len, column)) for column in zip(*rows, strict=True)]

    def _counted_cells(self, expectation: Expectation | None) -> list[str]:
        if expectation is None:
            return _cells(None)
        cells = dict(zip(FIGURES, _cells(expectation.figures()), strict=True))
        for name, limit in expectation.limits().items():
            cells[name] = (self.signs.at_least if name == "min" else self.signs.at_most) + number(limit)
        return [*cells.values()]

    def _sign(self, comparison: Comparison) -> Text:
        if comparison.differences:
            return Text(self.signs.wrong, "bold red")
        return Text(self.signs.right, "bold green")


def number(value: float) -> str:
    """A number in few characters: whole ones exactly, others to four digits, or to the cent if that is more.

    >>> [number(value) for value in (12345.0, -12345.678, 123.456, 0.0123456)]
    ['12,345', '-12,345.68', '123.5', '0.01235']
    """
    if value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.2f}" if abs(value) >= 1000 else f"{value:.4g}"


def _cells(figures: Figures | None) -> list[str]:
    return [number(figures[name]) if figures and name in figures else "-" for name in FIGURES]


def _label(comparison: Comparison, names: Sequence[str]) -> str:
    dimensions = dict(comparison.series.dimensions)
    return "  " + (" ".join(dimensions.get(name, "(none)") for name in names) or "all")


def _varying_dimensions(comparisons: Sequence[Comparison]) -> list[str]:
    """The dimensions that tell a metric's series from each other; the others are the same everywhere."""
    pairs = [set(each.series.dimensions) for each in comparisons]
    common = set.intersection(*pairs) if len(pairs) > 1 else set()
    names = {name for name, _ in set.union(*pairs) - common}
    return sorted(names, key=lambda name: ("status" in name, name))
