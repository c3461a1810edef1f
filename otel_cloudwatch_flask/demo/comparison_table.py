"""Format the compared series as a table that fits terminals of any width."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from rich.text import Text

from otel_cloudwatch_flask.demo.comparison import FIGURES, Comparison, Expectation, Figures
from otel_cloudwatch_flask.terminal import number, truncated


@dataclass(frozen=True, slots=True)
class Signs:
    """Symbols for a match, a mismatch, a lower bound and an upper bound."""

    match: str
    mismatch: str
    at_least: str
    at_most: str


UNICODE: Final = Signs("✓", "✗", "≥", "≤")
ASCII: Final = Signs("+", "!", ">", "<")

_COUNTED_BY: Final = "    counted by"
_NOT_EXPECTED: Final = Expectation("not expected")


class ComparisonTable:
    """A table with a block for each metric. Each series has a line of actual figures and a line of expected figures."""

    def __init__(self, comparisons: Sequence[Comparison], width: int, signs: Signs) -> None:
        self._comparisons = comparisons
        self._signs = signs
        rows = [FIGURES, *(_cells(each.found or {}) for each in comparisons)]
        rows += [self._counted_cells(each.expectation or _NOT_EXPECTED) for each in comparisons]
        self._widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        longest = max((len(_label(each, [*dict(each.series.dimensions)])) for each in comparisons), default=0)
        self._width = width - len(" ✓")
        room = self._width - sum(self._widths) - len(self._widths)
        self._label_width = max(min(room, longest), len(_COUNTED_BY))

    def parts(self) -> Iterator[Text]:
        """Yield the lines of the table."""
        yield self._line("  in CloudWatch", FIGURES, "dim")
        yield self._line(_COUNTED_BY, (), "dim")
        for (name, unit), group in groupby(self._comparisons, lambda each: (each.series.name, each.series.unit)):
            comparisons = list(group)
            varying = _varying_dimensions(comparisons)
            by = ", by " + ", ".join(varying) if varying else ""
            unit_text = "without unit" if unit == "None" else f"in {unit}"
            yield Text()
            yield Text.assemble((name, "bold cyan"), (f" {unit_text}{by}", "dim"))
            for comparison in comparisons:
                yield from self._lines(comparison, _label(comparison, varying))

    def _lines(self, comparison: Comparison, label: str) -> Iterator[Text]:
        """Yield a line of CloudWatch's figures, followed by a line of expected figures."""
        # A label that is too wide gets a separate line, because truncated labels could look the same.
        if len(label) > self._label_width:
            yield Text(label)
            label = ""
        sign = (self._signs.mismatch, "bold red") if comparison.differences else (self._signs.match, "bold green")
        yield self._line(label, _cells(comparison.found or {})).append(" ").append(*sign)
        expectation = comparison.expectation or _NOT_EXPECTED
        yield self._line(f"    {expectation.counted_by}", self._counted_cells(expectation), "dim")

    def _line(self, label: str, cells: Sequence[str], style: str = "") -> Text:
        padded = map(str.rjust, cells, self._widths)
        return Text(truncated(" ".join([label.ljust(self._label_width), *padded]), self._width), style)

    def _counted_cells(self, expectation: Expectation) -> Sequence[str]:
        signs = {"min": self._signs.at_least, "max": self._signs.at_most}
        limits = {name: signs[name] + number(limit) for name, limit in expectation.limits.items()}
        return [limits.get(name, number(expectation.figures.get(name))) for name in FIGURES]


def _cells(figures: Figures) -> Sequence[str]:
    return [number(figures.get(name)) for name in FIGURES]


def _label(comparison: Comparison, names: Sequence[str]) -> str:
    dimensions = dict(comparison.series.dimensions)
    return "  " + (" ".join(dimensions.get(name, "(none)") for name in names) or "all")


def _varying_dimensions(comparisons: Sequence[Comparison]) -> list[str]:
    """Return the names of the dimensions whose values differ between the series, status dimensions last.

    If there is only one series, return the names of all its dimensions.
    """
    pairs = [set(each.series.dimensions) for each in comparisons]
    common = set.intersection(*pairs) if len(pairs) > 1 else set()
    names = {name for name, _ in set.union(*pairs) - common}
    return sorted(names, key=lambda name: ("status" in name, name))
