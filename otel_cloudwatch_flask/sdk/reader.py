"""The metric reader: collects on an interval and on request, and delivers in its own thread."""

import contextlib
import logging
import math
import os
import queue
import random
import threading
import time
import weakref
from collections.abc import Container, Iterator
from typing import Any, Final

from opentelemetry.metrics import Counter, Histogram, ObservableCounter, ObservableUpDownCounter, UpDownCounter
from opentelemetry.sdk.metrics.export import MetricsData

from otel_cloudwatch_flask.config import DEFAULT_EXPORT_INTERVAL_SECONDS, DEFAULT_FLUSH_MIN_INTERVAL_SECONDS, Settings
from otel_cloudwatch_flask.runtime.process import call_after_fork, call_at_exit
from otel_cloudwatch_flask.sdk.exporter import (
    TEMPORALITY,
    CloudWatchMetricExporter,
    default_aggregation,
    seconds_until,
)
from otel_cloudwatch_flask.sdk.internals import (
    EVERY_ATTRIBUTE,
    SelectiveReader,
    consumer_of,
    forget_measurements,
    is_registered,
)

_logger = logging.getLogger(__name__)

EXIT_TIMEOUT_SECONDS: Final = 10.0
"""How long the process waits for CloudWatch at exit; process managers usually kill after 30 seconds."""

_JITTER: Final = 0.05
_SUMMED: Final = (Counter, Histogram, ObservableCounter, ObservableUpDownCounter, UpDownCounter)
_live_readers: weakref.WeakSet["CloudWatchMetricReader"] = weakref.WeakSet()


