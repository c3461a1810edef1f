"""The queue of pending batches, which preserves their order and bounds their memory use."""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

from otel_cloudwatch_flask.delivery.batch import Batch, Envelope
from otel_cloudwatch_flask.delivery.compaction import compacted, joined
from otel_cloudwatch_flask.delivery.spool import Spool
from otel_cloudwatch_flask.delivery.stats import LossReason, StatsRecorder
from otel_cloudwatch_flask.runtime.rate_limited_log import RateLimitedLog

_logger = logging.getLogger(__name__)
_each_minute = RateLimitedLog(_logger, interval_seconds=60.0)

_LONGEST_WAIT_SECONDS: Final = 0.25
"""How long a thread that wants to send waits for batches that another thread merges, as it may have a deadline."""


@dataclass(slots=True)
class _Entry:
    """A batch in memory, on disk, or both."""

    datums: int
    batch: Batch | None
    file: Path | None = None

    @property
    def size_bytes(self) -> int:
        """The size that counts toward the backlog's limit. It is zero if the batch is only on disk."""
        return 0 if self.batch is None else self.batch.size_bytes

    @property
    def is_suspect(self) -> bool:
        """Whether this is part of a refused batch. A batch that is only on disk does not count as one."""
        return self.batch is not None and self.batch.is_suspect


