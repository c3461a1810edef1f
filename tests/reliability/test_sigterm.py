"""SIGTERM: servers and programs publish everything they have recorded before they end."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue

import pytest

from otel_cloudwatch_flask.testing.local.server import Fault
from tests.reliability.cloudwatch import SERVER_ERROR, FailingCloudWatch
from tests.reliability.processes import PATIENCE_SECONDS, ROOT, Load, environment, serving
from tests.reliability.servers import FURTHER_SERVERS, SERVERS, SERVERS_THAT_LOSE, ServerCase
from tests.support.fakes import eventually

REQUESTS = 64
STREAMED_EVERY = 16
"""``RELIABILITY_SCALE=10`` sends 640 requests, 40 of them streamed, to more servers and with both policies."""
IS_FULL = float(os.environ.get("RELIABILITY_SCALE", "1")) > 1
TESTED = {**SERVERS, **(FURTHER_SERVERS if IS_FULL else {})}
RUNS = [
    (name, flush)
    for name, case in TESTED.items()
    for flush in ("interval", "background")
    # With flush="interval", all requests are still unpublished when the signal arrives.
    if IS_FULL or case.workers == 1 or flush == "interval"
]

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
if sys.argv[1] == "shutdown":
    reporter.shutdown()
elif sys.argv[1] == "shutdown, another thread":
    thread = threading.Thread(target=reporter.shutdown)
    thread.start()
    thread.join()
elif sys.argv[1] != "exit":
    signal.raise_signal(signal.SIGTERM)
"""
SCRIPT_THAT_HOLDS_A_LOCK = """
import contextlib, logging, signal, sys, time
from opentelemetry.metrics import get_meter
from otel_cloudwatch_flask import CloudWatchMetricsReporter

def end():
    signal.raise_signal(signal.SIGTERM)

class Finder:
    def find_spec(self, name, *_):
        if name == "absent":
            end()

class Handler(logging.Handler):
    def emit(self, record):
        if record.msg == "end":
            end()

class Number(float):
    def __radd__(self, other):
        end()
        return float(self)

reporter = CloudWatchMetricsReporter(namespace="Script", flush="interval")
reporter.add_metric("Orders", 1, "Count")
if sys.argv[1] == "import":
    sys.meta_path.insert(0, Finder())
    with contextlib.suppress(ImportError):
        import absent
elif sys.argv[1] == "log record":
    logging.basicConfig(level=logging.DEBUG, handlers=[Handler()])
    logging.warning("end")
else:
    get_meter("script").create_counter("numbers").add(Number(1))
time.sleep(60)
"""
SCRIPT_UNDER_GEVENT = """
from gevent import monkey
monkey.patch_all()
import gevent, os, signal
from otel_cloudwatch_flask import CloudWatchMetricsReporter

reporter = CloudWatchMetricsReporter(namespace="Script", flush="interval")
reporter.add_metric("Orders", 1, "Count")
gevent.get_hub().loop.timer(0.1).start(os.kill, os.getpid(), signal.SIGTERM)
gevent.sleep(60)
"""
FORK = """
import os, signal
from otel_cloudwatch_flask.runtime.process import handle_sigterm, hold_sigterm

handle_sigterm()
with hold_sigterm():
    if (pid := os.fork()) == 0:
        signal.raise_signal(signal.SIGTERM)
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that Apache's own user can enter, unlike ``tmp_path``."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def answered_before_sigterm(
    cloudwatch: FailingCloudWatch, case: ServerCase, flush: str, requests: int, folder: Path
) -> int:
    """Start a server, send requests, and send SIGTERM right after the last response. Return the number of responses."""
    if case.obstacle:
        pytest.skip(case.obstacle)
    case.write_program(folder)
    command = [word.replace("{folder}", str(folder)) for word in case.command]
    variables = {"COUNTING_APP": "loaded", "OTEL_EXPORTER_CLOUDWATCH_FLUSH": flush, "PYTHONPATH": str(ROOT)}
    with serving(cloudwatch, folder / "log", command, [], **variables) as server:
        # One request per connection: uWSGI's HTTP socket closes connections, and asgiref's WsgiToAsgi sends a 500 on
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
    """Return the number of samples of each metric that a request records once."""
    return {name: cloudwatch.published.count(name) for name in ("Requests", "Numbers", "http.server.duration")}


@pytest.mark.parametrize(("name", "flush"), RUNS)
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
    """Workers of ``uvicorn --workers``, and preloaded ``UvicornWorker`` processes, lose metrics since their last flush.

    The documentation describes the solution for uvicorn, a program that starts the workers; ``test_servers`` runs it.
    """
    case, requests = SERVERS_THAT_LOSE[name], round(REQUESTS * scale)
    answered = answered_before_sigterm(cloudwatch, case, "interval", requests, folder)
    counted = counts(cloudwatch)
    assert set(counted.values()) == {0}, counted
    figures(answered=answered, **counted)


@pytest.mark.parametrize("case", ["import", "log record", "measurement"])
def test_a_signal_while_the_main_thread_holds_a_lock(cloudwatch: FailingCloudWatch, case: str) -> None:
    """The reader's thread, which needs the same lock, does not wait for it until the timeout and lose the metrics."""
    command = [sys.executable, "-c", SCRIPT_THAT_HOLDS_A_LOCK, case]
    ended = subprocess.run(command, cwd=ROOT, env=environment(cloudwatch, {}), timeout=PATIENCE_SECONDS, check=False)
    assert ended.returncode == -signal.SIGTERM
    assert cloudwatch.published.sum("Orders") == 1


