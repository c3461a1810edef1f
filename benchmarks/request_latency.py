"""What a client sees under load: the time of a request with metrics, beside the same request without the extension.

CloudWatch takes 25 ms to answer. The apps run under gunicorn, with threads, in processes of their own; clients, in
another one, put each under the same load in turn, round by round. A second server without the extension is there to
show how far two servers differ that are the same.
"""

import http.client
import statistics
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from flask import Flask
from rich.table import Table

from benchmarks.harness import Remote
from benchmarks.report import Claim, Report
from otel_cloudwatch_flask import CloudWatchMetricsReporter
from tests.reliability.processes import GUNICORN, serving

CLOUDWATCH_SECONDS: Final = 0.025
DATABASE_SECONDS: Final = 0.01
CLIENTS: Final = 4
REQUESTS_A_SECOND: Final = 100

WITH: Final = "with the extension"
WITHOUT: Final = "without"
CONTROL: Final = "without, once more"
PATHS: Final[Mapping[str, str]] = {"/orders": "waits 10 ms for a database", "/": "answers at once"}

_GTHREAD: Final = [*GUNICORN, "--workers", "1", "--threads", str(CLIENTS), "--worker-class", "gthread"]
_WARM_UP_REQUESTS: Final = 50


def bare_app() -> Flask:
    """The app without metrics."""
    app = Flask("bare")

    @app.get("/")
    def index() -> str:
        return "hello"

    @app.get("/orders")
    def orders() -> str:
        time.sleep(DATABASE_SECONDS)
        return "none"

    return app


def measured_app() -> Flask:
    """The same app with three metrics a request."""
    app = bare_app()
    reporter = CloudWatchMetricsReporter(app, "Benchmark")

    @app.after_request
    def measure(response: Any) -> Any:
        for name in ("One", "Two", "Three"):
            reporter.add_metric(name, 1, "Count", {"Page": "index"})
        return response

    return app


APPS: Final = {WITHOUT: "bare_app", WITH: "measured_app", CONTROL: "bare_app"}


@dataclass
class Latencies:
    """Seconds of each request of each round, by server, and when in each the one with the extension has called."""

    rounds: dict[str, list[list[float]]] = field(default_factory=lambda: {name: [] for name in APPS})
    calls: list[list[float]] = field(default_factory=list)

    def quantile_ms(self, name: str, percent: int) -> float:
        """A percentile over all rounds, in milliseconds."""
        return _quantile([each for round_ in self.rounds[name] for each in round_], percent) * 1000

    def ratio(self, name: str, percent: int) -> float:
        """The median over rounds of the ratio of a percentile to that of the server without the extension."""
        pairs = zip(self.rounds[name], self.rounds[WITHOUT], strict=True)
        return statistics.median(_quantile(its, percent) / _quantile(others, percent) for its, others in pairs)

    @property
    def calls_a_second(self) -> float:
        """How fast one call followed the other."""
        pauses = [later - earlier for round_ in self.calls for earlier, later in pairwise(round_)]
        return len(pauses) / sum(pauses) if pauses else 0.0

    @property
    def calls_for_1000_requests(self) -> float:
        """How many calls there were, for so many requests."""
        return 1000 * sum(map(len, self.calls)) / self.requests

    @property
    def requests(self) -> int:
        """How many requests the server with the extension has answered."""
        return sum(map(len, self.rounds[WITH]))


def run(*, short: bool) -> Report:
    """Put the servers under load."""
    if short:
        results = {"/orders": latencies_of("/orders", rounds=3, seconds=1.6)}
    else:
        results = {path: latencies_of(path, rounds=7, seconds=8.0) for path in PATHS}
    orders = results["/orders"]
    made = [
        Claim("p99 under load: with / without the extension", orders.ratio(WITH, 99), at_most=1.05),
        Claim("calls of a process under load", orders.calls_a_second, at_most=1.1, unit=" a second"),
    ]
    return Report([_table(results)], made)


def latencies_of(path: str, *, rounds: int, seconds: float) -> Latencies:
    """Put each server under load for so many seconds in each round."""
    latencies = Latencies()
    with ExitStack() as stack:
        cloudwatch: Any = stack.enter_context(SlowCloudWatch())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls = {}
        for name, app in APPS.items():
            application = [f"benchmarks.request_latency:{app}()"]
            server = stack.enter_context(serving(cloudwatch, directory / name, _GTHREAD, application))
            urls[name] = server.url + path
        load = stack.enter_context(Remote(load_generator))
        for url in urls.values():
            load(url, _WARM_UP_REQUESTS / REQUESTS_A_SECOND)
        names = list(APPS)
        for number in range(rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                cloudwatch.calls.clear()
                latencies.rounds[name].append(load(urls[name], seconds))
                if name == WITH:
                    latencies.calls.append(list(cloudwatch.calls))
    return latencies


def load_generator() -> Any:
    """What puts a server under load: clients with a connection each, that begin at different times."""

    def load(url: str, seconds: float) -> list[float]:
        taken: list[float] = []
        clients = [
            threading.Thread(target=_ask, args=(url, number / REQUESTS_A_SECOND, seconds, taken))
            for number in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        return taken

    return load


def _ask(url: str, delay: float, seconds: float, taken: list[float]) -> None:
    """Ask again and again, as often as it is this client's turn; note the time that each answer took."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    connection.connect()
    begin = time.perf_counter() + delay
    for number in range(int(seconds * REQUESTS_A_SECOND / CLIENTS)):
        time.sleep(max(begin + number * CLIENTS / REQUESTS_A_SECOND - time.perf_counter(), 0))
        begun = time.perf_counter()
        connection.request("GET", parts.path)
        connection.getresponse().read()
        taken.append(time.perf_counter() - begun)
    connection.close()


class SlowCloudWatch:
    """Takes what comes, 25 ms later, without looking at it: it must not need the CPU of the servers under test."""

    def __init__(self) -> None:
        self.calls: list[float] = []
        """When each came, in seconds."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self._server.daemon_threads = True

    def __enter__(self) -> "SlowCloudWatch":  # noqa: PYI034 - Python 3.10's typing has no Self
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self) -> dict[str, str]:
        """The environment variables that lead the AWS SDK of a server here."""
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

    def do_POST(self) -> None:
        """Answer a call."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self._cloudwatch.calls.append(time.monotonic())
        time.sleep(CLOUDWATCH_SECONDS)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _quantile(seconds: Sequence[float], percent: int) -> float:
    return statistics.quantiles(seconds, n=100)[percent - 1]


def _table(results: Mapping[str, Latencies]) -> Table:
    table = Table(title=f"A request under load, {REQUESTS_A_SECOND} a second, three add_metric, CloudWatch 25 ms slow")
    for heading in ("", "p50 ms", "p99 ms", "p50, ratio", "p99, ratio", "calls a second", "calls for 1,000 requests"):
        table.add_column(heading, justify="right" if heading else "left")
    for path, latencies in results.items():
        table.add_section()
        for name in APPS:
            times = (f"{latencies.quantile_ms(name, percent):.2f}" for percent in (50, 99))
            ratios = (f"{latencies.ratio(name, percent):.3f}" for percent in (50, 99))
            table.add_row(f"{PATHS[path]}, {name}", *times, *ratios, *_calls(latencies, name))
    return table


def _calls(latencies: Latencies, name: str) -> tuple[str, str]:
    if name != WITH:
        return "", ""
    return f"{latencies.calls_a_second:.2f}", f"{latencies.calls_for_1000_requests:.1f}"
