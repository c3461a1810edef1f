"""The metric reader: collects on an interval and on request, and delivers in its own thread."""

import contextlib
import itertools
import logging
import math
import os
import queue
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Final

from opentelemetry.sdk.metrics.export import MetricReader, MetricsData

from otel_cloudwatch_flask.config import DEFAULT_EXPORT_INTERVAL_SECONDS, DEFAULT_FLUSH_MIN_INTERVAL_SECONDS, Settings
from otel_cloudwatch_flask.delivery.stats import LossReason
from otel_cloudwatch_flask.runtime.process import call_after_fork, call_at_exit, handle_sigterm, is_exiting
from otel_cloudwatch_flask.runtime.rate_limited_log import RateLimitedLog
from otel_cloudwatch_flask.sdk.exporter import (
    TEMPORALITY,
    CloudWatchMetricExporter,
    default_aggregation,
    seconds_until,
)
from otel_cloudwatch_flask.sdk.internals import consumer_of, forget_measurements, is_registered

_logger = logging.getLogger(__name__)
_each_minute = RateLimitedLog(_logger, interval_seconds=60.0)

EXIT_TIMEOUT_SECONDS: Final = 10.0
"""How long the process waits for CloudWatch at exit; process managers usually kill after 30 seconds."""

_JITTER: Final = 0.05
_MIN_FLUSH_SECONDS: Final = 1.0

_live_readers: "weakref.WeakValueDictionary[int, CloudWatchMetricReader]" = weakref.WeakValueDictionary()


class _Waiter:
    """A call of ``flush`` that waits for its outcome.

    A bare lock is all that its two threads share, because a signal handler may interrupt the call anywhere: with an
    ``Event`` or a ``Condition`` the interrupted thread could hold a lock that the reader's thread needs to go on.
    """

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self._is_delivered = False
        self._pending = threading.Lock()
        self._pending.acquire()

    def answer(self, *, is_delivered: bool) -> None:
        """End the call; only once."""
        self._is_delivered = is_delivered
        self._pending.release()

    def outcome(self) -> bool:
        """Wait for the answer; ``False`` at the deadline."""
        return self._pending.acquire(timeout=seconds_until(self.deadline)) and self._is_delivered


