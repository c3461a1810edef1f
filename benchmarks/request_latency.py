"""What a client sees: the time of a request with metrics, beside the same request without the extension.

CloudWatch takes 300 ms to answer. Both apps run under waitress in processes of their own; requests to them alternate,
so that whatever else the machine does hits both.
"""

import http.client
import multiprocessing
import socket
import statistics
import time
from collections.abc import Callable
from typing import Any

import waitress
from flask import Flask
from rich.table import Table

from otel_cloudwatch_flask import CloudWatchMetricsReporter
from otel_cloudwatch_flask.local_cloudwatch import LocalCloudWatch

CLOUDWATCH_LATENCY_SECONDS = 0.3


def bare_app() -> Flask:
    """The app without metrics."""
    app = Flask("bare")

    @app.get("/")
    def index() -> str:
        return "hello"

    return app


def measured_app() -> Flask:
    """The same app with three metrics a request."""
    app = Flask("measured")
    reporter = CloudWatchMetricsReporter(app, "Benchmark")

    @app.get("/")
    def index() -> str:
        for name in ("One", "Two", "Three"):
            reporter.add_metric(name, 1, "Count", {"Page": "index"})
        return "hello"

    return app


def run(*, short: bool) -> Table:
    """Alternate requests to both apps; then count the calls that a burst causes."""
    rounds = 400 if short else 4000
    with LocalCloudWatch() as cloudwatch:
        cloudwatch.latency_seconds = CLOUDWATCH_LATENCY_SECONDS
        with _Server(bare_app, {}) as bare, _Server(measured_app, cloudwatch.environment()) as measured:
            times: dict[str, list[float]] = {"without": [], "with": []}
            for _ in range(rounds):
                times["without"].append(bare.timed_request())
                times["with"].append(measured.timed_request())
            calls_before = cloudwatch.traffic.put_requests
            begun = time.perf_counter()
            for _ in range(200):
                measured.timed_request()
            burst_seconds = time.perf_counter() - begun
            time.sleep(2.0)  # the flushes that the burst asked for
            burst_calls = cloudwatch.traffic.put_requests - calls_before
    return _table(times, burst_calls=burst_calls, burst_seconds=burst_seconds)


def _table(times: dict[str, list[float]], *, burst_calls: int, burst_seconds: float) -> Table:
    table = Table(title="A request with three add_metric calls, CloudWatch 300 ms slow (background policy)")
    for heading in ("", "median ms", "p99 ms"):
        table.add_column(heading, justify="left" if not heading else "right")
    medians = {}
    for name, seconds in times.items():
        medians[name] = statistics.median(seconds) * 1000
        p99 = statistics.quantiles(seconds, n=100)[-1] * 1000
        table.add_row(f"{name} the extension", f"{medians[name]:.2f}", f"{p99:.2f}")
    table.add_row("difference", f"{medians['with'] - medians['without']:+.2f}", "")
    table.add_section()
    table.add_row(f"calls for 200 requests in {burst_seconds:.2f} s", str(burst_calls), "")
    return table


class _Server:
    """An app under waitress in a process of its own, and one connection to it."""

    def __init__(self, make_app: Callable[[], Flask], environment: dict[str, str]) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self._port: int = listener.getsockname()[1]
        # Not forked: the server starts from nothing, as it does in production.
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_serve, args=(make_app, environment, listener), daemon=True)
        self._process.start()
        listener.close()

    def __enter__(self) -> "_Server":  # noqa: PYI034 - Python 3.10's typing has no Self
        self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        self.timed_request()
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.terminate()
        self._process.join()

    def timed_request(self) -> float:
        """Seconds from the request to the end of the answer."""
        begun = time.perf_counter()
        self._connection.request("GET", "/")
        self._connection.getresponse().read()
        return time.perf_counter() - begun


def _serve(make_app: Callable[[], Flask], environment: dict[str, str], listener: socket.socket) -> None:
    import os  # noqa: PLC0415 - this is another process

    os.environ.update(environment)
    serve: Any = waitress.serve
    serve(make_app(), sockets=[listener], threads=4)
