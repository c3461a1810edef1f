"""What waits to be sent: batches in the order they came in, within a bound of bytes."""

import logging
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from otel_cloudwatch_flask.delivery.batch import Batch
from otel_cloudwatch_flask.delivery.compaction import compacted
from otel_cloudwatch_flask.delivery.spool import Spool
from otel_cloudwatch_flask.delivery.stats import Ledger, LossReason
from otel_cloudwatch_flask.runtime.rate_limited_log import RateLimitedLog

_logger = logging.getLogger(__name__)
_each_minute = RateLimitedLog(_logger, interval_seconds=60.0)


@dataclass(slots=True)
class _Waiting:
    """A batch in memory, on disk, or both."""

    datums: int
    batch: Batch | None
    file: Path | None = None

    @property
    def has_room(self) -> bool:
        """Whether batches that are in memory only take less than half of the bytes allowed."""
        with self._lock:
            return 2 * sum(each.size_bytes for each in self._waiting if each.file is None) < self._max_bytes

    @property
    def size_bytes(self) -> int:
        return 0 if self.batch is None else self.batch.size_bytes


class Backlog:
    """A bounded queue of batches; safe to use from several threads, one of which sends.

    The batch that is being sent is out of the queue but still pending, until its fate is known. With a ``spool``, every
    batch is on disk from the moment it is added until its fate is known. Where ``max_bytes`` of memory are passed, the
    oldest batches make room: by being on disk only, else by being put together, series by series, and last of all by
    being dropped.
    """

    def __init__(self, max_bytes: int, ledger: Ledger, spool: Spool | None = None) -> None:
        self._max_bytes = max_bytes
        self._ledger = ledger
        self._spool = spool
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()
        self._in_flight: _Waiting | None = None
        self._told_of: _Waiting | None = None
        """What was in flight at the end, which is said once."""
        self._size_bytes = 0
        self._datums = 0

    @property
    def has_spool(self) -> bool:
        """Whether batches are written to disk."""
        return self._spool is not None

    def use_spool(self, spool: Spool) -> None:
        """Write the batches added from now on to disk."""
        self._spool = spool

    @property
    def has_room(self) -> bool:
        """Whether batches that are in memory only take less than half of the bytes allowed."""
        with self._lock:
            return 2 * sum(each.size_bytes for each in self._waiting if each.file is None) < self._max_bytes

    @property
    def size_bytes(self) -> int:
        """The size of everything that is pending in memory, as it will be sent, before compression."""
        with self._lock:
            return self._size_bytes

    @property
    def datums(self) -> int:
        """The number of datums that are pending, in memory and on disk."""
        # In the middle of a change it is less: whoever flushes then would take it for the end of its work.
        with self._lock:
            return self._datums

    def add(self, batches: Iterable[Batch]) -> None:
        """Add batches behind the others."""
        added = [self._spooled(batch) for batch in batches]
        with self._lock:
            if self._waiting:
                _forget_encodings(added)
            self._push(added)
            if self._size_bytes > self._max_bytes:
                self._leave_to_disk()
            if self._size_bytes > self._max_bytes:
                self._compact()
            lost = self._drop_oldest()
        if lost:
            self._ledger.lost(LossReason.BACKLOG_FULL, lost)
            _each_minute.log(
                logging.ERROR,
                "full",
                "The backlog is full: %d datum(s), the oldest, are lost. Mend what keeps metrics from CloudWatch (an "
                "earlier message says what), or make room with max_backlog_bytes or a spool_directory.",
                lost,
            )

    def take_over(self) -> None:
        """Put what processes that are no more have left on disk in front of the queue."""
        if self._spool is None:
            return
        found = []
        for file in self._spool.take_over():
            batch = self._spool.read(file)
            if batch is not None:
                found.append(_Waiting(len(batch.datums), None, file))
        with self._lock:
            self._push(found, in_front=True)

    def check_out(self) -> Batch | None:
        """The oldest batch, to be sent now; what becomes of it is told to :meth:`settle`."""
        with self._lock:
            self._in_flight = self._waiting.popleft() if self._waiting else None
        if self._in_flight is None:
            return None
        return self._in_flight.batch or self._read_in_flight(self._in_flight)

    def settle(self, left: Iterable[Batch] = ()) -> None:
        """End the sending of the batch that was checked out; what is ``left`` of it goes to the front again."""
        settled = self._in_flight
        if settled is None:
            return
        parts = tuple(left)
        # The same batch again is on disk already.
        goes_on = len(parts) == 1 and parts[0] is settled.batch
        again = [settled] if goes_on else [self._spooled(part) for part in parts]
        with self._lock:
            self._count(settled, -1)
            self._in_flight = None
            self._push(again, in_front=True)
            if again:
                _forget_encodings(self._waiting)
        if not goes_on:
            self._forget(settled)

    def close(self) -> None:
        """Give up on everything that waits in memory only; what is on disk is left to the next process.

        What is being sent still has its fate before it; if it comes back, or something else comes, close it again.
        """
        with self._lock:
            lost = sum(each.datums for each in self._waiting if each.file is None)
            left = sum(each.datums for each in self._waiting if each.file is not None)
            unanswered = None if self._in_flight is self._told_of else self._in_flight
            self._told_of = self._in_flight
            for each in self._waiting:
                self._count(each, -1)
            self._waiting.clear()
        self._ledger.lost(LossReason.SHUTDOWN, lost)
        _tell_of_the_end(lost=lost, left=left, unanswered=unanswered)
        if self._spool:
            self._spool.close()

    def abandon(self) -> None:
        """Have nothing to do with it any more: in a forked child, it is the parent's."""
        if self._spool:
            self._spool.abandon()

    def _spooled(self, batch: Batch) -> _Waiting:
        return _Waiting(len(batch.datums), batch, self._spool.write(batch) if self._spool else None)

    def _read_in_flight(self, waiting: _Waiting) -> Batch:
        """The batch that is on disk only; one without datums if it cannot be read any more."""
        batch = self._spool.read(waiting.file) if self._spool and waiting.file else None
        with self._lock:
            self._count(waiting, -1)
            waiting.batch = batch or Batch.empty()
            self._count(waiting, +1)
        if batch is None:
            waiting.file = None  # it was set aside
            self._ledger.lost(LossReason.UNREADABLE, waiting.datums)
        return waiting.batch

    def _forget(self, waiting: _Waiting) -> None:
        if self._spool and waiting.file:
            self._spool.remove(waiting.file)

    def _leave_to_disk(self) -> None:
        for waiting in self._waiting:
            if self._size_bytes <= self._max_bytes:
                return
            if waiting.file is not None:
                self._count(waiting, -1)
                waiting.batch = None
                self._count(waiting, +1)

    def _compact(self) -> None:
        """Put together what is in memory only; neighbours, so that the order stays."""
        waiting, self._waiting = self._waiting, deque()
        for key, group in groupby(waiting, key=lambda each: (each.file, each.batch.envelope if each.batch else None)):
            members = list(group)
            together = [each.batch for each in members if each.batch is not None]
            if key[0] is None and len(together) > 1:
                for each in members:
                    self._count(each, -1)
                merged = [_Waiting(len(batch.datums), batch) for batch in compacted(together)]
                _forget_encodings(merged)
                self._push(merged)
            else:
                self._waiting.extend(members)

    def _drop_oldest(self) -> int:
        lost = 0
        # The newest batch always has room: a bound smaller than one request cannot be meant.
        while self._size_bytes > self._max_bytes and len(self._waiting) > 1:
            oldest = self._waiting.popleft()
            self._count(oldest, -1)
            self._forget(oldest)
            lost += oldest.datums
        return lost

    def _push(self, added: Iterable[_Waiting], *, in_front: bool = False) -> None:
        items = list(added)
        for waiting in items:
            self._count(waiting, +1)
        if in_front:
            self._waiting.extendleft(reversed(items))
        else:
            self._waiting.extend(items)

    def _count(self, waiting: _Waiting, sign: int) -> None:
        self._size_bytes += sign * waiting.size_bytes
        self._datums += sign * waiting.datums


def _forget_encodings(waiting: Iterable[_Waiting]) -> None:
    for each in waiting:
        if each.batch is not None:
            each.batch.forget_encoding()


def _tell_of_the_end(*, lost: int, left: int, unanswered: _Waiting | None) -> None:
    if lost:
        _logger.error(
            "%d datum(s) could not be sent before the exporter was shut down, and are lost. An earlier message "
            "says what kept them; a spool_directory keeps such datums for the next process.",
            lost,
        )
    if left:
        _logger.warning(
            "%d datum(s) could not be sent, and are left in the spool for the next process. Start one with the "
            "same spool_directory, and mend what kept them (an earlier message says what).",
            left,
        )
    if unanswered is not None:
        what_else = "they are lost" if unanswered.file is None else "the next process sends them"
        _logger.warning(
            "%d datum(s) were sent, and CloudWatch has not answered yet; unless it does, %s. If this repeats, see "
            "what slows requests from here to CloudWatch.",
            unanswered.datums,
            what_else,
        )
