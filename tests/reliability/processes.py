"""Real processes: Python programs that talk with the test, and WSGI servers with clients that know who was answered."""

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
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from otel_cloudwatch_flask.demo.isolation import isolated_environment
from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch
from tests.support.fakes import eventually

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 60.0
"""How long the test waits for what a process must do soon; only a failing test waits so long."""


def environment(cloudwatch: LocalCloudWatch, changes: Mapping[str, str | None]) -> dict[str, str]:
    """The environment of a process that publishes to this CloudWatch; ``None`` takes a variable out of it."""
    variables: dict[str, str | None] = {**_neutral_environment(), **cloudwatch.environment(), **changes}
    return {name: value for name, value in variables.items() if value is not None}


_environment_lock = threading.Lock()


def _neutral_environment() -> dict[str, str]:
    with _environment_lock, isolated_environment():
        return dict(os.environ)


def rss_bytes(pid: int) -> int:
    """The memory that a process has in use."""
    (line,) = [each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if each.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


class Program:
    """A Python process that runs a program of :mod:`tests.reliability.programs` and does what the test tells it."""

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
        """Tell it to do something."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([command, *arguments]) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        """What it says next."""
        try:
            answer = self._answers.get(timeout=PATIENCE_SECONDS)
        except queue.Empty:
            answer = ""
        assert answer, f"the process says nothing any more:\n{self.said()[-5000:]}"
        return json.loads(answer)

    def do(self, command: str, *arguments: object) -> Any:
        """Tell it to do something, and wait for what it says then."""
        self.tell(command, *arguments)
        return self.hear()

    def said(self) -> str:
        """What it has logged."""
        return self.log.read_text()

    def end(self) -> int:
        """Let it come to its end by itself; return its status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(PATIENCE_SECONDS)

    def kill(self) -> None:
        """Kill it as nothing can be killed more."""
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
    """A running WSGI server of :mod:`tests.reliability.app`, and the file to which it says everything."""

    url: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def get(self, path: str) -> Any:
        """The answer to one request."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=PATIENCE_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())

    def terminate(self) -> float:
        """Ask it to end, as a supervisor does; return how many seconds that took."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE_SECONDS) == 0, self.log.read_text()[-5000:]
        return time.monotonic() - begun


_LEASH = "import os, signal, sys; sys.stdin.read(); os.killpg(int(sys.argv[1]), signal.SIGKILL)"


@contextlib.contextmanager
def leash(group: int) -> Iterator[None]:
    """Kill a group of processes if this one is gone, even by SIGKILL: a pipe ends with whoever holds it."""
    command = [sys.executable, "-S", "-c", _LEASH, str(group)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as watcher:
        try:
            yield
        finally:
            watcher.kill()


@contextlib.contextmanager
def serving(
    cloudwatch: LocalCloudWatch, log: Path, command: list[str], application: list[str], **variables: str | None
) -> Iterator[Server]:
    """Run a server on a socket that is there before it, and that it is given as ``{fd}`` in its command."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener, log.open("wb") as log_file:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        process = subprocess.Popen(
            [*(word.format(fd=listener.fileno()) for word in command), *application],
            cwd=ROOT,
            env=environment(cloudwatch, variables),
            pass_fds=[listener.fileno()],
            stdout=log_file,
            stderr=log_file,
            start_new_session=True,
        )
    # The socket is the server's alone now: if that ends, connections are refused instead of waiting for ever.
    with process, leash(process.pid):
        try:
            yield Server(url, process, log)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


GUNICORN = [sys.executable, "-m", "gunicorn", "--bind", "fd://{fd}", "--graceful-timeout", "30", "--log-level", "info"]
UWSGI = Path(sys.executable).with_name("uwsgi")


@dataclass
class Load:
    """Clients that ask one request after the other, each with a number of its own, and know which were answered.

    A request that was sent and not answered is ``cut_off``: the server may or may not have counted it. There are at
    most as many at once as there are clients, and after :meth:`expect_the_end` a client goes when that happens to it.
    """

    url: str
    clients: int = 8
    rate: float | None = None
    requests_per_connection: int = 20
    answered: list[int] = field(default_factory=list)
    cut_off: list[int] = field(default_factory=list)
    pids: set[int] = field(default_factory=set)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _is_ending: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> "Load":
        """Let them begin."""
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def wait_for(self, answers: int) -> None:
        """Wait until so many requests were answered."""
        while (before := len(self.answered)) < answers:
            assert eventually(lambda: len(self.answered) > before), (before, len(self.cut_off))

    def expect_the_end(self) -> None:
        """The server is about to end: who is cut off, or finds nobody, goes."""
        self._is_ending.set()

    def stop(self) -> None:
        """Let each finish the request it is at; nobody is cut off by that."""
        self._is_ending.set()
        self._numbers = iter(())
        self.join()

    def join(self) -> None:
        """Wait until all have gone."""
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
                connection.close()  # and the next request opens it again
            if pause and self._is_ending.wait(max(begun + asked * pause - time.monotonic(), 0.0)):
                break
        connection.close()

    def _is_answered(self, connection: http.client.HTTPConnection, number: int) -> bool:
        try:
            if connection.sock is None:
                connection.connect()
        except OSError:
            time.sleep(0.01)  # nobody was asked; a server that restarts is given a moment
            return False
        try:
            connection.request("GET", f"/count/{number}")
            self.pids.add(json.loads(connection.getresponse().read())["pid"])
        except (OSError, http.client.HTTPException, ValueError):
            self.cut_off.append(number)
            connection.close()
            return False
        self.answered.append(number)
        return True
