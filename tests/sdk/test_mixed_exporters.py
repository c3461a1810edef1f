"""OTLP, Prometheus and CloudWatch exporters on one provider under gunicorn agree, and none delays another."""

import http.client
import re
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.reliability.cloudwatch import FailingCloudWatch
from tests.reliability.processes import GUNICORN, PATIENCE_SECONDS, Server, serving
from tests.support.fakes import eventually

pytest.importorskip("opentelemetry.exporter.prometheus")
receiver = pytest.importorskip("tests.support.otlp_receiver")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork")

REQUESTS, CLIENTS = 3000, 8
COUNTED = {
    "Orders": "orders_count",
    "Numbers": "numbers_count",
    "mixed.visits": "mixed_visits_total",
    "mixed.sizes": "mixed_sizes_count",
    "http.server.duration": "http_server_duration_milliseconds_count",
}
"""The names in CloudWatch and in Prometheus of the metrics that a request records once."""


@dataclass(frozen=True)
class Mixed:
    """The running server and the backends of its exporters."""

    server: Server
    cloudwatch: FailingCloudWatch
    otlp: Any
    ports: Path

    def visit(self, requests: int = REQUESTS) -> None:
        """Send requests over persistent connections."""

        def ask(numbers: range) -> None:
            connection = http.client.HTTPConnection(urlsplit(self.server.url).netloc, timeout=PATIENCE_SECONDS)
            with closing(connection):
                for number in numbers:
                    connection.request("GET", f"/{number}")
                    assert connection.getresponse().read() == str(number).encode()

        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(ask, [range(first, requests, CLIENTS) for first in range(CLIENTS)]))

    def by_cloudwatch(self) -> dict[str, float]:
        """Return the counts in CloudWatch."""
        published = self.cloudwatch.published
        counted = {name: published.count(name) for name in COUNTED}
        return {**counted, "mixed.visits": published.sum("mixed.visits")}

    def by_otlp(self) -> dict[str, float]:
        """Return the counts in the OTLP receiver."""
        return {name: self.otlp.count(name.lower()) for name in COUNTED}

    def by_prometheus(self) -> dict[str, float]:
        """Return the counts from the workers' Prometheus endpoints."""
        counted = dict.fromkeys(COUNTED, 0.0)
        for port in self.ports.iterdir():
            with urllib.request.urlopen(f"http://127.0.0.1:{port.read_text()}/metrics") as page:
                text = page.read().decode()
            for name, series in COUNTED.items():
                counted[name] += sum(map(float, re.findall(rf"^{series}\S* (\S+)$", text, re.MULTILINE)))
        return counted


@contextmanager
def mixed(tmp_path: Path) -> Iterator[Mixed]:
    """Run the server with two workers."""
    ports = tmp_path / "ports"
    ports.mkdir()
    command = [*GUNICORN, "--worker-class", "gthread", "--workers", "2", "--threads", "4", "--keep-alive", "60"]
    with receiver.OtlpReceiver() as otlp, FailingCloudWatch() as cloudwatch:
        variables = {**otlp.environment(), "MIXED_APP_PORTS": str(ports)}
        with serving(
            cloudwatch, tmp_path / "log", command, ["tests.support.mixed_app:create_app()"], **variables
        ) as server:
            assert eventually(lambda: len(list(ports.iterdir())) == 2, within_seconds=PATIENCE_SECONDS)
            yield Mixed(server, cloudwatch, otlp, ports)
            otlp.goes_on.set()
            server.terminate()


EACH_ONCE = dict.fromkeys(COUNTED, REQUESTS)


def test_all_agree(tmp_path: Path) -> None:
    """After 3,000 requests, OTLP, Prometheus and CloudWatch have the same counts and sums."""
    with mixed(tmp_path) as running:
        running.visit()
        assert running.by_prometheus() == EACH_ONCE
    assert running.by_otlp() == EACH_ONCE
    assert running.by_cloudwatch() == EACH_ONCE
    total = REQUESTS * (REQUESTS - 1) / 2
    assert running.otlp.sum("mixed.sizes") == running.otlp.sum("numbers") == total
    assert running.cloudwatch.published.sum("mixed.sizes") == pytest.approx(total, rel=1e-9)
    assert running.cloudwatch.published.sum("Numbers") == pytest.approx(total, rel=1e-9)
    assert running.cloudwatch.validation_errors == []


def test_cloudwatch_is_on_time_while_otlp_hangs(tmp_path: Path) -> None:
    """While the OTLP receiver does not respond, CloudWatch has all counts soon after the last request."""
    with mixed(tmp_path) as running:
        running.otlp.goes_on.clear()
        running.visit()
        assert running.otlp.asked.wait(PATIENCE_SECONDS)
        assert eventually(lambda: running.by_cloudwatch() == EACH_ONCE), running.by_cloudwatch()
        assert running.by_otlp() == dict.fromkeys(COUNTED, 0)
    assert running.by_otlp() == EACH_ONCE


def test_otlp_is_on_time_while_cloudwatch_hangs(tmp_path: Path) -> None:
    """While CloudWatch does not respond, the OTLP receiver has all counts soon after the last request."""
    with mixed(tmp_path) as running, running.cloudwatch.hanging():
        running.visit()
        assert eventually(lambda: running.by_otlp() == EACH_ONCE), running.by_otlp()
        assert running.by_cloudwatch() == dict.fromkeys(COUNTED, 0)
    assert running.by_cloudwatch() == EACH_ONCE
