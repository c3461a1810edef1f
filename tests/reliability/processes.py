"""Real processes: Python programs controlled by a test, and WSGI servers with clients that track answered requests."""

import contextlib
import http.client
import itertools
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from otel_cloudwatch_flask.demo.isolation import isolated_environment
from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch
from tests.support.fakes import eventually

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 60.0
"""Timeout in seconds for steps that should be fast; only a failing test waits this long."""


def environment(cloudwatch: LocalCloudWatch, changes: Mapping[str, str | None]) -> dict[str, str]:
    """Return the environment of a process that publishes to this CloudWatch frequently; ``None`` removes a variable."""
    often = {"OTEL_EXPORTER_CLOUDWATCH_FLUSH_MIN_INTERVAL_SECONDS": "1"}
    variables: dict[str, str | None] = {**_neutral_environment(), **cloudwatch.environment(), **often, **changes}
    return {name: value for name, value in variables.items() if value is not None}


_environment_lock = threading.Lock()


def _neutral_environment() -> dict[str, str]:
    with _environment_lock, isolated_environment():
        return dict(os.environ)


def rss_bytes(pid: int) -> int:
    """Return the resident set size of a process."""
    (line,) = [each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if each.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


class Program:
    """A Python process that runs a program of :mod:`tests.reliability.programs` and executes the test's commands."""

    def __init__(
        self, cloudwatch: LocalCloudWatch, log: Path, program: str = "measure", **variables: str | None
    ) -> None:
        self.log = log
        with log.open("ab") as log_file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.reliability.programs", program],
                cwd=ROOT,
                env=environment(cloudwatch, {"OTEL_EXPORTER_CLOUDWATCH_NAMESPACE": "Shop", **variables}),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log_file,
                text=True,
            )
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> "Program":  # noqa: PYI034 - Python 3.10's typing has no Self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

    def tell(self, command: str, *arguments: object) -> None:
        """Send a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([command, *arguments]) + "\n")
        self.process.stdin.flush()

    def hear(self, within_seconds: float = PATIENCE_SECONDS) -> Any:
        """Return the process's next response."""
        try:
            answer = self._answers.get(timeout=within_seconds)
        except queue.Empty:
            answer = ""
        assert answer, f"the process does not respond:\n{self.said()[-5000:]}"
        return json.loads(answer)

    def do(self, command: str, *arguments: object, within_seconds: float = PATIENCE_SECONDS) -> Any:
        """Send a command and return the response."""
        self.tell(command, *arguments)
        return self.hear(within_seconds)

    def hear_all(self) -> list[Any]:
        """Return all responses of a process that has ended."""
        return [json.loads(each) for each in iter(self._answers.get, "")]

    def said(self) -> str:
        """Return the process's log."""
        return self.log.read_text()

    def end(self) -> int:
        """Close standard input, which ends the process, and return its exit status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(PATIENCE_SECONDS)

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_SECONDS)
        self._listener.join(PATIENCE_SECONDS)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._answers.put(line)
        self._answers.put("")


@dataclass(frozen=True)
class Server:
    """A WSGI server that runs :mod:`tests.reliability.app`, and its log file."""

    url: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def get(self, path: str) -> Any:
        """Send a GET request and return the decoded response."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=PATIENCE_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())

    def terminate(self) -> float:
        """Send SIGTERM, as a supervisor does, and return the number of seconds until the server ends."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE_SECONDS) == 0, self.log.read_text()[-5000:]
        return time.monotonic() - begun


_LEASH = "import os, signal, sys; sys.stdin.read(); os.killpg(int(sys.argv[1]), signal.SIGKILL)"


@contextlib.contextmanager
def leash(group: int) -> Iterator[None]:
    """Kill a process group when this process ends. This works even after SIGKILL, which closes this end of a pipe."""
    command = [sys.executable, "-S", "-c", _LEASH, str(group)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as watcher:
        try:
            yield
        finally:
            watcher.kill()


def is_listening(port: int) -> bool:
    """Return whether a server accepts connections on this port."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def serving(
    cloudwatch: LocalCloudWatch, log: Path, command: list[str], application: list[str], **variables: str | None
) -> Iterator[Server]:
    """Run a server on a listening socket; the socket's file descriptor replaces ``{fd}`` in the command.

    A server whose command has ``{port}`` opens that port itself.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener, log.open("wb") as log_file:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        port = listener.getsockname()[1]
        opens_port = "{port}" in command
        if opens_port:
            listener.close()
        process = subprocess.Popen(
            [*(word.format(fd=listener.fileno(), port=port) for word in command), *application],
            cwd=ROOT,
            env=environment(cloudwatch, variables),
            pass_fds=[] if opens_port else [listener.fileno()],
            stdout=log_file,
            stderr=log_file,
            start_new_session=True,
        )
    # Only the server has the socket now, so connections are refused when it ends, instead of hanging.
    with process, leash(process.pid):
        try:
            assert not opens_port or eventually(partial(is_listening, port), within_seconds=PATIENCE_SECONDS)
            yield Server(f"http://127.0.0.1:{port}", process, log)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


GUNICORN = [sys.executable, "-m", "gunicorn", "--bind", "fd://{fd}", "--graceful-timeout", "30", "--log-level", "info"]
UWSGI = Path(sys.executable).with_name("uwsgi")


@dataclass
class Load:
    """Clients that send sequential requests, each with a unique number, and record which were answered.

    Every ``streamed_every``-th request has a streamed response.

    ``cut_off`` has the requests that were sent but not answered: the server may or may not have counted them. After
    :meth:`expect_the_end`, a client stops at its first failed request.
    """

    url: str
    clients: int = 8
    rate: float | None = None
    requests_per_connection: int = 20
    streamed_every: int | None = None
    answered: list[int] = field(default_factory=list)
    cut_off: list[int] = field(default_factory=list)
    pids: set[int] = field(default_factory=set)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _is_ending: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> "Load":
        """Start the clients."""
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def wait_for(self, answers: int) -> None:
        """Wait until this number of requests has been answered."""
        while (before := len(self.answered)) < answers:
            assert eventually(lambda: len(self.answered) > before), (before, len(self.cut_off))

    def expect_the_end(self) -> None:
        """Let each client stop at its first failed request, because the server is about to end."""
        self._is_ending.set()

    def stop(self) -> None:
        """Stop the clients after their current requests, without cutting any off."""
        self._is_ending.set()
        self._numbers = iter(())
        self.join()

    def join(self) -> None:
        """Wait until all clients have stopped."""
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=PATIENCE_SECONDS)
        pause = self.clients / self.rate if self.rate else 0.0
        begun = time.monotonic()
        for asked in itertools.count(1):
            number = next(self._numbers, None)
            if number is None or (not self._is_answered(connection, number) and self._is_ending.is_set()):
                break
            if asked % self.requests_per_connection == 0:
                connection.close()  # The next request reconnects.
            if pause and self._is_ending.wait(max(begun + asked * pause - time.monotonic(), 0.0)):
                break
        connection.close()

    def _is_answered(self, connection: http.client.HTTPConnection, number: int) -> bool:
        try:
            if connection.sock is None:
                connection.connect()
        except OSError:
            time.sleep(0.01)  # No request was sent: give a restarting server some time.
            return False
        try:
            is_streamed = self.streamed_every is not None and number % self.streamed_every == 0
            connection.request("GET", f"/{'stream' if is_streamed else 'count'}/{number}")
            self.pids.add(json.loads(connection.getresponse().read())["pid"])
        except (OSError, http.client.HTTPException, ValueError):
            self.cut_off.append(number)
            connection.close()
            return False
        self.answered.append(number)
        return True
