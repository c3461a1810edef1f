"""Tools for comparable figures: separate processes, alternating rounds, medians, paired ratios.

Each way of doing something runs in its own process. In each round, all processes measure once, one after the other, so
that other load on the machine affects all of them. A ratio is the median of the rounds' ratios.
"""

import gc
import multiprocessing
import os
import resource
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypeVar

_Figure = TypeVar("_Figure")

_WARM_UP_ROUNDS: Final = 2
_FOREIGN_SETTINGS: Final = ("AWS_", "OTEL_", "CLOUDWATCH_", "POWERTOOLS_", "PROMETHEUS_")


@dataclass(frozen=True, slots=True)
class Alternative:
    """Something to measure: a function that creates it, and the modules that it requires."""

    make: Callable[..., Any]
    needs: tuple[str, ...] = ()


def installed(alternatives: Mapping[str, Alternative]) -> tuple[list[str], list[str]]:
    """Return the names of the alternatives whose modules are installed, and the other names."""
    here = [name for name, each in alternatives.items() if all(map(_is_installed, each.needs))]
    return here, [name for name in alternatives if name not in here]


def optional(module: str) -> Any:
    """Import an optional module and return it as ``Any``, because type checkers may not find it."""
    return import_module(module)


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # even the parent package is missing
        return False


class Remote:
    """The result of ``make(*arguments)`` in another process; calling this object calls that result.

    ``make``, arguments and results are pickled, so ``make`` is a module-level function. The process is spawned rather
    than forked, so that it starts like an application, and without this machine's settings for AWS and OpenTelemetry.
    """

    def __init__(self, make: Callable[..., Callable[..., Any]], *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, mp_context=context)
        self._ready = self._pool.submit(_make, make, arguments)

    def __enter__(self) -> "Remote":  # noqa: PYI034 - Python 3.10's typing has no Self
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def __call__(self, *arguments: object) -> Any:
        """Call the remote object."""
        self._ready.result()
        return self._pool.submit(_call, arguments).result()


_made: list[Callable[..., Any]] = []
"""The object that this process calls."""


def _make(make: Callable[..., Callable[..., Any]], arguments: tuple[object, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for name in [name for name in os.environ if name.startswith(_FOREIGN_SETTINGS)]:
        del os.environ[name]
    _made.append(make(*arguments))


def _end_with_parent() -> None:
    """End this process when its parent ends, because it would otherwise wait forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(arguments: tuple[object, ...]) -> Any:
    return _made[-1](*arguments)


def interleaved(
    measures: Mapping[str, Callable[[], _Figure]], rounds: int, *, warm_up_rounds: int = _WARM_UP_ROUNDS
) -> dict[str, list[_Figure]]:
    """Return the figures of each round after the warm-up. Each round starts with a different measure."""
    names = list(measures)
    figures: dict[str, list[_Figure]] = {name: [] for name in names}
    for number in range(warm_up_rounds + rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            figures[name].append(measures[name]())
    return {name: each[warm_up_rounds:] for name, each in figures.items()}


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Return the median of the rounds' ratios, which is robust against drift."""
    return statistics.median(above / below for above, below in zip(numerators, denominators, strict=True))


def medians(rows: Iterable[Sequence[float]]) -> list[float]:
    """Return the median of each column."""
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def nearest_rank(ordered: Sequence[float], percent: float) -> float:
    """Return a percentile of sorted values: the smallest value for which ``percent`` % of all values are not larger."""
    # Use integers (tenths of a percent): with floats, 99.9 / 100 * 1000 is more than 999.
    return ordered[max(0, -(-round(percent * 10) * len(ordered) // 1000) - 1)]


def rss_bytes() -> int:
    """Return the current memory of this process in bytes or, if the system does not report it, the peak."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text("ascii").split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def cpu_ms(work: Callable[[], object]) -> float:
    """Collect garbage, and return the CPU time of a call in milliseconds, in all threads."""
    gc.collect()
    gc.disable()
    try:
        begun = time.process_time()
        work()
        return (time.process_time() - begun) * 1000
    finally:
        gc.enable()
