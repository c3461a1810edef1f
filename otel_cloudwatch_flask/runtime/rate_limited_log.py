"""Rate-limited logging of messages that can repeat thousands of times a second."""

import logging
import math
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

from otel_cloudwatch_flask.runtime.safe_text import one_line

_MAX_KEYS: Final = 10_000
"""The maximum number of keys. Messages with further keys are dropped. Otherwise, a client that controls the keys could
exhaust the memory.
"""


@dataclass(slots=True)
class _LastLogged:
    at: float
    suppressed: int = 0


class RateLimitedLog:
    """A log that writes at most one message per key every ``interval_seconds``. By default, only the first."""

    def __init__(
        self,
        logger: logging.Logger,
        *,
        interval_seconds: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._last_logged: dict[Hashable, _LastLogged] = {}

    def warning(self, key: Hashable, message: str, *arguments: object, exc_info: bool = False) -> None:
        """Log a warning, unless a message with the same key was logged within the interval."""
        self._log(logging.WARNING, key, message, arguments, exc_info=exc_info)

    def error(self, key: Hashable, message: str, *arguments: object, exc_info: bool = False) -> None:
        """Log an error, unless a message with the same key was logged within the interval."""
        self._log(logging.ERROR, key, message, arguments, exc_info=exc_info)

    def _log(self, level: int, key: Hashable, message: str, arguments: tuple[object, ...], *, exc_info: bool) -> None:
        suppressed = self._start_interval(key)
        if suppressed is None:
            return
        if suppressed:
            message, arguments = message + " (%d similar messages suppressed)", (*arguments, suppressed)
        safe = [one_line(each) if isinstance(each, str) else each for each in arguments]
        self._logger.log(level, message, *safe, exc_info=exc_info)

    def _start_interval(self, key: Hashable) -> int | None:
        """Return the number of messages suppressed in the previous interval, or ``None`` to suppress this message.

        Starts a new interval for ``key`` unless the message is suppressed.
        """
        # Without a lock, because a forked child could inherit it locked. At worst, two threads log the same message.
        now = self._clock()
        last = self._last_logged.get(key)
        if last is None and len(self._last_logged) >= _MAX_KEYS:
            return None
        if last is not None and now - last.at < self._interval_seconds:
            last.suppressed += 1
            return None
        self._last_logged[key] = _LastLogged(now)
        return 0 if last is None else last.suppressed
