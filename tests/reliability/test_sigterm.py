"""SIGTERM with its default action: servers and programs publish everything they have recorded before they end."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.cloudwatch import FailingCloudWatch
from tests.reliability.processes import PATIENCE_SECONDS, ROOT, Load, environment, serving

REQUESTS = 300

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="this system has no SIGTERM")

WAITRESS = """
import socket, sys, waitress
from tests.reliability.app import create_app

waitress.serve(create_app(), sockets=[socket.socket(fileno=int(sys.argv[1]))])
"""
WERKZEUG = """
import sys
from werkzeug.serving import make_server
from tests.reliability.app import create_app

make_server("127.0.0.1", 0, create_app(), threaded=True, fd=int(sys.argv[1])).serve_forever()
"""
FLASK_RUN = """
import os, sys
from flask.cli import main

os.environ.update(WERKZEUG_RUN_MAIN="true", WERKZEUG_SERVER_FD=sys.argv[1])
sys.argv = ["flask", "--app", "tests.reliability.app:create_app()", "run"]
main()
"""
UVICORN = """
import sys, uvicorn
from a2wsgi import WSGIMiddleware
from tests.reliability.app import create_app

uvicorn.run(WSGIMiddleware(create_app()), fd=int(sys.argv[1]))
"""
SERVERS = {"waitress": WAITRESS, "werkzeug": WERKZEUG, "flask": FLASK_RUN, "uvicorn": UVICORN}

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


@pytest.mark.parametrize("flush", ["interval", "background"])
@pytest.mark.parametrize("server_name", SERVERS)
def test_servers(
    cloudwatch: FailingCloudWatch, tmp_path: Path, server_name: str, flush: str, figures: Callable[..., None]
) -> None:
    """Every answered request is counted once, and the server ends by the signal."""
    pytest.importorskip(server_name)
    if server_name == "uvicorn":
        pytest.importorskip("a2wsgi")
    command = [sys.executable, "-c", SERVERS[server_name], "{fd}"]
    variables = {"OTEL_EXPORTER_CLOUDWATCH_FLUSH": flush}
    with serving(cloudwatch, tmp_path / "log", command, [], **variables) as server:
        load = Load(server.url, clients=4).start()
        load.wait_for(REQUESTS)
        load.stop()
        server.process.send_signal(signal.SIGTERM)
        status = server.process.wait(PATIENCE_SECONDS)
    assert status == -signal.SIGTERM, server.log.read_text()[-5000:]
    assert load.cut_off == []
    counted = {name: cloudwatch.published.count(name) for name in ("Requests", "Numbers", "http.server.duration")}
    assert set(counted.values()) == {len(load.answered)}, counted
    figures(answered=len(load.answered), **counted)


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
