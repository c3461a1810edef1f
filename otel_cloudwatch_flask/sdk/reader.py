"""The metric reader, which collects and delivers metrics periodically and on request, in a background thread."""

import contextlib
import itertools
import logging
import math
import queue
import random
import threading
import time
from collections.abc import Callable, Container, Iterable
from dataclasses import replace
from typing import Any, Final

from opentelemetry.metrics import Counter, Histogram, ObservableCounter, ObservableUpDownCounter, UpDownCounter
from opentelemetry.sdk.metrics.export import MetricsData

from otel_cloudwatch_flask.config import DEFAULT_EXPORT_INTERVAL_SECONDS, DEFAULT_FLUSH_MIN_INTERVAL_SECONDS, Settings
from otel_cloudwatch_flask.delivery.stats import LossReason
from otel_cloudwatch_flask.runtime.live_objects import LiveObjects
from otel_cloudwatch_flask.runtime.process import call_after_fork, call_at_exit, handle_sigterm, hold_sigterm
from otel_cloudwatch_flask.runtime.rate_limited_log import RateLimitedLog
from otel_cloudwatch_flask.sdk.exporter import AGGREGATION, TEMPORALITY, CloudWatchMetricExporter, seconds_until
from otel_cloudwatch_flask.sdk.internals import (
    EVERY_ATTRIBUTE,
    SelectiveReader,
    consumer_of,
    is_registered,
    service_name_of,
)

_logger = logging.getLogger(__name__)
# Not the generator of the random module: a program that has seeded it expects the same numbers in each run.
_random: Final = random.SystemRandom()
_each_minute = RateLimitedLog(_logger, interval_seconds=60.0)

EXIT_TIMEOUT_SECONDS: Final = 10.0
"""How long the process waits for CloudWatch at exit. By default, ECS and Kubernetes kill a process after 30 seconds."""

_JITTER: Final = 0.05
_MIN_FLUSH_SECONDS: Final = 1.0
_SUMMED: Final = (Counter, Histogram, ObservableCounter, ObservableUpDownCounter, UpDownCounter)

_readers: "LiveObjects[CloudWatchMetricReader]" = LiveObjects()


class _Waiter:
    """A ``flush`` call that waits for the reader's thread.

    The calling thread and the reader's thread synchronize with a plain lock, because a signal handler may interrupt the
    call anywhere. With an ``Event`` or a ``Condition``, the interrupted thread could hold an internal lock that the
    reader's thread needs to continue.
    """

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self._is_delivered = False
        self._pending = threading.Lock()
        self._pending.acquire()

    def answer(self, *, is_delivered: bool) -> None:
        """Set the outcome and end the wait. Must be called only once."""
        self._is_delivered = is_delivered
        self._pending.release()

    def outcome(self) -> bool:
        """Wait for the outcome and return it, or return ``False`` at the deadline."""
        return self._pending.acquire(timeout=seconds_until(self.deadline)) and self._is_delivered


