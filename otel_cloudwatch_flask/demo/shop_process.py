"""Start and stop the shop's process, which runs the ``server`` module."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from otel_cloudwatch_flask.errors import CloudWatchMetricsError

if TYPE_CHECKING:
    from types import TracebackType

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

    The shop stops when its standard input is closed, which also happens if this process is killed. It runs in a session
    of its own, so that pressing Ctrl-C interrupts only the demo, which then stops the shop.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {**os.environ, **environment}
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
        try:
            self.url = self._first_message()["url"]
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: "TracebackType | None"
    ) -> None:
        with self._stderr, self._process:
            # Let the shop finish its current call; otherwise, the emulator could report a truncated request.
            with contextlib.suppress(subprocess.TimeoutExpired, ValueError):
                self._process.communicate(timeout=_KILL_SECONDS)
            self._process.kill()

    def close(self) -> ShopSummary:
        """Stop the shop after a final flush, and return its summary. Raises :class:`ShopProcessError` on failure."""
        try:
            stdout, _ = self._process.communicate(timeout=_STOP_SECONDS)
            return ShopSummary(**json.loads(stdout))
        except (subprocess.TimeoutExpired, ValueError, TypeError) as error:
            raise ShopProcessError(f"The shop did not stop properly. {self._last_output()}") from error

    def _first_message(self) -> Any:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        # readline() has no timeout, but killing the process closes the pipe, which ends the call.
        timeout = threading.Timer(_START_SECONDS, self._process.kill)
        timeout.daemon = True  # so that an interrupt right after start() need not wait for the timer
        try:
            timeout.start()
            line = self._process.stdout.readline()
        finally:
            timeout.cancel()
        if not line:
            raise ShopProcessError(f"The shop did not start. {self._last_output()}")
        return json.loads(line)

    def _last_output(self) -> str:
        self._stderr.seek(0)
        lines = self._stderr.read().splitlines()[-_MAX_OUTPUT_LINES:]
        return "\n".join(["Last output:", *lines]) if lines else "It printed nothing."
