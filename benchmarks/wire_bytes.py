"""The size of one export: bytes before and after compression, and calls.

EMF libraries write a line per series, which an agent sends as logs. Their compressed size is that of all lines
together, with gzip's default level.
"""

import gzip
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Final, NamedTuple

from rich.table import Table

from benchmarks.harness import Remote
from benchmarks.measurements import COUNTERS, HISTOGRAMS_5, KINDS, Kind
from benchmarks.report import Claim, Report, table
from benchmarks.stubs import Traffic
from benchmarks.ways import BOTO3, EMF, OTLP, OTLP_GZIP, OURS, POWERTOOLS, Prepared, installed_ways

SERIES: Final = 1_000
COLUMNS: Final = (OURS, BOTO3, OTLP, OTLP_GZIP, EMF, POWERTOOLS)
_LINES: Final = (EMF, POWERTOOLS)
_GZIP_LEVEL: Final = 6


class Sent(NamedTuple):
    """Bytes sent, bytes before compression (for EMF: bytes written), and the number of requests or lines."""

    compressed: int
    plain: int
    calls: int


class Exports(Prepared):
    """A way to export, in its own process. Each call exports once and returns the sizes."""

    def __init__(self, way: str) -> None:
        self._sent = Traffic()
        self._writes_lines = way in _LINES
        super().__init__(way, self._sent)

    def __call__(self, kind: Kind, series: int) -> Sent:
        """Export once, and return the sizes."""
        export = self.prepared(kind, series)
        self._sent.clear()
        export.run()
        bodies = self._sent.bodies
        if self._writes_lines:
            return Sent(len(gzip.compress(b"".join(bodies), _GZIP_LEVEL)), sum(map(len, bodies)), len(bodies))
        return Sent(self._sent.sent_bytes, self._sent.plain_bytes, len(bodies))


def run(*, short: bool) -> Report:
    """Export each kind once in each way, and return the report."""
    ways, missing = installed_ways(COLUMNS)
    results = sent_of((COUNTERS, HISTOGRAMS_5) if short else KINDS, ways)
    return Report([_table(results, ways)], list(claims(results[COUNTERS])), missing)


def sent_of(kinds: Sequence[Kind], ways: Sequence[str]) -> dict[Kind, dict[str, Sent]]:
    """Return the sizes that each way sends for the same measurements, by kind."""
    sent: dict[Kind, dict[str, Sent]] = {}
    with ExitStack() as stack:
        remotes = {way: stack.enter_context(Remote(Exports, way)) for way in ways}
        for kind in kinds:
            sent[kind] = {way: remote(kind, SERIES) for way, remote in remotes.items()}
    return sent


def claims(counters: Mapping[str, Sent]) -> Iterator[Claim]:
    """Return the claims about the figures."""
    ours = counters[OURS].compressed
    for way in (OTLP, OTLP_GZIP):
        if way in counters:
            yield Claim(f"bytes of {SERIES:,} counters: ours / {way}", ours / counters[way].compressed, at_most=1)
    for way in _LINES:
        if way in counters:
            yield Claim(f"bytes of {SERIES:,} counters: ours / lines of {way}", ours / counters[way].plain, at_most=1)


def _table(results: Mapping[Kind, Mapping[str, Sent]], ways: list[str]) -> Table:
    title = f"One export of {SERIES:,} series: KB compressed, KB before, requests (of EMF: lines)"
    return table(title, ("", *ways), ((kind.title, *map(_cell, sent.values())) for kind, sent in results.items()))


def _cell(sent: Sent) -> str:
    return f"{sent.compressed / 1000:.1f} / {sent.plain / 1000:.0f} / {sent.calls}"
