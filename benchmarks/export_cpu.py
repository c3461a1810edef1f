"""CPU time of one export, compared with alternatives and with the SDK's collection of the same series.

Everything runs except the network. For boto3's default client, only the calls are measured, with this exporter's data
points as dictionaries; for the EMF libraries, only the serialization of events that contain every sample.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Final

from rich.table import Table

from benchmarks.harness import Remote, cpu_ms, interleaved, median_ratio
from benchmarks.measurements import COUNTERS, HISTOGRAMS_5, HISTOGRAMS_200, KINDS, Kind
from benchmarks.report import Claim, Report, table
from benchmarks.ways import (
    ADOT,
    BOTO3,
    EMF,
    OTLP,
    OTLP_EXPONENTIAL,
    OTLP_EXPONENTIAL_COLLECTED,
    OURS,
    OURS_COLLECTED,
    OURS_EMF,
    POWERTOOLS,
    SDK,
    Prepared,
    installed_ways,
)

COLUMNS: Final = (SDK, OURS, BOTO3, OTLP, OTLP_EXPONENTIAL, OURS_EMF, ADOT, EMF, POWERTOOLS)
COLLECTED: Final = (OURS_COLLECTED, OTLP_EXPONENTIAL_COLLECTED)
LARGE: Final = 10_000
USUAL: Final = 1_000
SMALL: Final = 250
"""Number of series for ways that must record 200 samples per series before each round."""

Figures = Mapping[str, list[float]]
"""CPU time of each round in milliseconds, by way of exporting."""


@dataclass(frozen=True, slots=True)
class Case:
    """A number of series of one kind, and how often they are exported. ``None`` selects every installed way."""

    kind: Kind
    series: int
    rounds: int
    ways: tuple[str, ...] | None = None


SHORT: Final = (
    Case(COUNTERS, USUAL, 9),
    Case(HISTOGRAMS_5, USUAL, 9),
    Case(HISTOGRAMS_200, USUAL, 5, (OURS, BOTO3, OTLP_EXPONENTIAL, OURS_EMF, EMF)),
)
LONG: Final = (
    *(Case(kind, series, 15) for series in (100, USUAL) for kind in KINDS),
    *(Case(kind, LARGE, 5) for kind in (COUNTERS, HISTOGRAMS_5)),
    Case(HISTOGRAMS_200, LARGE, 3, (OURS, BOTO3, OTLP, OTLP_EXPONENTIAL)),
)


class Exports(Prepared):
    """A way to export, in its own process. Each call exports once and returns the CPU time."""

    def __call__(self, kind: Kind, series: int) -> float:
        """Return the CPU time of one export, in milliseconds."""
        return cpu_ms(self.prepared(kind, series).run)


def run(*, short: bool) -> Report:
    """Measure every case, and return the report."""
    ways, missing = installed_ways(COLUMNS)
    results = figures_of(SHORT if short else LONG, ways)
    collected = collected_figures(rounds=5 if short else 15)
    growths = {kind: growth(kind, rounds=7 if short else 15) for kind in (COUNTERS, HISTOGRAMS_5)}
    made = [*claims(results), *_collected_claims(collected), *_growth_claims(growths)]
    return Report([_table(results, ways), _collected_table(collected)], made, missing)


def figures_of(cases: tuple[Case, ...], ways: list[str]) -> dict[tuple[Kind, int], Figures]:
    """Return the figures of all cases for the installed ways."""
    results: dict[tuple[Kind, int], Figures] = {}
    with ExitStack() as stack:
        remotes: dict[str, Callable[[Kind, int], float]] = {
            way: stack.enter_context(Remote(Exports, way)) for way in ways
        }
        for case in cases:
            chosen = [way for way in ways if way in (case.ways or ways)]
            measures = {way: partial(remotes[way], case.kind, case.series) for way in chosen}
            results[case.kind, case.series] = interleaved(measures, case.rounds)
    return results


def collected_figures(rounds: int) -> Figures:
    """Measure collection and export together, since OTLP's cumulative histograms are expensive to collect."""
    ways, _ = installed_ways(COLLECTED)
    return _alternating({way: (way, HISTOGRAMS_200, SMALL) for way in ways}, rounds)