class Backlog:
    """A bounded queue of batches. Thread-safe, but only one thread at a time may send.

    The batch that is being sent is no longer queued, but stays pending until its outcome is known. If there is a
    ``spool``, pending batches are also kept on disk, as long as the spool has room. When the batches in memory exceed
    ``max_bytes``, the backlog first frees the memory of batches that are on disk, then merges datums of the same
    series, and finally drops the oldest batches. ``on_added`` is called with each batch that is added or adopted.
    """

    def __init__(
        self,
        max_bytes: int,
        stats_recorder: StatsRecorder,
        spool: Spool | None = None,
        *,
        on_added: Callable[[Batch], object] = lambda _: None,
    ) -> None:
        self._on_added = on_added
        self._max_bytes = max_bytes
        self._stats_recorder = stats_recorder
        self._spool = spool
        self._adoption: Iterator[Path] | None = None
        self._lock = threading.Lock()
        self._merging = threading.RLock()
        """Held before ``_lock`` while batches are merged off the queue, and while the sending thread uses the queue.

        Otherwise, that thread would find no batch to send, or put an older batch behind newer ones. Reentrant, because
        a signal handler may interrupt merging and send.
        """
        self._waiting: deque[_Entry] = deque()
        self._in_flight: _Entry | None = None
        self._place = 0
        """The position in the queue from which the batch in flight was taken, and to which its unsent parts return."""
        self._reported_at_close: _Entry | None = None
        """The batch in flight that :meth:`close` has already logged. A second call does not log it again."""
        self._size_bytes = 0
        self._datums = 0

    @property
    def has_room(self) -> bool:
        """Whether the queued batches that are not on disk take up less than half of ``max_bytes``."""
        with self._lock:
            return 2 * sum(each.size_bytes for each in self._waiting if each.file is None) < self._max_bytes

    @property
    def size_bytes(self) -> int:
        """The total size of the request bodies that are pending in memory, before compression."""
        with self._lock:
            return self._size_bytes

    @property
    def datums(self) -> int:
        """The number of datums that are pending, in memory and on disk."""
        # Locked because some updates subtract before they add: a flush that read the count in between would return
        # too early.
        with self._lock:
            return self._datums

    def add(self, batches: Iterable[Batch]) -> None:
        """Append ``batches``. If the backlog then exceeds ``max_bytes``, make room as :class:`Backlog` describes.

        If only one batch is queued, its datums are put into the same requests as the new ones if possible, because each
        request is billed.
        """
        new = [*batches]
        for batch in new:
            self._on_added(batch)
        queued = self._only_queued(new[0].envelope) if new else None
        together = joined([queued, *new]) if queued is not None else new
        added = [self._spooled(batch) for batch in together]
        with self._lock:
            if queued is not None:
                if len(self._waiting) == 1 and self._waiting[0].batch is queued:
                    self._count(self._waiting.popleft(), sign=-1)
                else:  # another thread is sending it, or has put batches beside it
                    added = _entries(new)
            # Free the encoded text of batches that wait behind others: it takes up as much memory as the datums.
            if self._waiting:
                _forget_encodings(added)
            self._push(added, len(self._waiting))
            self._drop_spooled_from_memory()
        if self.size_bytes > self._max_bytes:
            self._make_room()

    def adopt_spooled(self, deadline: float) -> bool:
        """Prepend batches that terminated processes left in the spool, and return whether there may be more.

        Stops at ``deadline`` (in ``time.monotonic`` seconds), but always reads at least one file if there are any.
        The next call continues with the remaining files.
        """
        if self._spool is None:
            return False
        found = []
        adoption = self._adoption = self._adoption or self._spool.adopt()
        for file in adoption:
            if entry := _adopted(self._spool, file, self._on_added):
                found.append(entry)
            if time.monotonic() >= deadline:
                break
        else:
            self._adoption = None
        with self._merging, self._lock:
            self._push(found, 0)
        return self._adoption is not None

    def check_out(self, *, skips_suspects: bool = False) -> Batch | None:
        """Take the oldest batch off the queue for sending. The caller must then report the outcome to :meth:`settle`.

        If ``skips_suspects`` is true, parts of refused batches stay in the queue.

        Returns ``None`` if no such batch is queued, if the oldest one cannot be read from disk at the moment, or if
        another thread takes long to merge batches.
        """
        if not self._merging.acquire(timeout=_LONGEST_WAIT_SECONDS):
            return None
        try:
            with self._lock:
                self._in_flight = self._take_oldest(skips_suspects=skips_suspects)
        finally:
            self._merging.release()
        if self._in_flight is None:
            return None
        batch = None
        try:
            batch = self._in_flight.batch or self._read_in_flight(self._in_flight)
        except OSError as error:
            _each_minute.warning(
                "read",
                "Cannot read spooled metrics now; they remain in the spool. Raise this process's limit on open files "
                "or memory. (%s)",
                error,
            )
        finally:
            if batch is None:  # cannot be read now, or Ctrl-C interrupted the reading
                with self._merging, self._lock:
                    self._waiting.insert(self._place, self._in_flight)
                    self._in_flight = None
        return batch

    def settle(self, remaining: Iterable[Batch] = ()) -> None:
        """Record the outcome of the batch in flight, and put its unsent parts (``remaining``) back in its place.

        Parts without datums are dropped.
        """
        settled = self._in_flight
        if settled is None:
            return
        parts = [part for part in remaining if part.datums]
        # An unchanged batch keeps its file, so that retries during an outage do not rewrite it.
        is_unchanged = len(parts) == 1 and parts[0] is settled.batch
        again = [settled] if is_unchanged else [self._spooled(part) for part in parts]
        if not is_unchanged:
            # Delete the file while the batch is in flight. Later, close() would leave the file to the next process.
            self._forget(settled)
        with self._merging, self._lock:
            self._count(settled, sign=-1)
            self._in_flight = None
            self._push(again, self._place)
            if again:
                _forget_encodings(self._waiting)

    def close(self) -> None:
        """Count as lost the queued batches that are only in memory. The next process sends the batches on disk.

        A batch in flight stays pending. Call this again if that batch is requeued, or if a batch is added.
        """
        with self._lock:
            lost = _datums(each for each in self._waiting if each.file is None)
            spooled = _datums(self._waiting) - lost
            unanswered = None if self._in_flight is self._reported_at_close else self._in_flight
            self._reported_at_close = self._in_flight
            self._count(*self._waiting, sign=-1)
            self._waiting.clear()
        self._stats_recorder.lost(LossReason.SHUTDOWN, lost)
        if unanswered and unanswered.file:
            self._stats_recorder.count(datums_possibly_duplicated=unanswered.datums)
        _log_remains(lost=lost, spooled=spooled, unanswered=unanswered)
        self._adoption = None  # unlocks the directory that was being adopted
        if self._spool:
            self._spool.close()

    def release(self) -> None:
        """Release the spool. A forked child calls this, because the spool belongs to its parent."""
        if self._spool:
            self._spool.release()

    def _spooled(self, batch: Batch) -> _Entry:
        entry = _Entry(len(batch.datums), batch, self._spool.write(batch) if self._spool else None)
        entry.size_bytes  # noqa: B018 - encodes the batch, which must not happen under the lock
        return entry

    def _read_in_flight(self, waiting: _Entry) -> Batch:
        """Read the batch in flight from disk. If it is damaged, count its datums as lost and return an empty batch."""
        batch = self._spool.read(waiting.file) if self._spool and waiting.file else None
        read = batch or Batch(Envelope(""), ())  # the sender discards a batch without datums, without a call
        read.size_bytes  # noqa: B018 - encodes the batch, which must not happen under the lock
        with self._lock:
            self._count(waiting, sign=-1)
            waiting.batch = read
            waiting.datums = len(batch.datums) if batch else waiting.datums
            self._count(waiting)
        if batch is None:
            waiting.file = None  # the spool has set it aside
            self._stats_recorder.lost(LossReason.UNREADABLE, waiting.datums)
        return read

    def _forget(self, waiting: _Entry) -> None:
        if self._spool and waiting.file:
            self._spool.remove(waiting.file)

    def _drop_spooled_from_memory(self) -> None:
        for waiting in self._waiting:
            if self._size_bytes <= self._max_bytes:
                return
            if waiting.file is not None:
                self._size_bytes -= waiting.size_bytes
                waiting.batch = None

    def _only_queued(self, envelope: Envelope) -> Batch | None:
        """Return the only queued batch, or ``None`` if there is none, or if it cannot be joined with new ones."""
        with self._lock:
            only = self._waiting[0].batch if len(self._waiting) == 1 and self._spool is None else None
        if only is None or only.is_suspect or only.envelope != envelope or 2 * only.size_bytes > self._max_bytes:
            return None
        return only

    def _merge_waiting(self) -> None:
        """Merge the datums of adjacent batches that are only in memory, and have the same envelope."""
        with self._merging:
            with self._lock:
                merging, self._waiting = self._waiting, deque()
            merged: Iterable[_Entry] = merging
            try:
                # Merging encodes up to max_bytes, so it runs without the other lock. The batches stay pending.
                merged = [*_merged_neighbors(merging)]
            finally:
                with self._lock:
                    self._count(*merging, sign=-1)
                    self._push(merged, 0)
        self._stats_recorder.count(datums_merged=_datums(merging) - _datums(merged))

    def _make_room(self) -> None:
        """Merge datums and, if that is not enough, drop the oldest batches and count their datums as lost."""
        with contextlib.suppress(MemoryError):  # dropping batches needs no memory
            self._merge_waiting()
        dropped = []
        with self._lock:
            # The newest batch always stays, even if it alone exceeds the limit.
            while self._size_bytes > self._max_bytes and len(self._waiting) > 1:
                dropped.append(self._waiting.popleft())
                self._count(dropped[-1], sign=-1)
        for each in dropped:
            self._forget(each)
        if lost := _datums(dropped):
            self._stats_recorder.lost(LossReason.BACKLOG_FULL, lost)
            _each_minute.error(
                "full",
                "The backlog is full: the oldest %d data point(s) are lost. Fix the delivery problem logged earlier, "
                "raise max_backlog_bytes, or set spool_directory.",
                lost,
            )

    def _take_oldest(self, *, skips_suspects: bool) -> _Entry | None:
        for index, waiting in enumerate(self._waiting):
            if not (skips_suspects and waiting.is_suspect):
                del self._waiting[index]
                self._place = index
                return waiting
        return None

    def _push(self, added: Iterable[_Entry], place: int) -> None:
        for position, each in enumerate(added, place):
            self._count(each)
            self._waiting.insert(position, each)

    def _count(self, *waiting: _Entry, sign: int = 1) -> None:
        self._size_bytes += sign * sum(each.size_bytes for each in waiting)
        self._datums += sign * _datums(waiting)