class CloudWatchMetricReader(MetricReader):
    """Collect metrics for CloudWatch every ``export_interval_seconds``, and when a flush is requested.

    ``exporter`` defaults to one configured by the environment. The reader's thread collects and calls CloudWatch: for
    :meth:`flush` at once, for :meth:`request_flush` at most every ``flush_min_interval_seconds``. While CloudWatch
    does not accept datums, collections go on by the interval until the backlog is half full (and the spool full, if
    there is one); then deltas accumulate inside the SDK, so that an outage costs time resolution and no counts.

    All measurements are flushed at exit and by :meth:`shutdown`. In a forked child the reader starts afresh without the
    parent's measurements. Children of multiprocessing flush when they end, and when they are terminated, as
    those of a ``Pool`` are: SIGTERM flushes where nothing else handles it. uWSGI needs ``enable-threads``; its workers
    flush when they end gracefully, and lose up to a second's measurements when they are killed during a request.
    """

    def __init__(
        self,
        exporter: CloudWatchMetricExporter | None = None,
        *,
        export_interval_seconds: float = DEFAULT_EXPORT_INTERVAL_SECONDS,
        flush_min_interval_seconds: float = DEFAULT_FLUSH_MIN_INTERVAL_SECONDS,
    ) -> None:
        arguments = {
            "export_interval_seconds": export_interval_seconds,
            "flush_min_interval_seconds": flush_min_interval_seconds,
        }
        settings = Settings.resolve(arguments=arguments, app_config={}, environ=os.environ)
        self._exporter = exporter or CloudWatchMetricExporter()
        super().__init__(preferred_temporality=TEMPORALITY, preferred_aggregation=default_aggregation())
        self._interval_seconds = settings.export_interval_seconds
        self._min_interval_seconds = settings.flush_min_interval_seconds
        self._timeout_seconds = settings.export_timeout_seconds
        self._is_shut_down = False
        self._measurements = itertools.count()
        self._times_counted = 0
        self._reset()
        call_at_exit(_shut_down_at_exit)
        self._ensure_started()
        _live_readers[id(self)] = self
        call_after_fork(self._forget, self._ensure_started)

    def _reset(self) -> None:
        """Create the state of one process."""
        self._lock_type = threading.Lock
        # Reentrant, for signal handlers. Holds the waiting calls of flush(), and None to wake the thread.
        self._inbox: queue.SimpleQueue[_Waiter | None] = queue.SimpleQueue()
        self._is_requested = False
        self._next_collection = time.monotonic() + self._interval_seconds
        self._exit_deadline: float | None = None
        self._is_collected = False  # by the shutdown
        self._uncollected_measurements = 0  # that are counted as lost
        self._collected_measurements = self._count_measurements()
        self._has_ended = False
        self._starting = threading.Lock()
        self._thread = self._collecting_thread = _NO_THREAD

    @property
    def exporter(self) -> CloudWatchMetricExporter:
        """The exporter that publishes the collections."""
        return self._exporter

    @property
    def has_collected(self) -> bool:
        """Whether :meth:`shutdown` could collect everything by its deadline."""
        return self._is_collected

    @property
    def count_measurement(self) -> Callable[[], object]:
        """To be called for each measurement recorded for this reader, so that those never collected can be counted.

        It takes no lock and some 40 nanoseconds.
        """
        return self._measurements.__next__

    def request_flush(self) -> None:
        """Request a flush and return at once; concurrent requests become one flush."""
        if not self._is_requested:
            self._is_requested = True
            self._ensure_started()
            self._inbox.put(None)

    def flush(self, timeout_seconds: float = 10.0) -> bool:
        """Return ``True`` once every measurement recorded before this call is in CloudWatch, ``False`` at the timeout.

        Also ``False`` if datums were lost meanwhile: see ``exporter.stats()``. Concurrent calls share a collection.
        """
        lost_before = self._exporter.stats_recorder.lost_in_delivery()
        deadline = time.monotonic() + timeout_seconds
        self._ensure_started()
        is_delivered = self._wait_for_flush(deadline) if self._has_thread() else self._flush_now(deadline)
        return is_delivered and self._exporter.stats_recorder.lost_in_delivery() == lost_before

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """:meth:`flush`, by the name and in the unit that the SDK uses."""
        return self.flush(timeout_millis / 1000)

    def shutdown(self, timeout_millis: float = 30_000, **_kwargs: object) -> None:
        """Flush and stop the reader's thread; further calls do nothing.

        A meter provider that calls this at exit does so for one reader after the other, with 30 seconds: all readers
        are then shut down together, within the time for the exit.
        """
        if is_exiting():
            _shut_down_at_exit()
        else:
            _shut_down([self], time.monotonic() + timeout_millis / 1000)

    def _begin_shutdown(self, deadline: float) -> bool:
        """Start the last flush; :meth:`_end_shutdown` waits for it. ``False`` if the reader is already shut down."""
        if self._is_shut_down:
            return False
        self._is_shut_down = True
        _live_readers.pop(id(self), None)
        self._is_collected = False
        self._exporter.sender.expedite(is_ending=True)
        if self._has_thread() and self._exporter.sender.is_calling:
            # The call may outlast the deadline, by which new measurements must be on disk or counted as lost.
            self._collecting_thread = _start(lambda: self._collect_now(deadline), "CloudWatchMetricReader shutdown")
            if self._collecting_thread is _NO_THREAD:
                self._collect_now(deadline)
        self._exit_deadline = deadline
        self._inbox.put(None)
        return True

    def _end_shutdown(self, deadline: float) -> None:
        """Wait for the last flush until the deadline, and count what it leaves behind."""
        if self._has_thread():
            self._thread.join(seconds_until(deadline))
            if self._collecting_thread.is_alive():
                self._collecting_thread.join(seconds_until(deadline))
        else:
            self._flush_now(deadline, is_last=True)
        if not self._is_collected:
            self._count_uncollected()
        self._exporter.shutdown(timeout_millis=0.0)  # the thread has made the last attempt

    def _ensure_started(self) -> None:
        """Handle SIGTERM and start the reader's thread, once. Without a thread :meth:`flush` works in the caller's."""
        handle_sigterm()
        if self._thread.is_alive() or self._is_shut_down or not self._starting.acquire(blocking=False):
            return
        try:
            if not self._thread.is_alive():
                self._thread = _start(self._work, "CloudWatchMetricReader")
        finally:
            self._starting.release()

    def _has_thread(self) -> bool:
        # If gevent has patched threading since the thread was started, as in a worker forked by gunicorn, a native
        # thread may be unable to wake a greenlet that waits for it.
        return self._thread.is_alive() and self._lock_type is threading.Lock

    def _forget(self) -> None:
        """Forget the parent's measurements, flushes and locks in a forked child."""
        self._reset()
        if not self._is_shut_down:
            forget_measurements(self)

    def _count_measurements(self) -> int:
        """Return the number of measurements so far: reading a count also advances it."""
        self._times_counted += 1
        return next(self._measurements) + 1 - self._times_counted

    def _count_uncollected(self) -> None:
        """Count measurements as lost that could not be collected before the shutdown's deadline."""
        self._uncollected_measurements = lost = self._count_measurements() - self._collected_measurements
        self._exporter.stats_recorder.lost(LossReason.SHUTDOWN, lost)
        _logger.error(
            "Metrics could not be collected before shutdown and are lost: %d measurements recorded with add_metric, "
            "and those from other instruments. Fix the observable callback that hangs or raises an exception.",
            lost,
        )

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_kwargs: Any) -> None:  # noqa: ARG002 - the SDK's signature
        # A collection that comes after the shutdown's deadline is counted as lost by the exporter, datum by datum.
        self._exporter.stats_recorder.lost(LossReason.SHUTDOWN, -self._uncollected_measurements)
        self._uncollected_measurements = 0
        self._exporter.accept(metrics_data)

    def _wait_for_flush(self, deadline: float) -> bool:
        """Have the thread start another flush and return its outcome; ``False`` if it is not over by the deadline."""
        waiter = _Waiter(deadline)
        self._inbox.put(waiter)
        if self._has_ended:
            self._answer([], is_delivered=False)
        return waiter.outcome()

    def _work(self) -> None:
        """Flush on request and on the interval until shutdown."""
        begun, is_delivered, is_last = -math.inf, True, False
        while not is_last:
            # With jitter, so that processes started together do not keep calling CloudWatch at the same moment.
            due = time.monotonic() + self._interval_seconds * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret
            if not is_delivered:
                due = min(due, max(self._exporter.sender.retry_at, time.monotonic() + _MIN_FLUSH_SECONDS))
            waiters = self._next_waiters(begun + self._min_interval_seconds, due)
            exit_deadline, is_last = self._exit_deadline, self._exit_deadline is not None
            begun = time.monotonic()
            # Not longer than the interval, after which the next collection is due even if this flush fails.
            background_timeout = min(self._timeout_seconds, max(self._interval_seconds, _MIN_FLUSH_SECONDS))
            deadline = max((each.deadline for each in waiters), default=begun + background_timeout)
            is_delivered = self._flush_now(exit_deadline or deadline, is_last=is_last)
            self._has_ended = is_last
            self._answer(waiters, is_delivered=is_delivered)

    def _next_waiters(self, earliest: float, due: float) -> list[_Waiter]:
        """Wait until a flush is due, or requested after the minimum interval; return the calls that wait for it."""
        waiters: list[_Waiter] = []
        with contextlib.suppress(queue.Empty):
            while self._exit_deadline is None and not waiters:
                waiters += self._receive(seconds_until(min(earliest, due) if self._is_requested else due))
        self._is_requested = False
        return [*waiters, *self._drain_inbox()]

    def _receive(self, timeout_seconds: float) -> list[_Waiter]:
        """Take one item from the inbox; calls that have given up since are dropped."""
        waiter = self._inbox.get(timeout=timeout_seconds)
        return [waiter] if waiter is not None and waiter.deadline > time.monotonic() else []

    def _drain_inbox(self) -> list[_Waiter]:
        waiters: list[_Waiter] = []
        with contextlib.suppress(queue.Empty):
            while True:
                waiters += self._receive(0.0)
        return waiters

    def _answer(self, waiters: list[_Waiter], *, is_delivered: bool) -> None:
        """Tell callers the outcome of their flush, and those that came after the last one that there is none."""
        for each in waiters:
            each.answer(is_delivered=is_delivered)
        for each in self._drain_inbox() if self._has_ended else []:
            each.answer(is_delivered=False)

    def _flush_now(self, deadline: float, *, is_last: bool = False) -> bool:
        """Flush in this thread.

        In an outage collections go on by the interval only, so that what is pending stays small, and only while the
        backlog has room: without, deltas accumulate in the SDK.
        """
        is_due = is_last or (time.monotonic() >= self._next_collection and self._exporter.has_room)
        is_collected = not is_due or self._collect_now(deadline)
        is_delivered = self._exporter.deliver(deadline, is_last=is_last)
        if is_delivered and not is_due:
            return self._collect_now(deadline) and self._exporter.deliver(deadline)
        return is_collected and is_delivered

    def _collect_now(self, deadline: float) -> bool:
        """Collect into the backlog; return ``False``, and log why, if that failed."""
        self._next_collection = time.monotonic() + self._interval_seconds * (1 - _JITTER)
        measurements = self._count_measurements()
        try:
            if is_registered(self):
                self.collect(timeout_millis=max(deadline - time.monotonic(), 0.001) * 1000)
            self._collected_measurements, self._is_collected = measurements, True
        except BaseException as error:  # boundary: callbacks and views of the program
            # In a calling thread, SystemExit may come from a signal handler. In the reader's, it would end the thread.
            if not isinstance(error, Exception) and threading.current_thread() is not self._thread:
                raise
            _logger.exception(
                "Failed to collect metrics; the next collection will include them. Fix the callback or view at the end "
                "of the traceback."
            )
            return False
        return True


