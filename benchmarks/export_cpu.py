"""CPU of one export, beside what would be taken instead, and beside the SDK's own collection of the same series.

Everything happens but the network. Of the default boto3 client only the calls are measured, with the very datums that
this exporter makes, as dictionaries; of the EMF libraries only making text of events that are filled already.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final

from rich.table import Table

from benchmarks.harness import Remote, cpu_ms, interleaved, median_ratio
from benchmarks.measurements import COUNTERS, HISTOGRAMS_5, HISTOGRAMS_200, KINDS, Kind
from benchmarks.report import Claim, Report
from benchmarks.ways import BOTO3, EMF, OTLP, OURS, POWERTOOLS, SDK, Prepared, installed

COLUMNS: Final = (SDK, OURS, BOTO3, OTLP, EMF, POWERTOOLS)
LARGE: Final = 10_000
USUAL: Final = 1_000

Figures = Mapping[str, list[float]]
"""CPU milliseconds of each round, by way."""


@dataclass(frozen=True, slots=True)
class Case:
    """So many series of a kind, exported so often; ``None`` stands for all ways that are installed."""

    kind: Kind
    series: int
    rounds: int
    ways: tuple[str, ...] | None = None


SHORT: Final = (
    Case(COUNTERS, USUAL, 9),
    Case(HISTOGRAMS_5, USUAL, 9),
    Case(HISTOGRAMS_200, USUAL, 5, (OURS, BOTO3)),
    Case(COUNTERS, LARGE, 7, (OURS,)),
    Case(HISTOGRAMS_5, LARGE, 7, (OURS,)),
)
LONG: Final = (
    *(Case(kind, series, 15) for series in (100, USUAL) for kind in KINDS),
    *(Case(kind, LARGE, 5) for kind in (COUNTERS, HISTOGRAMS_5)),
    Case(HISTOGRAMS_200, LARGE, 3, (OURS, BOTO3, OTLP)),
)


class Exports(Prepared):
    """A way to export in a process of its own: each call is one export of a case, and returns its CPU."""

    def __call__(self, kind: Kind, series: int) -> float:
        """CPU milliseconds of one export."""
        return cpu_ms(self.prepared(kind, series).run)


def run(*, short: bool) -> Report:
    """Measure every case."""
    ways, missing = installed(COLUMNS)
    cases = SHORT if short else LONG
    results = figures_of(cases, ways)
    return Report([_table(results, ways)], list(claims(results)), missing)


def figures_of(cases: tuple[Case, ...], ways: list[str]) -> dict[tuple[Kind, int], Figures]:
    """The figures of all cases. Cases of one kind and different size are measured together, as they are compared."""
    results: dict[tuple[Kind, int], Figures] = {}
    with ExitStack() as stack:
        remotes: dict[str, Callable[[Kind, int], float]] = {
            way: stack.enter_context(Remote(Exports, way)) for way in ways
        }
        for case in cases:
            measures = {way: partial(remotes[way], case.kind, case.series) for way in case.ways or ways}
            results[case.kind, case.series] = interleaved(measures, case.rounds)
    return results


def claims(results: Mapping[tuple[Kind, int], Figures]) -> Iterator[Claim]:
    """What the figures are wanted to show, as far as they were measured."""
    for kind, times in ((COUNTERS, 15), (HISTOGRAMS_5, 6), (HISTOGRAMS_200, 10)):
        figures = results.get((kind, USUAL), {})
        if BOTO3 in figures:
            ratio = median_ratio(figures[BOTO3], figures[OURS])
            yield Claim(f"export CPU, {USUAL:,} {kind.title}: default boto3 / ours", ratio, at_least=times)
    figures = results.get((HISTOGRAMS_5, USUAL), {})
    if OTLP in figures:
        ratio = median_ratio(figures[OURS], figures[OTLP])
        yield Claim(f"export CPU, {USUAL:,} {HISTOGRAMS_5.title}: ours / OTLP/HTTP", ratio, at_most=1)
    for kind, bound in ((COUNTERS, 0.8), (HISTOGRAMS_5, 1.5)):
        if figures := results.get((kind, USUAL), {}):
            ratio = median_ratio(figures[OURS], figures[SDK])
            yield Claim(f"export CPU, {USUAL:,} {kind.title}: ours / the SDK's collection", ratio, at_most=bound)
    for kind in KINDS:
        if (kind, LARGE) in results and (kind, USUAL) in results:
            ratio = statistics.median(results[kind, LARGE][OURS]) / statistics.median(results[kind, USUAL][OURS])
            yield Claim(f"export CPU, {kind.title}: {LARGE:,} series / {USUAL:,}", ratio, at_most=11)


def _table(results: Mapping[tuple[Kind, int], Figures], ways: list[str]) -> Table:
    table = Table(title="CPU of one export, series of three attributes: milliseconds, medians")
    for heading in ("", "series", *ways):
        table.add_column(heading, justify="right" if heading else "left")
    for (kind, series), figures in results.items():
        cells = (f"{statistics.median(figures[way]):.1f}" if way in figures else "" for way in ways)
        table.add_row(kind.title, f"{series:,}", *cells)
    return table