class CloudWatchMetricReader(SelectiveReader):
    """Collect metrics for CloudWatch every ``export_interval_seconds``, and when a flush is requested.

    ``exporter`` defaults to one configured by the environment. The reader's thread collects and calls CloudWatch: for
    :meth:`flush` at once, for :meth:`request_flush` at most every ``flush_min_interval_seconds``. While datums are
    pending because CloudWatch does not accept them, nothing is collected: deltas accumulate inside the SDK, so an
    outage costs time resolution and no counts.

    All measurements are flushed at exit and by :meth:`shutdown`. In a forked child the reader starts afresh without the
    parent's measurements. Children of multiprocessing flush when they end, but not when they are terminated, as those
    of a ``Pool`` are. uWSGI needs ``enable-threads``; its workers flush when they end gracefully, and lose up to a
    second's measurements when they are killed during a request.
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
        self._is_requested = False
        self._is_abandoned = False
        self._exit_deadline: float | None = None
        self._reset()
        self._start_thread()
        _live_readers.add(self)
        call_after_fork(self._forget, self._start_thread)
        self._forget_exit = call_at_exit(self._flush_at_exit)

    @property
    def exporter(self) -> CloudWatchMetricExporter:
        """The exporter that publishes the collections."""
        return self._exporter

    def kept_attributes(self, instrument: Any) -> Container[str] | None:
        """Return the attributes of an instrument that are published, ``None`` if a reporter elsewhere publishes it."""
        kept = self._exporter.kept_attributes(instrument.instrumentation_scope, instrument.name)
        # Data points that differ in dropped attributes are merged: sums by the SDK, gauges by the exporter, which keeps
        # all their values.
        return kept if kept is None or isinstance(instrument, _SUMMED) else EVERY_ATTRIBUTE

    def request_flush(self) -> None:
        """Request a flush and return at once; concurrent requests become one flush."""
        if not self._is_requested:
            self._is_requested = True
            self._wakes.put(None)

    def flush(self, timeout_seconds: float = 10.0) -> bool:
        """Return ``True`` once every measurement recorded before this call is in CloudWatch, ``False`` at the timeout.

        Also ``False`` if datums were lost meanwhile: see ``exporter.stats()``. Concurrent calls share a collection.
        """
        lost_before = self._exporter.ledger.lost_in_delivery()
        deadline = time.monotonic() + timeout_seconds
        # The thread may have ended, or failed to start. If gevent has patched threading since, as in a worker forked by
        # gunicorn, a native thread may be unable to wake a greenlet that waits for it.
        has_thread = self._thread.is_alive() and self._lock_type is threading.Lock
        is_delivered = self._wait_for_flush(deadline) if has_thread else self._flush_now(deadline)
        return is_delivered and self._exporter.ledger.lost_in_delivery() == lost_before

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """:meth:`flush`, by the name and in the unit that the SDK uses."""
        return self.flush(timeout_millis / 1000)

    def shutdown(self, timeout_millis: float = 30_000, **_kwargs: object) -> None:
        """Flush and stop the reader's thread; further calls do nothing."""
        if self._is_shut_down:
            return
        deadline = time.monotonic() + timeout_millis / 1000
        self._begin_shutdown()
        if self._thread.is_alive():
            if self._exporter.delivery.is_calling:
                # The call may outlast the deadline, by which new measurements must be on disk or counted as lost.
                with _failures_logged():
                    self._collect_now(deadline)
            self._exit_deadline = deadline
            self._wakes.put(None)
            self._thread.join(seconds_until(deadline))
        else:
            self._flush_now(deadline, is_last=True)
        self._exporter.shutdown(timeout_millis=0.0)  # the thread has made the last attempt

    def abandon(self) -> None:
        """Have the reader's thread flush, shut the reader down and remove it, because nothing records for it any more.

        Safe to call from the garbage collector, which may interrupt any thread wherever it holds a lock.
        """
        self._is_abandoned = True
        self._wakes.put(None)

    def remove(self) -> None:
        """Clean up after an abandoned reader was shut down."""

    def _begin_shutdown(self) -> None:
        self._is_shut_down = True
        _live_readers.discard(self)
        self._forget_exit()
        self._exporter.delivery.expedite(is_ending=True)

    def _reset(self) -> None:
        """Create the state of one process."""
        self._lock_type = threading.Lock
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()  # reentrant, unlike an Event: see abandon()
        self._is_requested = False
        self._changed = threading.Condition()  # guards what follows: flushes are counted, the first is 1
        self._deadlines: list[float] = []  # of those who wait for the next flush to begin
        self._begun = self._delivered = 0  # _delivered: the last one that left nothing pending
        self._ended = 0.0
        self._thread = threading.Thread()

    def _start_thread(self) -> None:
        """Start the reader's thread unless it runs. If that fails, :meth:`flush` works in the calling thread."""
        if self._is_shut_down or self._thread.is_alive():
            return
        self._thread = threading.Thread(target=self._work, name="CloudWatchMetricReader", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # too many threads, or the interpreter is shutting down
            _logger.warning(
                "Cannot start the reader's thread: only flush() and the exit send metrics. Allow more threads. (%s)",
                error,
            )

    def _forget(self) -> None:
        """Forget the parent's measurements, flushes and locks in a forked child."""
        self._reset()
        if not self._is_shut_down:
            forget_measurements(self)

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_kwargs: Any) -> None:  # noqa: ARG002 - the SDK's signature
        self._exporter.accept(metrics_data)

    def _wait_for_flush(self, deadline: float) -> bool:
        """Have the thread start another flush and return its outcome; ``False`` if it is not over by the deadline."""
        with self._changed:
            number = self._begun + 1
            self._deadlines.append(deadline)
            self._wakes.put(None)
            self._changed.wait_for(lambda: self._ended >= number, seconds_until(deadline))
            if self._begun < number:
                self._deadlines.remove(deadline)
            return self._delivered >= number

    def _work(self) -> None:
        """Flush on request and on the interval until shutdown."""
        begun, is_delivered = -math.inf, True
        while self._ended < math.inf:
            # With jitter, so that processes started together do not keep calling CloudWatch at the same moment.
            due = time.monotonic() + self._interval_seconds * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret
            if not is_delivered:
                due = min(due, max(self._exporter.delivery.retry_at, time.monotonic() + 1.0))
            self._pause(begun + self._min_interval_seconds, due)
            begun = time.monotonic()
            if self._is_abandoned and not self._is_shut_down:
                self._begin_shutdown()
                self._exit_deadline = begun + EXIT_TIMEOUT_SECONDS
            is_delivered = self._flush_for_all(begun + self._timeout_seconds)
        if self._is_abandoned:
            self._exporter.shutdown(timeout_millis=0.0)
            self.remove()

    def _pause(self, earliest: float, due: float) -> None:
        """Wait until a flush is due, or one is requested and the minimum interval has passed."""
        while not (self._deadlines or self._is_abandoned or self._exit_deadline):
            try:
                self._wakes.get(timeout=seconds_until(min(earliest, due) if self._is_requested else due))
            except queue.Empty:  # noqa: PERF203 - the loop waits
                return

    def _flush_for_all(self, deadline: float) -> bool:
        """Flush until the latest deadline of the waiting callers, and tell them the outcome."""
        with self._changed:
            self._begun += 1
            self._is_requested = False
            exit_deadline = self._exit_deadline
            deadline = exit_deadline or max(self._deadlines, default=deadline)
            self._deadlines.clear()
        is_delivered = self._flush_now(deadline, is_last=exit_deadline is not None)
        with self._changed:
            self._ended = self._begun if exit_deadline is None else math.inf
            self._delivered = self._begun if is_delivered else self._delivered
            self._changed.notify_all()
        return is_delivered

    def _flush_now(self, deadline: float, *, is_last: bool = False) -> bool:
        """Flush in this thread. Except for the last flush, collect only once nothing is pending."""
        with _failures_logged():
            if not is_last and not self._exporter.deliver(deadline):
                return False
            self._collect_now(deadline)
            return self._exporter.deliver(deadline, is_last=is_last)
        return False

    def _collect_now(self, deadline: float) -> None:
        if is_registered(self):
            self.collect(timeout_millis=max(deadline - time.monotonic(), 0.001) * 1000)

    def _flush_at_exit(self) -> None:
        self.shutdown(timeout_millis=EXIT_TIMEOUT_SECONDS * 1000)


@contextlib.contextmanager
def _failures_logged() -> Iterator[None]:
    """Log exceptions raised in the block, where callbacks and views of the program run."""
    try:
        yield
    except Exception:  # boundary: the reader's thread
        _logger.exception(
            "Collecting metrics failed; they will be collected next time. Fix the callback or view at the end of the "
            "traceback."
        )


def live_readers() -> list[CloudWatchMetricReader]:
    """Return the CloudWatch readers of this process that are not shut down."""
    return list(_live_readers)


def readers_on(provider: object) -> list[CloudWatchMetricReader]:
    """Return the CloudWatch readers of a meter provider that are not shut down, however they were registered."""
    consumer = consumer_of(provider)
    return [] if consumer is None else [reader for reader in tuple(_live_readers) if consumer_of(reader) is consumer]
