"""What waits to be sent: batches in the order they came in, within a bound of bytes."""

import threading
from collections import deque
from collections.abc import Iterable

from otel_cloudwatch_flask.wire import Batch


class Backlog:
    """A bounded queue of batches; safe to use from several threads, one of which sends.

    The batch that is being sent is out of the queue but still pending, until its fate is known.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._waiting: deque[Batch] = deque()
        self._in_flight: Batch | None = None
        self._size_bytes = 0
        self._datums = 0

    @property
    def size_bytes(self) -> int:
        """The size of everything that is pending, as it will be sent, before compression."""
        return self._size_bytes

    @property
    def datums(self) -> int:
        """The number of datums that are pending."""
        return self._datums

    @property
    def is_full(self) -> bool:
        """Whether the bound is reached, so that nothing more should be collected."""
        return self._size_bytes >= self._max_bytes

    def add(self, batches: Iterable[Batch]) -> int:
        """Add batches behind the others; the oldest make room if the bound is passed. Return the datums lost so."""
        with self._lock:
            for batch in batches:
                self._waiting.append(batch)
                self._count(batch, +1)
            lost = 0
            # The newest batch always has room: a bound smaller than one request cannot be meant.
            while self._size_bytes > self._max_bytes and len(self._waiting) > 1:
                oldest = self._waiting.popleft()
                self._count(oldest, -1)
                lost += len(oldest.datums)
            return lost

    def check_out(self) -> Batch | None:
        """The oldest batch, to be sent now; what becomes of it is told to :meth:`settle`."""
        with self._lock:
            self._in_flight = self._waiting.popleft() if self._waiting else None
            return self._in_flight

    def settle(self, left: Iterable[Batch] = ()) -> None:
        """End the sending of the batch that was checked out; what is ``left`` of it goes to the front again."""
        with self._lock:
            if self._in_flight is not None:
                self._count(self._in_flight, -1)
                self._in_flight = None
            for part in reversed(tuple(left)):
                self._waiting.appendleft(part)
                self._count(part, +1)

    def clear(self) -> int:
        """Give up on everything that waits; return how many datums that were."""
        with self._lock:
            lost = 0
            while self._waiting:
                batch = self._waiting.popleft()
                self._count(batch, -1)
                lost += len(batch.datums)
            return lost

    def _count(self, batch: Batch, sign: int) -> None:
        self._size_bytes += sign * batch.size_bytes
        self._datums += sign * len(batch.datums)
