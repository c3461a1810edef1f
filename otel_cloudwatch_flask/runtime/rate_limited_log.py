"""Logging of what may repeat a thousand times a second: once an interval, and then how often it was silent."""

import logging
import math
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

from otel_cloudwatch_flask.runtime.safe_text import one_line

_MAX_KEYS: Final = 10_000
"""Beyond so many different messages nothing new is said: keys may come from what a client sends."""


@dataclass(slots=True)
class _Spoken:
    at: float
    swallowed: int = 0


class QuietLog:
    """Say what has the same key at most once in ``interval_seconds``; by default, once in the process's life."""

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
        self._spoken: dict[Hashable, _Spoken] = {}

    def warning(self, key: Hashable, message: str, *arguments: object) -> None:
        """Log a warning, unless the same key was logged within the interval."""
        self.log(logging.WARNING, key, message, *arguments)

    def log(self, level: int, key: Hashable, message: str, *arguments: object, exc_info: bool = False) -> None:
        """Log at a level, unless the same key was logged within the interval."""
        swallowed = self._turn(key)
        if swallowed is None:
            return
        if swallowed:
            message, arguments = message + " (%d more like this since it was last said)", (*arguments, swallowed)
        fit = [one_line(each) if isinstance(each, str) else each for each in arguments]
        self._logger.log(level, message, *fit, exc_info=exc_info)

    def _turn(self, key: Hashable) -> int | None:
        """How many were swallowed if it is this key's turn to speak, else ``None``."""
        # No lock, which a fork might find held: if two threads speak at once, one message too many is no harm.
        now = self._clock()
        spoken = self._spoken.get(key)
        if spoken is None and len(self._spoken) >= _MAX_KEYS:
            return None
        if spoken is not None and now - spoken.at < self._interval_seconds:
            spoken.swallowed += 1
            return None
        self._spoken[key] = _Spoken(now)
        return 0 if spoken is None else spoken.swallowed