class CloudWatchMetricReader(SelectiveReader):
    """Collects metrics for CloudWatch every ``export_interval_seconds``, and when a flush is requested.

    The reader's thread collects metrics and calls CloudWatch. It does so immediately for :meth:`flush`, and at most
    once every ``flush_min_interval_seconds`` for :meth:`request_flush`. During an outage, the reader collects only at
    the regular interval, until the datums that are not in a spool fill half of the backlog. After that, deltas
    accumulate inside the SDK, which reduces the time resolution but loses no counts.

    The reader flushes at exit, in :meth:`shutdown`, and on SIGTERM if the program does not handle that signal. In a
    forked child, it starts without the parent's measurements. Under uWSGI, it needs the ``enable-threads`` option.

    :param exporter: exporter that sends the metrics. Default: an exporter configured from the environment.
    :param export_interval_seconds: interval between periodic flushes, in seconds. Default: 60.
    :param flush_min_interval_seconds: minimum time between requested flushes, in seconds. Default: 10, or 1 if a rule
        has ``storage_resolution=1``.

    Raises :class:`ConfigurationError` if a setting is invalid.
    """

    def __init__(
        self,
        exporter: CloudWatchMetricExporter | None = None,
        *,
        export_interval_seconds: float = DEFAULT_EXPORT_INTERVAL_SECONDS,
        flush_min_interval_seconds: float = DEFAULT_FLUSH_MIN_INTERVAL_SECONDS,
    ) -> None:
        self._exporter = exporter or CloudWatchMetricExporter()
        self._settings = self._exporter.settings.with_arguments(
            export_interval_seconds=export_interval_seconds, flush_min_interval_seconds=flush_min_interval_seconds
        )
        super().__init__(preferred_temporality=TEMPORALITY, preferred_aggregation=AGGREGATION)
        self.is_shut_down = False
        self._is_abandoned = False
        self._measurements = itertools.count()
        # Counts a recorded measurement, without a lock, so that a shutdown can tell how many were not collected.
        self.count_measurement = self._measurements.__next__
        self._times_counted = 0
        self._reset()
        call_at_exit(_shut_down_at_exit)
        self._ensure_started()
        _readers.add(self)
        call_after_fork(self._forget, self._ensure_started)

    def _reset(self) -> None:
        """Create the state that belongs to one process."""
        self._lock_type = threading.Lock
        # A SimpleQueue, because its put() is safe in signal handlers. Each item is a waiting flush(), or None to wake
        # the thread.
        self._inbox: queue.SimpleQueue[_Waiter | None] = queue.SimpleQueue()
        self._is_requested = False
        self._next_collection = time.monotonic() + self._settings.export_interval_seconds
        self._exit_deadline: float | None = None
        # Whether a collection has succeeded. Once a shutdown has begun, only later collections count.
        self.has_collected = False
        self._uncollected_measurements = 0  # number counted as lost by the shutdown
        self._collected_measurements = self._count_measurements()
        self._ends_itself = False  # whether the reader's thread, not another, began the shutdown
        self._has_ended = False
        self._starting = threading.Lock()
        # Held until the collected metrics are in the backlog, so that no other thread ends the final flush or removes
        # the reader before that. Reentrant, because a signal handler that flushes may interrupt a collection.
        self.collection_lock = threading.RLock()
        self.thread = self._collecting_thread = NO_THREAD

    @property
    def exporter(self) -> CloudWatchMetricExporter:
        """The exporter that publishes the metrics that this reader collects."""
        return self._exporter

    @property
    def settings(self) -> Settings:
        """The settings of this reader and its exporter. The namespace defaults to the provider's service name."""
        return replace(self._settings, namespace=self._exporter.settings.namespace or service_name_of(self))

    def kept_attributes(self, instrument: Any, name: str) -> Container[str] | None:
        """Return which of an instrument's attributes to store.

        Returns ``None`` if the instrument belongs to a reporter that uses a different exporter.
        """
        kept = self._exporter.kept_attributes(instrument.instrumentation_scope, name)
        # Data points that differ only in dropped attributes are merged: sums by the SDK, and gauges by the exporter,
        # which keeps all their values.
        return kept if kept is None or isinstance(instrument, _SUMMED) else EVERY_ATTRIBUTE

    def request_flush(self) -> None:
        """Request a flush and return immediately. Requests that are made before a flush begins share that flush."""
        # Without a lock, because every request of the app calls this. A redundant wake-up does no harm.
        if not self._is_requested:
            self._ensure_started()
            if self.thread is not NO_THREAD:  # otherwise, the next request tries again to start the thread
                self._is_requested = True
                self._inbox.put(None)

    def flush(self, timeout_seconds: float = 10.0) -> bool:
        """Send all measurements recorded before this call, and wait until CloudWatch accepts them.

        Returns ``False`` if the flush fails or takes longer than the timeout, or if data is lost meanwhile. Invalid
        data does not affect the result. Calls that are made before a collection begins share that collection. A
        call in the reader's thread, such as one by an observable callback, returns ``False`` immediately.

        :param timeout_seconds: how long to wait, in seconds.
        """
        if threading.current_thread() is self.thread:  # a callback, or an object that is garbage collected here
            return False
        lost_before = self._exporter.stats_recorder.lost_in_delivery()
        deadline = time.monotonic() + timeout_seconds
        self._ensure_started()
        is_delivered = self._wait_for_flush(deadline) if self._has_thread() else self._try_flush(deadline)
        return is_delivered and self._exporter.stats_recorder.lost_in_delivery() == lost_before

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Call :meth:`flush` with a timeout in milliseconds. The SDK defines the name and the unit.

        :param timeout_millis: how long to wait, in milliseconds.
        """
        return self.flush(timeout_millis / 1000)

    def shutdown(self, timeout_millis: float = 30_000, **_kwargs: object) -> None:
        """Flush, and stop the reader's thread. Further calls do nothing.

        At exit, the first call shuts down all readers together, within 10 seconds.

        :param timeout_millis: time limit for the flush, in milliseconds.
        """
        if not threading.main_thread().is_alive():
            _shut_down_at_exit()
        else:
            _shut_down([self], time.monotonic() + timeout_millis / 1000)

    def abandon(self) -> None:
        """Let the reader's thread flush, shut down and remove this reader, which is no longer used.

        Safe to call from the garbage collector, which may interrupt a thread that holds a lock.
        """
        self._is_abandoned = True
        self._inbox.put(None)

    def remove(self) -> None:
        """Clean up after a shutdown that the reader's thread began. By default, there is nothing to clean up."""

    def _begin_shutdown(self, deadline: float) -> bool:
        """Let the reader's thread start the final flush. Returns whether :meth:`_finish_flush` has to wait for it.

        Returns ``False`` if a shutdown has already begun, or if this is the reader's thread, which cannot wait for
        itself: a callback, the client or the garbage collector may call this. The thread then ends the shutdown.
        """
        if self.is_shut_down:
            return False
        self.is_shut_down = True
        self.has_collected = False
        self._exporter.sender.expedite(is_ending=True)
        self._ends_itself = threading.current_thread() is self.thread
        if not self._ends_itself and self._has_thread() and self._exporter.sender.is_calling:
            # The reader's thread is making a call, which may outlast the deadline. By then, the measurements have to be
            # on disk or counted as lost.
            self._collecting_thread = start_thread(
                lambda: self.collect_now(deadline), "CloudWatchMetricReader shutdown"
            )
            if self._collecting_thread is NO_THREAD:
                self.collect_now(deadline)
        self._exit_deadline = deadline
        self._inbox.put(None)
        return not self._ends_itself

    def _finish_flush(self, deadline: float) -> None:
        """Wait until ``deadline`` for the final flush, or flush here if the thread does not run."""
        if self._has_thread():
            self.thread.join(seconds_until(deadline))
            if self._collecting_thread.is_alive():
                self._collecting_thread.join(seconds_until(deadline))
        else:
            self._try_flush(deadline, is_last=True)

    def _close(self) -> None:
        """Close the exporter. Measurements that the final flush did not collect are counted as lost."""
        if not self.has_collected:
            self._uncollected_measurements = lost = self._count_measurements() - self._collected_measurements
            self._exporter.stats_recorder.lost_measurements(LossReason.SHUTDOWN, lost)
            _logger.error(
                "Metrics could not be collected before shutdown and are lost: %d measurements recorded with "
                "add_metric, and any measurements from other instruments. Fix the observable callback that takes too "
                "long, or the problem with collecting metrics that was logged earlier.",
                lost,
            )
        self._exporter.shutdown(timeout_millis=0.0)  # the thread has made the last attempt

    def _ensure_started(self) -> None:
        """Install the SIGTERM handler, and start the reader's thread, if that has not been done.

        If the thread cannot be started, :meth:`flush` does its work in the calling thread.
        """
        handle_sigterm()
        if self.thread.is_alive() or self.is_shut_down or not self._starting.acquire(blocking=False):
            return
        try:
            if not self.thread.is_alive():
                self.thread = start_thread(self._work, "CloudWatchMetricReader")
        finally:
            self._starting.release()

    def _has_thread(self) -> bool:
        # gevent may have patched threading after the thread was started, as in a worker forked by gunicorn. A native
        # thread may be unable to wake a greenlet that waits for it.
        return self.thread.is_alive() and self._lock_type is threading.Lock

    def _forget(self) -> None:
        """In a forked child, discard the measurements, locks and pending flushes inherited from the parent."""
        self._reset()
        self.forget_measurements(is_shut_down=self.is_shut_down)

    def _count_measurements(self) -> int:
        """Return the number of measurements counted so far.

        Reading an ``itertools.count`` advances the counter, so the number of reads is subtracted.
        """
        self._times_counted += 1
        return next(self._measurements) + 1 - self._times_counted

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_kwargs: Any) -> None:  # noqa: ARG002 - the SDK's signature
        # If this collection arrives after the shutdown's deadline, its measurements have been counted as lost. Undo
        # that, because the exporter counts its datums as lost instead.
        self._exporter.stats_recorder.lost_measurements(LossReason.SHUTDOWN, -self._uncollected_measurements)
        self._uncollected_measurements = 0
        self._exporter.accept(metrics_data)

    def _wait_for_flush(self, deadline: float) -> bool:
        """Request a flush and return its outcome, or ``False`` if the flush has not ended by ``deadline``."""
        waiter = _Waiter(deadline)
        self._inbox.put(waiter)
        # The thread may have ended before it saw the waiter, and would then never answer.
        if self._has_ended:
            self._refuse_late_flushes()
        return waiter.outcome()

    def _work(self) -> None:
        """Flush on request and at regular intervals until shutdown."""
        earliest, is_delivered, is_last = -math.inf, True, False
        while not is_last:
            # With jitter, so that processes started together do not keep calling CloudWatch at the same moment.
            jitter_seconds = self._settings.export_interval_seconds * _random.uniform(0, 2 * _JITTER)
            due = max(self._next_collection, time.monotonic()) + jitter_seconds
            if not is_delivered:
                due = min(due, max(self._exporter.sender.retry_at, time.monotonic() + _MIN_FLUSH_SECONDS))
            waiters = self._next_waiters(earliest, due)
            if self._is_abandoned:
                self._end_abandoned()
            exit_deadline = self._exit_deadline
            is_last = exit_deadline is not None
            begun, calls = time.monotonic(), self._exporter.stats_recorder.requests
            # The flush ends before the next collection, which is due even if the flush fails. A collection that is due
            # now belongs to this flush.
            until_collection = (self._next_collection - begun) % self._settings.export_interval_seconds
            background_timeout = min(self._settings.export_timeout_seconds, max(until_collection, _MIN_FLUSH_SECONDS))
            deadline = max((each.deadline for each in waiters), default=begun + background_timeout)
            is_delivered = self._try_flush(exit_deadline or deadline, is_last=is_last)
            # A flush that had nothing to send costs no call, and delays the next one only to limit the CPU time.
            has_called = self._exporter.stats_recorder.requests != calls
            longest = math.inf if has_called else _MIN_FLUSH_SECONDS
            earliest = begun + min(self._settings.flush_min_interval_seconds, longest)
            for each in waiters:
                each.answer(is_delivered=is_delivered)
        self._has_ended = True
        self._refuse_late_flushes()
        if self._ends_itself:
            self._close()
            self.remove()

    def _end_abandoned(self) -> None:
        """Flush, then begin the shutdown, unless another thread has begun it.

        The flush comes first, because the process does not wait at exit for a reader whose shutdown has begun.
        """
        deadline = time.monotonic() + EXIT_TIMEOUT_SECONDS
        self._try_flush(deadline - EXIT_TIMEOUT_SECONDS / 2)
        self._begin_shutdown(deadline)

    def _next_waiters(self, earliest: float, due: float) -> list[_Waiter]:
        """Wait until ``due``, or until ``earliest`` if a flush was requested. Returns the waiting ``flush`` calls.

        A ``flush`` call, :meth:`abandon` or a shutdown ends the wait immediately.
        """
        waiters: list[_Waiter] = []
        with contextlib.suppress(queue.Empty):
            while True:
                is_urgent = waiters or self._is_abandoned or self._exit_deadline
                wait_until = min(earliest, due) if self._is_requested else due
                waiter = self._receive(0.0 if is_urgent else seconds_until(wait_until))
                if waiter is not None and waiter.deadline > time.monotonic():
                    waiters.append(waiter)
        self._is_requested = False
        return waiters

    def _receive(self, timeout_seconds: float) -> _Waiter | None:
        """Take the next item from the inbox. Raises ``queue.Empty`` if none arrives within the timeout."""
        # In Python 3.10, get() with a short timeout may ignore the timeout if the queue is empty but the previous call
        # found an item: while it acquires its lock, the remaining time becomes negative, which means "wait forever".
        try:
            return self._inbox.get_nowait()
        except queue.Empty:
            return self._inbox.get(timeout=timeout_seconds)

    def _refuse_late_flushes(self) -> None:
        """Answer the ``flush`` calls that came too late for the final flush."""
        with contextlib.suppress(queue.Empty):
            while True:
                waiter = self._inbox.get_nowait()
                if waiter is not None:
                    waiter.answer(is_delivered=False)

    def _try_flush(self, deadline: float, *, is_last: bool = False) -> bool:
        """Flush in this thread. If that raises an exception, log it and return ``False``."""
        try:
            return self._flush_now(deadline, is_last=is_last)
        except Exception:  # such as a MemoryError: the thread must not end, and a shutdown must close the exporter
            _logger.exception(
                "Failed to flush metrics; the next flush tries again. Unless this process lacks memory, report a bug, "
                "and include the traceback."
            )
            return False

    def _flush_now(self, deadline: float, *, is_last: bool = False) -> bool:
        """Flush in this thread, and return whether everything was collected and delivered.

        During an outage, this collects only at the regular interval, so that the backlog grows slowly. While the
        backlog has no room, only the final flush collects, and deltas accumulate in the SDK.
        """
        is_time = self._exporter.sender.is_unexplained or time.monotonic() >= self._next_collection
        is_due = is_last or (is_time and self._exporter.backlog.has_room)
        is_collected = not is_due or self.collect_now(deadline)
        is_delivered = self._exporter.deliver(deadline, is_last=is_last)
        # If CloudWatch is reachable, only datums that wait for bisection are left. New datums need not wait for them.
        is_accepting = is_delivered or self._exporter.sender.retry_at <= time.monotonic() < deadline
        if is_accepting and not is_due and self._exporter.backlog.has_room:
            return self.collect_now(deadline) and self._exporter.deliver(deadline)
        return is_collected and is_delivered

    def collect_now(self, deadline: float) -> bool:
        """Collect into the backlog. If that fails, log the exception and return ``False``."""
        self._next_collection = time.monotonic() + self._settings.export_interval_seconds * (1 - _JITTER)
        try:
            with self.collection_lock:
                measurements = self._count_measurements()
                if is_registered(self):
                    self.collect(timeout_millis=max(deadline - time.monotonic(), 0.001) * 1000)
                self._collected_measurements, self.has_collected = measurements, True
        except BaseException as error:  # boundary: callbacks and views of the program
            # In a calling thread, SystemExit may come from a signal handler and must propagate. In the reader's thread,
            # it must not end the thread.
            if not isinstance(error, Exception) and threading.current_thread() is not self.thread:
                raise
            _logger.exception(
                "Failed to collect metrics; the next collection tries again. Fix the cause that the traceback shows, "
                "such as an observable callback that takes too long."
            )
            return False
        return True