def growth(kind: Kind, rounds: int) -> float:
    """Return the ratio of the CPU times of exporting 10,000 and 1,000 series."""
    figures = _alternating({"large": (OURS, kind, LARGE), "usual": (OURS, kind, USUAL)}, rounds)
    return median_ratio(figures["large"], figures["usual"])


def _alternating(exports: Mapping[str, tuple[str, Kind, int]], rounds: int) -> Figures:
    """Measure these exports (way, kind, number of series) in alternating rounds, each in its own process."""
    with ExitStack() as stack:
        measures = {
            name: partial(stack.enter_context(Remote(Exports, way)), kind, series)
            for name, (way, kind, series) in exports.items()
        }
        return interleaved(measures, rounds)


def claims(results: Mapping[tuple[Kind, int], Figures]) -> Iterator[Claim]:
    """Yield the claims about the measured figures."""
    for kind, times in ((COUNTERS, 12), (HISTOGRAMS_5, 4.5), (HISTOGRAMS_200, 7)):
        figures = results.get((kind, USUAL), {})
        if BOTO3 in figures:
            ratio = median_ratio(figures[BOTO3], figures[OURS])
            yield Claim(f"export CPU, {USUAL:,} {kind.title}: default boto3 / ours", ratio, at_least=times)
    for kind, way in product(KINDS, (ADOT, EMF, POWERTOOLS)):
        figures = results.get((kind, USUAL), {})
        if way in figures and (kind, way) != (HISTOGRAMS_200, POWERTOOLS):  # Powertools' events have up to 99 samples
            ratio = median_ratio(figures[OURS_EMF], figures[way])
            yield Claim(f"EMF CPU, {USUAL:,} {kind.title}: ours / {way}", ratio, at_most=1)
    for kind, way in ((HISTOGRAMS_5, OTLP), (HISTOGRAMS_200, OTLP_EXPONENTIAL)):
        figures = results.get((kind, USUAL), {})
        if way in figures:
            ratio = median_ratio(figures[OURS], figures[way])
            # The exporter with the same percentiles has a bound only together with collection, its largest cost.
            bound = 1 if way == OTLP else None
            yield Claim(f"export CPU, {USUAL:,} {kind.title}: ours / {way}", ratio, at_most=bound)


def _collected_claims(figures: Figures) -> Iterator[Claim]:
    if OTLP_EXPONENTIAL_COLLECTED in figures:
        ratio = median_ratio(figures[OURS_COLLECTED], figures[OTLP_EXPONENTIAL_COLLECTED])
        title = f"collection and export CPU, {SMALL} {HISTOGRAMS_200.title}: ours / {OTLP_EXPONENTIAL}"
        yield Claim(title, ratio, at_most=1)


def _growth_claims(growths: Mapping[Kind, float]) -> Iterator[Claim]:
    for kind, ratio in growths.items():
        yield Claim(f"export CPU, {kind.title}: {LARGE:,} series / {USUAL:,}", ratio, at_most=11)


def _table(results: Mapping[tuple[Kind, int], Figures], ways: list[str]) -> Table:
    rows = (
        (kind.title, f"{series:,}", *(_median(figures[way]) if way in figures else "" for way in ways))
        for (kind, series), figures in results.items()
    )
    return table("CPU of one export, series of three attributes: milliseconds, medians", ("", "series", *ways), rows)


def _collected_table(figures: Figures) -> Table:
    title = f"CPU of collection and export, {SMALL} {HISTOGRAMS_200.title}: milliseconds, medians"
    return table(title, figures, [map(_median, figures.values())])


def _median(milliseconds: Sequence[float]) -> str:
    return f"{statistics.median(milliseconds):.1f}"
