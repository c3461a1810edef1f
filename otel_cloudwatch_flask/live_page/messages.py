"""The last warnings of this package, for the page."""

import logging
from collections import deque
from typing import Any, Final

from otel_cloudwatch_flask.runtime.process import call_after_fork

_LOGGER: Final = logging.getLogger(__name__.partition(".")[0])
"""The whole package's."""
_MOST: Final = 30
_LONGEST: Final = 1000


class RecentMessages(logging.Handler):
    """Keep what the package warned of in this process, the last messages, cut where they are very long."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._messages: deque[dict[str, Any]] = deque(maxlen=_MOST)
        call_after_fork(self._begin)

    def attach(self) -> None:
        """Listen, from now on."""
        if self not in _LOGGER.handlers:
            _LOGGER.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message, and say it as Python would if nobody listened."""
        try:
            self._messages.append(_document(record))
            # Python prints warnings that have no handler at all; this one must not silence them.
            if logging.lastResort is not None and not self._is_heard_by_others(record.name):
                logging.lastResort.handle(record)
        except Exception:  # noqa: BLE001 - what logging asks of its handlers
            self.handleError(record)

    def documents(self) -> list[dict[str, Any]]:
        """The messages, the newest first: each with its Unix ``time`` in seconds, its ``level`` and its ``text``."""
        return list(self._messages)[::-1]

    def _begin(self) -> None:
        self._messages.clear()

    def _is_heard_by_others(self, name: str) -> bool:
        logger: logging.Logger | None = logging.getLogger(name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return True
            logger = logger.parent if logger.propagate else None
        return False


def _document(record: logging.LogRecord) -> dict[str, Any]:
    text = record.getMessage()
    if record.exc_info and record.exc_info[1] is not None:
        text = f"{text} ({record.exc_info[1]!r})"
    return {"time": record.created, "level": record.levelname.lower(), "text": text[:_LONGEST]}


MESSAGES: Final = RecentMessages()
"""Of this process: loggers are the process's, too."""