NO_THREAD: Final = threading.Thread()


def start_thread(work: Callable[[], object], name: str) -> threading.Thread:
    """Start a daemon thread. If that is impossible, log a warning and return a thread that is not alive."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:  # too many threads, or the interpreter is shutting down
        _each_minute.warning(
            "thread",
            "Cannot start the metric reader's thread. Until it starts, metrics are sent only by flush() and at "
            "shutdown. Unless the process is exiting, raise its thread limit. (%s)",
            error,
        )
        return NO_THREAD
    return thread


def _shut_down(readers: Iterable[CloudWatchMetricReader], deadline: float) -> None:
    """Shut down ``readers`` concurrently, so that a slow reader does not delay the others."""
    with hold_sigterm():
        ends = [(each._finish_flush, each._close) for each in readers if each._begin_shutdown(deadline)]  # noqa: SLF001 - this module's class
        for finish_flush, _ in ends:
            finish_flush(deadline)
        # Closed last: if the program's exporters are closed, a reporter's reader also publishes their metrics.
        for _, close in ends:
            close()


def _shut_down_at_exit() -> None:
    _shut_down(live_readers(), time.monotonic() + EXIT_TIMEOUT_SECONDS)


def all_readers() -> list[CloudWatchMetricReader]:
    """Return the CloudWatch readers of this process that are still referenced, even if they are shut down."""
    return list(_readers)


def live_readers() -> list[CloudWatchMetricReader]:
    """Return the CloudWatch readers of this process that are not shut down."""
    return [each for each in _readers if not each.is_shut_down]


def readers_on(provider: object) -> list[CloudWatchMetricReader]:
    """Return a meter provider's CloudWatch readers that are not shut down, regardless of who registered them."""
    consumer = consumer_of(provider)
    return [] if consumer is None else [reader for reader in live_readers() if consumer_of(reader) is consumer]
