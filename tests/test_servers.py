import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import fsum
from pathlib import Path
from typing import Any

import pytest

from otel_cloudwatch_flask.demo.isolation import isolated_environment
from otel_cloudwatch_flask.demo.traffic import Answer, Traffic, visits
from otel_cloudwatch_flask.local_cloudwatch import LocalCloudWatch
from otel_cloudwatch_flask.published import PublishedMetric

ROOT = Path(__file__).parents[1]
REQUESTS = 5000


@pytest.fixture
def cloudwatch() -> Iterator[LocalCloudWatch]:
    """A running CloudWatch."""
    with LocalCloudWatch() as local:
        yield local


@dataclass(frozen=True)
class Gunicorn:
    """A running gunicorn and the file to which it says everything."""

    url: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def visit(self) -> list[Answer]:
        """Send all requests over connections that are kept alive for a while, and come back with all answers."""
        quick = (each for each in visits(seed=11) if each.path != "/slow")
        traffic = Traffic(self.url, islice(quick, REQUESTS), seconds=120, visitors=16)
        traffic.start()
        assert traffic.wait(timeout_seconds=150)
        assert (len(traffic.answers), traffic.failures) == (REQUESTS, []), self.log.read_text()[-5000:]
        return traffic.answers

    def stop(self) -> None:
        """Ask it to end, as a supervisor does, and wait until it has."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=60) == 0, self.log.read_text()[-5000:]

    def requests_by_worker(self) -> Counter[str]:
        """How many requests each worker served, by its own account."""
        return Counter(re.findall(r"^served by (\S+)$", self.log.read_text(), re.MULTILINE))


@contextlib.contextmanager
def running_gunicorn(cloudwatch: LocalCloudWatch, log: Path, *arguments: str) -> Iterator[Gunicorn]:
    """Run examples/shop.py with 2 workers of 4 threads, on a socket that is there before them."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=128) as listener,
        log.open("wb") as log_file,
        isolated_environment(),
    ):
        # gunicorn sets it too, but too late for connections that are made before it is there.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        command = [sys.executable, "-m", "gunicorn", "--workers", "2", "--threads", "4", "--worker-class", "gthread"]
        command += ["--bind", f"fd://{listener.fileno()}", "--keep-alive", "60", "--graceful-timeout", "30"]
        command += ["--access-logfile", "-", "--access-logformat", "served by %(p)s"]
        process = subprocess.Popen(
            [*command, *arguments, "examples.shop:create_app()"],
            cwd=ROOT,
            env={**os.environ, **cloudwatch.environment(), "OTEL_SEMCONV_STABILITY_OPT_IN": ""},
            pass_fds=[listener.fileno()],
            stdout=log_file,
            stderr=log_file,
            start_new_session=True,
        )
    # The socket is gunicorn's alone now: if gunicorn ends, connections are refused instead of waiting for ever.
    with process:
        try:
            yield Gunicorn(url, process, log)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def samples_of_facade(answers: list[Answer]) -> dict[PublishedMetric, list[float]]:
    """What ``add_metric`` and the decorators were given, as the answers show it."""
    samples: defaultdict[PublishedMetric, list[float]] = defaultdict(list)

    def add(name: str, value: float, unit: str = "Count", **dimensions: str) -> None:
        samples[PublishedMetric("Shop", name, tuple(sorted(dimensions.items())), unit)].append(value)

    for answer in answers:
        route, status, body = answer.visit.route, answer.status, answer.body
        if route in ("/", "/checkout"):
            add("RequestCount", 1, ResourceName="Index" if route == "/" else "Checkout", StatusCode=str(status))
        if route == "/checkout" and status == 201:
            add("Orders", 1, Payment=body["payment"])
            add("Order Value", body["total"], "None", Kind="sale")
        elif route == "/checkout":
            add("Failure" if status == 500 else "Error", 1, ResourceName="Checkout")
        elif route == "/refunds":
            add("Order Value", -body["refunded"], "None", Kind="refund")
        elif route == "/cart":
            add("Basket Size", body["articles"])
    return dict(samples)


def assert_facade_is_exact(cloudwatch: LocalCloudWatch, answers: list[Answer]) -> None:
    """Every facade metric has its samples, its sum, its smallest and its largest; and there are no others."""
    expected = samples_of_facade(answers)
    published = {metric for metric in cloudwatch.published.metrics() if not is_open_telemetry(metric)}
    assert published == set(expected)
    for metric, samples in expected.items():
        asked: dict[str, Any] = {"dimensions": dict(metric.dimensions)}
        found = cloudwatch.published
        assert found.count(metric.name, **asked) == len(samples), metric
        assert found.sum(metric.name, **asked) == pytest.approx(fsum(samples), rel=1e-9), metric
        assert found.minimum(metric.name, **asked) == min(samples), metric
        assert found.maximum(metric.name, **asked) == max(samples), metric


def assert_instruments_are_exact(cloudwatch: LocalCloudWatch, answers: list[Answer]) -> None:
    """The shop's own OpenTelemetry counter and histogram have counted each product page and each search."""
    views: Counter[str] = Counter()
    searches: list[int] = []
    for answer in answers:
        if answer.visit.path.startswith("/products/") and answer.status == 200:
            views[answer.body["category"]] += 1
        if answer.visit.route == "/search":
            searches.append(len(answer.body))
    found = cloudwatch.published
    assert {name: found.sum("shop.product.views", category=name) for name in views} == views
    assert found.count("shop.search.results") == len(searches)
    assert found.sum("shop.search.results") == pytest.approx(sum(searches), rel=1e-9)


def assert_durations_are_complete(cloudwatch: LocalCloudWatch, answers: list[Answer]) -> None:
    """Each request has one duration, under its own method, route and status."""
    expected = Counter((each.visit.method, each.visit.route, str(each.status)) for each in answers)
    found: Counter[tuple[str | None, ...]] = Counter()
    for metric in cloudwatch.published.metrics():
        if metric.name == "http.server.duration":
            dimensions = dict(metric.dimensions)
            key = dimensions.get("http.method"), dimensions.get("http.target"), dimensions.get("http.status_code")
            found[key] += int(cloudwatch.published.count(metric.name, dimensions))
    assert found == expected
    assert found.total() == REQUESTS


def is_open_telemetry(metric: PublishedMetric) -> bool:
    """Whether an instrument made it, not ``add_metric``."""
    return metric.name.startswith(("http.", "shop."))


@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork")
@pytest.mark.parametrize("arguments", [(), ("--preload",)], ids=["workers load", "preload"])
def test_gunicorn_publishes_every_request(
    cloudwatch: LocalCloudWatch, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """After 5,000 requests to 2 workers of 4 threads and a SIGTERM, CloudWatch has exactly what was sent."""
    with running_gunicorn(cloudwatch, tmp_path / "gunicorn.log", *arguments) as server:
        answers = server.visit()
        server.stop()
    by_worker = server.requests_by_worker()
    assert (len(by_worker), by_worker.total()) == (2, REQUESTS)
    assert_durations_are_complete(cloudwatch, answers)
    assert_facade_is_exact(cloudwatch, answers)
    assert_instruments_are_exact(cloudwatch, answers)
    assert cloudwatch.refusals == []
