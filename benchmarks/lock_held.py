"""The longest time for which an export keeps other threads from running.

A thread wakes every millisecond and records its delay, counting only the time in which its process used the CPU.
Python releases the GIL after at most 5 ms (``sys.getswitchinterval()``), unless a C extension holds it.
The SDK's collection is not measured, nor is the first export, which imports boto3.
"""

import gc
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Final

from rich.table import Table

from benchmarks.harness import Remote, interleaved
from benchmarks.measurements import COUNTERS, HISTOGRAMS_5, HISTOGRAMS_200, Kind
from benchmarks.report import Claim, Report, table
from benchmarks.ways import BOTO3, OTLP, OURS, Prepared, installed_ways

SERIES: Final = 10_000
PYTHON: Final = "a loop in Python"
MOST_MS: Final = 20.0

_WAKE_SECONDS: Final = 0.001


class Watch:
    """A thread that wakes every millisecond within a ``with`` block."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.longest_ms = 0.0

    def __enter__(self) -> "Watch":  # noqa: PYI034 - Python 3.10's typing has no Self
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        woke, cpu = time.perf_counter(), time.process_time()
        while not self._ended.is_set():
            time.sleep(_WAKE_SECONDS)
            now, cpu_now = time.perf_counter(), time.process_time()
            # While another process has the CPU, this process uses none and delays no threads.
            late = min(now - woke - _WAKE_SECONDS, cpu_now - cpu)
            self.longest_ms = max(self.longest_ms, late * 1000)
            woke, cpu = now, cpu_now


class Stretches(Prepared):
    """A way to export, in its own process. Each call exports once and returns the longest delay of other threads."""

    def __call__(self, kind: Kind, series: int) -> float:
        """Return the longest delay in milliseconds."""
        return longest_ms(self.prepared(kind, series).run)


class Loop:
    """A loop in pure Python, for comparison."""

    def __call__(self) -> float:
        """Return the longest delay in milliseconds."""
        return longest_ms(lambda: sum(number for number in range(5_000_000)))


def longest_ms(work: Callable[[], object]) -> float:
    """Collect garbage, and return the longest delay of other threads during a call, in milliseconds."""
    gc.collect()
    with Watch() as watch:
        work()
    return watch.longest_ms


def run(*, short: bool) -> Report:
    """Measure exports of many series, and return the report."""
    kinds = (HISTOGRAMS_5,) if short else (COUNTERS, HISTOGRAMS_5, HISTOGRAMS_200)
    ways, missing = installed_ways((OURS, BOTO3) if short else (OURS, BOTO3, OTLP))
    medians = medians_of(kinds, ways, rounds=2 if short else 9)
    made = [
        Claim(f"longest stretch, {SERIES:,} {kind}", each[OURS], at_most=MOST_MS, unit=" ms")
        for kind, each in medians.items()
    ]
    return Report([_table(medians)], made, missing)


def medians_of(kinds: Sequence[Kind], ways: Sequence[str], *, rounds: int) -> dict[str, dict[str, float]]:
    """Return the longest delay in milliseconds, as the median over rounds, for each kind and way."""
    medians = {}
    with ExitStack() as stack:
        remotes = {way: stack.enter_context(Remote(Stretches, way)) for way in ways}
        loop = stack.enter_context(Remote(Loop))
        for kind in kinds:
            measures: dict[str, Callable[[], float]] = {
                **{way: partial(remote, kind, SERIES) for way, remote in remotes.items()},
                PYTHON: loop,
            }
            stretches = interleaved(measures, rounds, warm_up_rounds=1)
            medians[kind.title] = {way: statistics.median(each) for way, each in stretches.items()}
    return medians


def _table(medians: Mapping[str, Mapping[str, float]]) -> Table:
    title = f"The longest wait of other threads during an export of {SERIES:,} series: ms, medians"
    ways = list(next(iter(medians.values())))
    return table(title, ("", *ways), ((kind, *(f"{each[way]:.1f}" for way in ways)) for kind, each in medians.items()))