_NO_THREAD: Final = threading.Thread()


def _start(work: Callable[[], object], name: str) -> threading.Thread:
    """Start a daemon thread; return one that is not alive, with a warning, if that is impossible."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:  # too many threads, or the interpreter is shutting down
        _each_minute.warning(
            "thread",
            "Cannot start the reader's thread: metrics are sent only by flush() and at process exit. Raise the thread "
            "limit. (%s)",
            error,
        )
        return _NO_THREAD
    return thread


def _shut_down(readers: Iterable[CloudWatchMetricReader], deadline: float) -> None:
    """Shut readers down, all at the same time: each has until the deadline, whatever keeps the others."""
    for each in [each for each in readers if each._begin_shutdown(deadline)]:  # noqa: SLF001 - this module's class
        each._end_shutdown(deadline)  # noqa: SLF001 - this module's class


def _shut_down_at_exit() -> None:
    _shut_down(live_readers(), time.monotonic() + EXIT_TIMEOUT_SECONDS)


def live_readers() -> list[CloudWatchMetricReader]:
    """Return the CloudWatch readers of this process that are not shut down."""
    # valuerefs() copies in one step; other iterations fail if another thread adds a reader meanwhile.
    return [reader for reference in _live_readers.valuerefs() if (reader := reference()) is not None]


def readers_on(provider: object) -> list[CloudWatchMetricReader]:
    """Return the CloudWatch readers of a meter provider that are not shut down, however they were registered."""
    consumer = consumer_of(provider)
    return [] if consumer is None else [reader for reader in live_readers() if consumer_of(reader) is consumer]
