"""The shop's process, controlled by the demo; its program is ``server``."""

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
    """The shop did not start, or did not stop properly. The message ends with its last output."""


@dataclass(frozen=True, slots=True)
class ShopSummary:
    """What the shop counted (``books``), and its ``DeliveryStats`` (``delivery``)."""

    books: Mapping[str, Any]
    delivery: Mapping[str, Any]


class ShopProcess:
    """A shop in its own process, running for the duration of the ``with`` block.

    It stops when its standard input is closed, so also if this process is killed. It runs in its own session and does
    not receive the terminal's Ctrl-C: the demo handles it and stops the shop.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {**os.environ, **environment}
        self.url = ""

    def __enter__(self) -> "Self":
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "otel_cloudwatch_flask.demo.server"],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            start_new_session=True,  # keeps the terminal's Ctrl-C from it
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
            # Give it time to finish its current request: the emulator would report a truncated one.
            with contextlib.suppress(subprocess.TimeoutExpired, ValueError):
                self._process.communicate(timeout=_KILL_SECONDS)
            self._process.kill()

    def close(self) -> ShopSummary:
        """Stop the shop after its last flush, and return its summary. Raises :class:`ShopProcessError` on failure."""
        try:
            stdout, _ = self._process.communicate(timeout=_STOP_SECONDS)
            return ShopSummary(**json.loads(stdout))
        except (subprocess.TimeoutExpired, ValueError, TypeError) as error:
            raise ShopProcessError(f"The shop did not stop properly. {self._last_output()}") from error

    def _first_message(self) -> Any:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        # readline() has no timeout. Killing the process closes the pipe, which ends the call.
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
