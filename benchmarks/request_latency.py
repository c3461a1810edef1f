"""The cost of three metrics per request to a server under load: its CPU time, and the latency that clients see.

Two servers (gunicorn, one process, 16 threads) run the same app, one of them with the reporter. A load generator in
another process puts each under the same open-loop load in turn. CloudWatch responds after 25 ms. The reporter flushes
every second, so a pause during the flush would be visible.
"""

import gc
import math
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from flask import Flask
from rich.table import Table

from benchmarks.harness import Remote, median_ratio, nearest_rank
from benchmarks.measured_apps import METRICS, PAGE, latencies
from benchmarks.open_loop import Answer, load_generator
from benchmarks.report import Claim, Report, table
from otel_cloudwatch_flask import CloudWatchMetricsReporter
from tests.reliability.processes import GUNICORN, Server, serving

CLOUDWATCH_SECONDS: Final = 0.025
RATES: Final = (500, 250, 125)
"""Requests per second. The first rate that the machine sustains is used."""

WITHOUT: Final = "bare Flask"
WITH: Final = "3 add_metric"
APPS: Final[Mapping[str, str]] = {WITHOUT: "bare_app", WITH: "measured_app"}
NEAR: Final = "within 50 ms of a flush"
OTHERS: Final = "at other times"
BODY: Final = "hello"

_GTHREAD: Final = [*GUNICORN, "--workers", "1", "--threads", "16", "--worker-class", "gthread"]
_WARM_UP_SECONDS: Final = 3.0
_LEAD_IN_SECONDS: Final = 1.0
"""Seconds before a turn, during which the other server makes its last call."""
_SATURATED_MS: Final = 20.0
_NEAR_SECONDS: Final = 0.05
_WINDOW_SECONDS: Final = 0.1
_SLOWEST_WINDOWS: Final = 6


def bare_app() -> Flask:
    """Return an app that measures nothing.

    ``/cpu`` returns the CPU seconds of the server process, in all threads. ``/collect`` collects its garbage, because a
    full collection takes tens of milliseconds, and would otherwise affect only some turns.
    """
    app = Flask("benchmark")
    app.add_url_rule("/", "index", lambda: BODY)
    app.add_url_rule("/cpu", "cpu", lambda: str(time.process_time()))
    app.add_url_rule("/collect", "collect", lambda: str(gc.collect()))
    return app


def measured_app() -> Flask:
    """Return the same app with three metrics per request."""
    app = bare_app()
    reporter = CloudWatchMetricsReporter(app, "Benchmark", flush_min_interval_seconds=1.0)
    values = latencies()

    @app.after_request
    def measure(response: Any) -> Any:
        for name, unit in METRICS[:3]:
            reporter.add_metric(name, next(values), unit, PAGE)
        return response

    return app


@dataclass(frozen=True, slots=True)
class Turn:
    """The results of a server that was under load for some seconds."""

    answers: Sequence[Answer]
    cpu_seconds: float
    calls: Sequence[float]
    """The times at which calls reached CloudWatch."""

    @property
    def cpu_us(self) -> float:
        """The CPU time of the server process per request, in microseconds."""
        return self.cpu_seconds / len(self.answers) * 1e6

    def from_call(self, answer: Answer) -> float:
        """Return the seconds from the nearest call to a request's due time, which are negative if the call is later."""
        return min((answer.due - call for call in self.calls), key=abs, default=math.inf)

    def answers_by_flush(self) -> dict[str, list[Answer]]:
        """Return the answers to requests due within 50 ms of a call to CloudWatch, and the other answers."""
        found: dict[str, list[Answer]] = {NEAR: [], OTHERS: []}
        for answer in self.answers:
            found[NEAR if abs(self.from_call(answer)) <= _NEAR_SECONDS else OTHERS].append(answer)
        return found

    def slowest_windows(self) -> Iterator[Answer]:
        """Yield the slowest request of each 100 ms."""
        windows: dict[int, Answer] = {}
        for answer in self.answers:
            window = int(answer.due / _WINDOW_SECONDS)
            windows[window] = max(answer, windows.get(window, answer), key=_latency)
        yield from windows.values()


@dataclass(frozen=True, slots=True)
class Measured:
    """The turns of each server, and their requests per second."""

    rate: int
    turns: Mapping[str, Sequence[Turn]]

    def cpu_us(self, name: str) -> list[float]:
        """Return the CPU time per request in each turn of a server."""
        return [turn.cpu_us for turn in self.turns[name]]

    def quantiles_ms(self, name: str, percent: float) -> list[float]:
        """Return a latency percentile per turn: of a server, of the requests ``NEAR`` a flush, or of the ``OTHERS``."""
        return [quantile_ms(answers, percent) for answers in self._answers(name)]

    def slowest(self, name: str) -> list[tuple[float, float]]:
        """Return, for each 100 ms of a server, the latency of the slowest request and its seconds from a call."""
        windows = [(each.latency, turn.from_call(each)) for turn in self.turns[name] for each in turn.slowest_windows()]
        return sorted(windows, reverse=True)[:_SLOWEST_WINDOWS]

    def _answers(self, name: str) -> list[Sequence[Answer]]:
        if name in self.turns:
            return [turn.answers for turn in self.turns[name]]
        return [turn.answers_by_flush()[name] for turn in self.turns[WITH]]


def quantile_ms(answers: Sequence[Answer], percent: float) -> float:
    """Return a latency percentile in milliseconds."""
    return nearest_rank(sorted(map(_latency, answers)), percent) * 1000


def _latency(answer: Answer) -> float:
    return answer.latency


