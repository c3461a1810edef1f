"""Start and stop the shop's process, which runs the ``server`` module."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TextIO

from otel_cloudwatch_flask.errors import CloudWatchMetricsError

if TYPE_CHECKING:
    from typing_extensions import Self

_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 30.0
_KILL_SECONDS: Final = 3.0
_MAX_OUTPUT_LINES: Final = 15


class ShopProcessError(CloudWatchMetricsError, RuntimeError):
    """Raised if the shop does not start or stop properly. The message ends with the shop's last output."""


@dataclass(frozen=True, slots=True)
class ShopSummary:
    """The orders, views and so on that the shop counted (``books``), and its ``DeliveryStats`` (``delivery``)."""

    books: Mapping[str, Any]
    delivery: Mapping[str, Any]


class ShopProcess:
    """A shop that runs in a separate process inside the ``with`` block.

    The shop stops when its standard input is closed, which also happens if this process is killed. It runs in a
    separate session, so that pressing Ctrl-C interrupts only the demo, which then stops the shop. A thread passes the
    shop's EMF lines to ``stream``.
    """

    def __init__(self, environment: Mapping[str, str], stream: TextIO) -> None:
        self._environment = {**os.environ, **environment}
        self._stream = stream
        self._messages: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.url = ""

    def __enter__(self) -> "Self":
        # A file, because nothing reads this output while the shop runs, and a full pipe would block the shop.
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "otel_cloudwatch_flask.demo.server"],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            start_new_session=True,  # the terminal's Ctrl-C must not reach the shop
        )
        self._reader = threading.Thread(target=self._read, name="ShopProcess", daemon=True)
        self._reader.start()
        try:
            self.url = self._next_message(_START_SECONDS, "start")["url"]
        except BaseException:
            self.__exit__()
            raise
        return self

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        for line in self._process.stdout:
            if line.startswith('{"_aws"'):
                self._stream.write(line)
            else:
                self._messages.put(line)
        self._messages.put("")

    def __exit__(self, *_error: object) -> None:
        with self._stderr, self._process:
            self._close_stdin()
            # Let the shop finish its current call; otherwise, the emulator could report a truncated request.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_KILL_SECONDS)
            self._process.kill()
            self._reader.join()

    def close(self) -> ShopSummary:
        """Stop the shop after a final flush, and return its summary. Raises :class:`ShopProcessError` on failure."""
        self._close_stdin()
        return ShopSummary(**self._next_message(_STOP_SECONDS, "stop properly"))

    def _close_stdin(self) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._process.stdin.close()

    def _next_message(self, timeout_seconds: float, verb: str) -> Any:
        try:
            return json.loads(self._messages.get(timeout=timeout_seconds))
        except (queue.Empty, ValueError) as error:
            raise ShopProcessError(f"The shop did not {verb}. {self._last_output()}") from error

    def _last_output(self) -> str:
        self._stderr.seek(0)
        lines = self._stderr.read().splitlines()[-_MAX_OUTPUT_LINES:]
        return "\n".join(["Last output:", *lines]) if lines else "It printed nothing."
