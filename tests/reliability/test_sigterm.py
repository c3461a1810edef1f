"""SIGTERM: servers and programs publish everything they have recorded before they end."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.reliability.cloudwatch import FailingCloudWatch
from tests.reliability.processes import PATIENCE_SECONDS, ROOT, Load, environment, serving
from tests.reliability.servers import FURTHER_SERVERS, SERVERS, SERVERS_THAT_LOSE, ServerCase
from tests.support.fakes import eventually

REQUESTS = 64
STREAMED_EVERY = 16
"""``RELIABILITY_SCALE=10`` makes them 600 requests and 40 streamed ones, to further servers as well."""
TESTED = {**SERVERS, **(FURTHER_SERVERS if float(os.environ.get("RELIABILITY_SCALE", "1")) > 1 else {})}

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="this system has no SIGTERM")

SCRIPT = """
import os, signal, sys, threading
from flask import Flask
from otel_cloudwatch_flask import CloudWatchMetricsReporter

if sys.argv[1] == "own handler":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
def record():
    global reporter
    reporter = CloudWatchMetricsReporter(Flask("script"), "Script", flush="interval")
    reporter.add_metric("Orders", 1, "Count")

if sys.argv[1] == "another thread":
    thread = threading.Thread(target=record)
    thread.start()
    thread.join()
    reporter.flush(0)
else:
    record()
signal.raise_signal(signal.SIGTERM)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that Apache's own user may enter, unlike ``tmp_path``."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def answered_before_sigterm(
    cloudwatch: FailingCloudWatch, case: ServerCase, flush: str, requests: int, folder: Path
) -> int:
    """Start a server, send requests, send SIGTERM right after the last response, and return the number of responses."""
    if case.missing:
        pytest.skip(f"not installed: {case.missing}")
    case.write_program(folder)
    command = [word.replace("{folder}", str(folder)) for word in case.command]
    variables = {"COUNTING_APP": "loaded", "OTEL_EXPORTER_CLOUDWATCH_FLUSH": flush, "PYTHONPATH": str(ROOT)}
    with serving(cloudwatch, folder / "log", command, [], **variables) as server:
        # One request per connection: uWSGI's HTTP socket closes connections, and asgiref's WsgiToAsgi answers 500 on
        # connections that uvicorn reuses.
        load = Load(server.url, clients=8, requests_per_connection=1, streamed_every=STREAMED_EVERY).start()
        load.wait_for(requests)
        assert eventually(lambda: len(load.pids) >= case.workers, within_seconds=PATIENCE_SECONDS)
        load.stop()
        server.process.send_signal(signal.SIGTERM)
        status = server.process.wait(PATIENCE_SECONDS)
    assert status == case.status, server.log.read_text()[-5000:]
    assert load.cut_off == []
    return len(load.answered)


def counts(cloudwatch: FailingCloudWatch) -> dict[str, float]:
    """Return how often each metric was published that a request records once."""
    return {name: cloudwatch.published.count(name) for name in ("Requests", "Numbers", "http.server.duration")}


@pytest.mark.parametrize("flush", ["interval", "background"])
@pytest.mark.parametrize("name", TESTED)
def test_servers(  # noqa: PLR0917
    cloudwatch: FailingCloudWatch, folder: Path, name: str, flush: str, scale: float, figures: Callable[..., None]
) -> None:
    """Every answered request is counted once, streamed or not."""
    answered = answered_before_sigterm(cloudwatch, TESTED[name], flush, round(REQUESTS * scale), folder)
    counted = counts(cloudwatch)
    assert set(counted.values()) == {answered}, counted
    figures(answered=answered, **counted)


@pytest.mark.parametrize("name", SERVERS_THAT_LOSE)
def test_workers_that_lose(
    cloudwatch: FailingCloudWatch, folder: Path, name: str, scale: float, figures: Callable[..., None]
) -> None:
    """Workers of ``uvicorn --workers``, and preloaded ones of gunicorn's, lose what was recorded since the last flush.

    The documentation says so, and what to do: ``test_servers`` runs a program that starts uvicorn's workers.
    """
    case, requests = SERVERS_THAT_LOSE[name], round(REQUESTS * scale)
    answered = answered_before_sigterm(cloudwatch, case, "interval", requests, folder)
    counted = counts(cloudwatch)
    assert set(counted.values()) == {0}, counted
    figures(answered=answered, **counted)


@pytest.mark.parametrize(
    ("case", "status", "published"),
    [("no handler", -signal.SIGTERM, 1), ("another thread", -signal.SIGTERM, 1), ("own handler", 7, 0)],
)
def test_programs(cloudwatch: FailingCloudWatch, case: str, status: int, published: int) -> None:
    """A program without a handler publishes its metrics; a program's own handler stays in place.

    A reader made in another thread cannot set a handler; the main thread's first flush sets it.
    """
    command = [sys.executable, "-c", SCRIPT, case]
    ended = subprocess.run(command, cwd=ROOT, env=environment(cloudwatch, {}), timeout=PATIENCE_SECONDS, check=False)
    assert ended.returncode == status
    assert cloudwatch.published.sum("Orders") == published
