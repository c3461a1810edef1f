"""The CPU time that measuring adds to a request: in the serving thread, and in all threads.

In each process, a bare app and a measuring app alternate, and the cost is the median difference of consecutive turns.
The processes alternate, too. The cost of a flush, which runs in its own thread, is reported separately.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Final, NamedTuple

from flask import Flask
from rich.table import Table
from werkzeug.test import EnvironBuilder

from benchmarks.harness import Remote, cpu_ms, installed, interleaved, medians
from benchmarks.measured_apps import APPS, NONE, PROMETHEUS, RECORDS, THREE, answer, bare_app, extension_app
from benchmarks.report import Claim, Report, table

REQUESTS_A_TURN: Final = 100
_WARM_UP_TURNS: Final = 1


class Cost(NamedTuple):
    """CPU time of a request to the bare app, and what a request to the measuring app adds, in microseconds."""

    bare: float
    added: float
    added_everywhere: float
    """The added time in all threads."""


class Requests:
    """An app that serves the same request repeatedly, without a server."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._environ = EnvironBuilder(path="/", base_url="http://shop.example").get_environ()

    def serve(self, number: int) -> None:
        """Serve this number of requests."""
        for _ in range(number):
            answer(self._app, dict(self._environ))

    def cpu_us(self, number: int) -> tuple[float, float]:
        """Serve requests, and return the CPU time per request in microseconds, in this thread and in all threads."""
        begun, begun_everywhere = time.thread_time_ns(), time.process_time_ns()
        self.serve(number)
        here = time.thread_time_ns() - begun
        self.check_nothing_is_lost()  # also measured, because it completes deferred work
        return here / number / 1000, (time.process_time_ns() - begun_everywhere) / number / 1000

    def check_nothing_is_lost(self) -> None:
        """Raise ``RuntimeError`` if the extension has lost measurements, because its cost would be understated."""
        installed = self._app.extensions.get("cloudwatch_metrics")
        if installed is not None and (lost := installed.reporter.stats().datums_lost):
            raise RuntimeError(f"metrics were lost: {lost}")


class Turns:
    """The two apps of a process. Each call runs both alternately and returns the cost of a request."""

    def __init__(self, name: str) -> None:
        self._measuring = Requests(APPS[name].make())
        self._bare = Requests(bare_app())

    def __call__(self, turns: int) -> Cost:
        """Run each app for this number of turns, and return the cost of a request."""
        return _median([self._turn() for _ in range(_WARM_UP_TURNS + turns)][_WARM_UP_TURNS:])

    def _turn(self) -> Cost:
        bare, bare_everywhere = self._bare.cpu_us(REQUESTS_A_TURN)
        measuring, measuring_everywhere = self._measuring.cpu_us(REQUESTS_A_TURN)
        return Cost(bare, measuring - bare, measuring_everywhere - bare_everywhere)


class Flushes:
    """An app with three metrics per request. Each call flushes and returns the CPU time of a flush."""

    def __init__(self) -> None:
        app = extension_app(3, flush="interval")  # requests do not flush
        self._requests = Requests(app)
        self._flush = app.extensions["cloudwatch_metrics"].reporter.flush

    def __call__(self, flushes: int) -> float:
        """Return the CPU time of a flush after some requests, in all threads, in milliseconds."""
        milliseconds = [self._cpu_ms() for _ in range(1 + flushes)][1:]
        self._requests.check_nothing_is_lost()
        return statistics.median(milliseconds)

    def _cpu_ms(self) -> float:
        self._requests.serve(10)
        return cpu_ms(self._flush)


def run(*, short: bool) -> Report:
    """Measure every app whose packages are installed, and return the report."""
    names, missing = installed(APPS)
    costs = costs_of(names, launches=1 if short else 5, rounds=8 if short else 10, turns=6)
    with Remote(Flushes) as flushes:
        flush_ms = flushes(5 if short else 25)
    return Report([_table(costs, flush_ms)], claims(costs), missing)


def costs_of(names: list[str], *, launches: int, rounds: int, turns: int) -> dict[str, Cost]:
    """Return the median cost of each app over several processes and rounds."""
    costs: dict[str, list[Cost]] = {name: [] for name in names}
    for _ in range(launches):
        with ExitStack() as stack:
            measures = {name: partial(stack.enter_context(Remote(Turns, name)), turns) for name in names}
            for name, each in interleaved(measures, rounds, warm_up_rounds=0).items():
                costs[name] += each
    return {name: _median(each) for name, each in costs.items()}


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(*medians(costs))


def claims(costs: Mapping[str, Cost]) -> list[Claim]:
    """Return the claims about the figures."""
    three = costs[THREE].added_everywhere
    made = [
        Claim(
            "request CPU, all threads: 3 add_metric / 3 Histogram.record",
            three / costs[RECORDS].added_everywhere,
            at_most=1.6,
        ),
        Claim("request CPU added without metrics", costs[NONE].added, at_most=4, unit=" µs"),
    ]
    if PROMETHEUS in costs:
        ratio = three / costs[PROMETHEUS].added_everywhere
        made.append(Claim("request CPU, all threads: 3 add_metric / prometheus_flask_exporter", ratio))
    return made


def _table(costs: Mapping[str, Cost], flush_ms: float) -> Table:
    bare = statistics.median(cost.bare for cost in costs.values())
    return table(
        f"CPU that measuring adds to a request of bare Flask, {bare:.0f} µs",
        ("", "in its thread, µs", "in all threads, µs"),
        ((name, f"{cost.added:.1f}", f"{cost.added_everywhere:.1f}") for name, cost in costs.items()),
        caption=f"A flush of three metrics: {flush_ms:.1f} ms, in all threads",
    )