def run(*, short: bool) -> Report:
    """Put the servers under load in turn, and return the report."""
    measured = measure(rounds=4, seconds=4.0) if short else measure(rounds=9, seconds=20.0)
    return Report([_load_table(measured), _slowest_table(measured)], list(claims(measured)))


def measure(*, rounds: int, seconds: float) -> Measured:
    """Measure each server in this number of turns of this length."""
    turns: dict[str, list[Turn]] = {name: [] for name in APPS}
    with ExitStack() as stack:
        cloudwatch: Any = stack.enter_context(SlowCloudWatch())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {}
        for name, app in APPS.items():
            application = [f"benchmarks.request_latency:{app}()"]
            servers[name] = stack.enter_context(serving(cloudwatch, directory / name, _GTHREAD, application))
        load = stack.enter_context(Remote(load_generator))
        rate = _sustained_rate(load, list(servers.values()))
        for number in range(rounds):
            for name in sorted(servers, reverse=bool(number % 2)):
                turns[name].append(_turn(load, servers[name], cloudwatch, rate, seconds))
    return Measured(rate, turns)


def _sustained_rate(load: Remote, servers: Sequence[Server]) -> int:
    """Warm up the servers, and return the highest rate at which no queue builds up."""
    for rate in RATES[:-1]:
        if all(_keeps_up(load, server, rate) for server in servers):
            return rate
    return RATES[-1]


def _keeps_up(load: Remote, server: Server, rate: int) -> bool:
    """Return whether the server responds without delay in the last second of a warm-up."""
    return quantile_ms(load(server.url, BODY, rate, _WARM_UP_SECONDS)[-rate:], 50) < _SATURATED_MS


def _turn(load: Remote, server: Server, cloudwatch: "SlowCloudWatch", rate: int, seconds: float) -> Turn:
    server.get("/collect")
    load(server.url, BODY, rate, _LEAD_IN_SECONDS)
    cloudwatch.calls.clear()
    cpu_before = server.get("/cpu")
    answers = load(server.url, BODY, rate, seconds)
    return Turn(answers, server.get("/cpu") - cpu_before, list(cloudwatch.calls))


def claims(measured: Measured) -> Iterator[Claim]:
    """Return the claims about the figures.

    A pause during the flush is most visible in p95: a pause of 6 ms delays 3 of the 50 requests within 50 ms.
    """
    cpu = median_ratio(measured.cpu_us(WITH), measured.cpu_us(WITHOUT))
    yield Claim(f"under load, server CPU of a request: {WITH} / {WITHOUT}", cpu, at_most=1.3)
    for name, to, percent, bound in (
        (WITH, WITHOUT, 99, 1.5),
        (WITH, WITHOUT, 99.9, 2),
        (NEAR, OTHERS, 95, 1.5),
        (NEAR, OTHERS, 99, 2.5),
    ):
        ratio = median_ratio(measured.quantiles_ms(name, percent), measured.quantiles_ms(to, percent))
        yield Claim(f"under load, p{percent:g}: {name} / {to}", ratio, at_most=bound)


class SlowCloudWatch:
    """An HTTP endpoint that accepts every call after 25 ms. It does not validate, to leave the CPU to the servers."""

    def __init__(self) -> None:
        self.calls: list[float] = []
        """The times at which calls arrived (``time.monotonic()``)."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self._server.daemon_threads = True

    def __enter__(self) -> "SlowCloudWatch":  # noqa: PYI034 - Python 3.10's typing has no Self
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self) -> dict[str, str]:
        """Return the environment variables that direct a server's AWS SDK to this endpoint."""
        return {
            "AWS_ENDPOINT_URL_CLOUDWATCH": f"http://127.0.0.1:{self._server.server_port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, cloudwatch: SlowCloudWatch, *arguments: Any) -> None:
        self._cloudwatch = cloudwatch
        super().__init__(*arguments)

    def handle(self) -> None:
        """Respond to calls until the server under test ends."""
        with suppress(ConnectionError):
            super().handle()

    def do_POST(self) -> None:
        """Accept a call after the delay."""
        self._cloudwatch.calls.append(time.monotonic())
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(CLOUDWATCH_SECONDS)
        self.send_response(200)
        self.send_header("x-amzn-RequestId", "benchmark")
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def _load_table(measured: Measured) -> Table:
    note = f"This machine does not sustain {RATES[0]} requests a second." if measured.rate < RATES[0] else None
    title = f"A server at {measured.rate} requests a second, CloudWatch 25 ms away: medians of rounds (lowest-highest)"
    percentiles = (50, 95, 99, 99.9)
    headings = ("", "CPU of a request, µs", *(f"p{percent:g} ms" for percent in percentiles), "calls")
    made = table(title, headings, caption=note)
    for name in (WITHOUT, WITH, NEAR, OTHERS):
        times = [_spread(measured.quantiles_ms(name, percent), 1) for percent in percentiles]
        if turns := measured.turns.get(name):
            calls = sum(len(turn.calls) for turn in turns)
            made.add_row(name, _spread(measured.cpu_us(name), 0), *times, str(calls))
        else:
            made.add_row(f"{WITH}, {name}", "", *times, "")
    return made


def _spread(figures: Sequence[float], digits: int) -> str:
    return f"{statistics.median(figures):.{digits}f} ({min(figures):.{digits}f}-{max(figures):.{digits}f})"


def _slowest_table(measured: Measured) -> Table:
    made = table(
        "The slowest 100 ms of each server: its slowest request",
        ("", "latency, ms", "distance, ms"),
        caption="Distance: from the nearest call to CloudWatch until the request was due",
    )
    for name in measured.turns:
        made.add_section()
        for latency, distance in measured.slowest(name):
            made.add_row(name, f"{latency * 1000:.1f}", f"{distance * 1000:+.0f}" if math.isfinite(distance) else "")
    return made
