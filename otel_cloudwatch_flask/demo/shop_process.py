"""The demo's other process, seen from the demo."""

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
_ABORT_SECONDS: Final = 3.0
_LINES_SHOWN: Final = 15


class ShopError(CloudWatchMetricsError, RuntimeError):
    """The shop did not open, or did not close properly; ends with what it said last."""


@dataclass(frozen=True, slots=True)
class Account:
    """What a shop leaves: its books, and the delivery's figures (``DeliveryStats``)."""

    books: Mapping[str, Any]
    delivery: Mapping[str, Any]


class ShopProcess:
    """A shop in a process of its own, open as long as the ``with`` block lasts.

    It is told to end by the end of its standard input, so that it ends too if this process is killed. The terminal's
    Ctrl-C is not for it: whoever gets it closes the shop.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {**os.environ, **environment}
        self.url = ""

    def __enter__(self) -> "Self":
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "otel_cloudwatch_flask.demo.server"],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            start_new_session=True,
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
        with self._said, self._process:
            # Not killed at once: CloudWatch would complain of half a request.
            with contextlib.suppress(subprocess.TimeoutExpired, ValueError):
                self._process.communicate(timeout=_ABORT_SECONDS)
            self._process.kill()

    def close(self) -> Account:
        """Let it flush and end, and take its account."""
        try:
            said, _ = self._process.communicate(timeout=_STOP_SECONDS)
            return Account(**json.loads(said))
        except (subprocess.TimeoutExpired, ValueError, TypeError) as error:
            raise ShopError(f"The shop did not close properly. {self._last_words()}") from error

    def _first_message(self) -> Any:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        # A killed process says nothing more, and that can be read.
        impatience = threading.Timer(_START_SECONDS, self._process.kill)
        impatience.daemon = True  # or an interrupt right after its start would have to wait for it
        try:
            impatience.start()
            line = self._process.stdout.readline()
        finally:
            impatience.cancel()
        if not line:
            raise ShopError(f"The shop did not open. {self._last_words()}")
        return json.loads(line)

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = self._said.read().splitlines()[-_LINES_SHOWN:]
        return "\n".join(["It said last:", *lines]) if lines else "It said nothing."