@pytest.mark.parametrize(
    ("case", "status", "published"),
    [("no handler", -signal.SIGTERM, 1), ("another thread", -signal.SIGTERM, 1), ("own handler", 7, 0)],
)
def test_programs(cloudwatch: FailingCloudWatch, case: str, status: int, published: int) -> None:
    """A program without a handler publishes its metrics; a program's own handler stays in place.

    A reader created in another thread cannot set a handler; the main thread's first flush sets it.
    """
    command = [sys.executable, "-c", SCRIPT, case]
    ended = subprocess.run(command, cwd=ROOT, env=environment(cloudwatch, {}), timeout=PATIENCE_SECONDS, check=False)
    assert ended.returncode == status
    assert cloudwatch.published.sum("Orders") == published


def test_an_idle_program_under_gevent(cloudwatch: FailingCloudWatch) -> None:
    """If all greenlets wait when the signal arrives, the program publishes its metrics and ends."""
    pytest.importorskip("gevent")
    command = [sys.executable, "-c", SCRIPT_UNDER_GEVENT]
    ended = subprocess.run(command, cwd=ROOT, env=environment(cloudwatch, {}), timeout=PATIENCE_SECONDS, check=False)
    assert ended.returncode == -signal.SIGTERM
    assert cloudwatch.published.sum("Orders") == 1


@pytest.mark.parametrize("case", ["exit", "shutdown", "shutdown, another thread", "SIGTERM"])
def test_a_signal_during_the_last_flush(cloudwatch: FailingCloudWatch, case: str) -> None:
    """SIGTERM does not interrupt the last flush, whatever started it: a request that fails meanwhile is retried."""
    pids: Queue[int] = Queue()

    def signal_once(_: object) -> Fault | None:
        with suppress(Empty):
            os.kill(pids.get_nowait(), signal.SIGTERM)
            return SERVER_ERROR
        return None

    cloudwatch.fault = signal_once
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, case], cwd=ROOT, env=environment(cloudwatch, {}), stdin=subprocess.PIPE
    ) as program:
        pids.put(program.pid)
        program.communicate(timeout=PATIENCE_SECONDS)
    assert program.returncode == -signal.SIGTERM
    assert cloudwatch.published.sum("Orders") == 1


def test_a_child_forked_during_the_last_flush() -> None:
    """A child that was forked while its parent was shutting down ends on SIGTERM."""
    subprocess.run([sys.executable, "-c", FORK], cwd=ROOT, timeout=PATIENCE_SECONDS, check=True)