def _datums(waiting: Iterable[_Entry]) -> int:
    return sum(each.datums for each in waiting)


def _entries(batches: Iterable[Batch]) -> list[_Entry]:
    """Return entries for batches that are only in memory."""
    return [_Entry(len(batch.datums), batch) for batch in batches]


def _merged_neighbors(waiting: Iterable[_Entry]) -> Iterator[_Entry]:
    """Merge adjacent batches. Batches that are not adjacent are not merged, because that would change the order."""

    def alike(entry: _Entry) -> tuple[object, ...]:
        return entry.file, entry.batch and (entry.batch.envelope, entry.batch.is_suspect)

    for _, group in groupby(waiting, key=alike):
        members = list(group)
        together = [each.batch for each in members if each.batch is not None]
        if len(together) > 1:  # all without a file, because every file belongs to one entry
            members = _entries(compacted(together))
            _forget_encodings(members)
        yield from members


def _adopted(spool: Spool, file: Path, on_added: Callable[[Batch], object]) -> _Entry | None:
    try:
        batch = spool.read(file)
    except OSError:
        return _Entry(1, None, file)  # a placeholder count, corrected once the file can be read
    if batch is None:
        return None
    on_added(batch)
    return _Entry(len(batch.datums), None, file)


def _forget_encodings(waiting: Iterable[_Entry]) -> None:
    for each in waiting:
        if each.batch is not None:
            each.batch.forget_encoding()


def _log_remains(*, lost: int, spooled: int, unanswered: _Entry | None) -> None:
    """Log how many datums are lost, remain in the spool, or still await a response at shutdown."""
    if lost:
        _logger.error(
            "%d data point(s) could not be sent before the exporter was shut down, and are lost. Fix any delivery "
            "problem logged earlier, or set spool_directory to keep unsent data points for the next process.",
            lost,
        )
    if spooled:
        _logger.warning(
            "%d data point(s) could not be sent, and remain in the spool. To send them, fix any delivery problem "
            "logged earlier, and run a process with the same spool_directory within two weeks.",
            spooled,
        )
    if unanswered is not None:
        otherwise = (
            "If it does not accept them, they are lost."
            if unanswered.file is None
            else "If it does not respond, the next process will send them again."
        )
        _logger.warning(
            "%d data point(s) were being sent at shutdown, but CloudWatch has not responded. %s If this happens often, "
            "investigate the network latency to CloudWatch.",
            unanswered.datums,
            otherwise,
        )
