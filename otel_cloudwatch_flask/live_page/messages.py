"""Collect this package's recent warnings and errors, which the page shows."""

import logging
from collections import deque
from typing import Any, Final

from otel_cloudwatch_flask.runtime.process import call_after_fork

_LOGGER: Final = logging.getLogger(__name__.partition(".")[0])
"""The parent of all loggers in this package."""
_MAX_MESSAGES: Final = 30
_MAX_TEXT_LENGTH: Final = 1000


class RecentMessages(logging.Handler):
    """A logging handler that keeps the most recent warnings and errors that the package logs in this process."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._messages: deque[dict[str, Any]] = deque(maxlen=_MAX_MESSAGES)
        call_after_fork(self._clear)

    def attach(self) -> None:
        """Add this handler to the package's logger, unless it has already been added."""
        _LOGGER.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message, and print it to standard error if no other handler would handle it."""
        try:
            self._messages.append(_document(record))
            # Python prints warnings if there is no handler at all, so adding this handler must not silence them.
            if logging.lastResort is not None and not self._has_other_handler(record.name):
                logging.lastResort.handle(record)
        except Exception:  # noqa: BLE001 - handlers must not raise: see logging.Handler.handleError
            self.handleError(record)

    def documents(self) -> list[dict[str, Any]]:
        """Return the messages, newest first, each with ``time`` (Unix seconds) and ``text``."""
        return list(self._messages)[::-1]

    def _clear(self) -> None:
        self._messages.clear()

    def _has_other_handler(self, name: str) -> bool:
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
    return {"time": record.created, "text": text[:_MAX_TEXT_LENGTH]}


MESSAGES: Final = RecentMessages()
"""The only instance, because the logger that it is attached to is global as well."""
