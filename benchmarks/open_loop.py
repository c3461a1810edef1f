"""An open-loop load generator: requests are due at times fixed in advance, however slow the server is.

Latency counts from the time at which a request was due, so every delayed request shows a stall. A client that waits for
each response before it sends the next request would hide the stall (coordinated omission).
"""

import gc
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import urlsplit

CONNECTIONS: Final = 32
"""Number of keep-alive connections, which are used in turn: more than the server has threads."""

_REQUEST: Final = b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n"
_TIMEOUT_SECONDS: Final = 30.0


class Answer(NamedTuple):
    """The time at which a request was due (``time.monotonic()``), and the seconds until the response was complete."""

    due: float
    latency: float


def load_generator() -> Callable[..., list[Answer]]:
    """Return ``drive`` for a separate process, so that its garbage collection is not attributed to the server."""
    gc.disable()
    return drive


def drive(url: str, body: str, rate: float, seconds: float) -> list[Answer]:
    """Send ``rate`` requests per second, to which the server responds with ``body``, and return the answers.

    Raises ``ConnectionError`` if the server closes a connection or responds with an error, and ``TimeoutError`` if it
    stops responding.
    """
    idle = deque(_Connection(url, body.encode()) for _ in range(CONNECTIONS))
    busy: set[_Connection] = set()
    begin = time.monotonic()
    due = deque(begin + number / rate for number in range(int(rate * seconds)))
    answers: list[Answer] = []
    while due or busy:
        _send_due(due, idle, busy)
        for connection in _readable(busy, until=due[0] if due and idle else None):
            if connection.is_answered():
                answers.append(Answer(connection.due, time.monotonic() - connection.due))
                busy.remove(connection)
                idle.append(connection)
    for connection in idle:
        connection.close()
    return answers


class _Connection:
    """A keep-alive connection with at most one request in flight."""

    def __init__(self, url: str, body: bytes) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._body = body
        self.fileno = self._socket.fileno
        self.close = self._socket.close

    def send(self, due: float) -> None:
        """Send the request that was due at this time."""
        self.due = due
        self._received = b""
        self._socket.sendall(_REQUEST)

    def is_answered(self) -> bool:
        """Read the available bytes, and return whether the response is complete."""
        received = self._socket.recv(65536)
        self._received += received
        if not received or not self._received.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(f"unexpected response: {self._received[:200]!r}")
        return self._received.endswith(self._body)


def _send_due(due: deque[float], idle: deque[_Connection], busy: set[_Connection]) -> None:
    """Send the requests that are due, as long as there is a free connection."""
    now = time.monotonic()
    while due and idle and due[0] <= now:
        connection = idle.popleft()
        connection.send(due.popleft())
        busy.add(connection)


def _readable(busy: set[_Connection], until: float | None) -> list[_Connection]:
    """Wait for responses until the next request is due (or until the timeout if none is left), and return them."""
    pause = _TIMEOUT_SECONDS if until is None else max(until - time.monotonic(), 0)
    ready, _, _ = select.select(busy, (), (), pause)  # select has a timeout in microseconds, epoll in milliseconds
    if until is None and not ready:
        raise TimeoutError(f"no response within {_TIMEOUT_SECONDS:g} s")
    return ready
