"""The reader: collects metrics on an interval and on request, and delivers them in one thread."""

import contextlib
import logging
import math
import os
import random
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any, Final

from opentelemetry.sdk.metrics.export import MetricReader, MetricsData

from otel_cloudwatch_flask.config import DEFAULT_EXPORT_INTERVAL_SECONDS, DEFAULT_FLUSH_MIN_INTERVAL_SECONDS, Settings
from otel_cloudwatch_flask.runtime.process import call_after_fork, call_at_exit
from otel_cloudwatch_flask.sdk.exporter import (
    TEMPORALITY,
    CloudWatchMetricExporter,
    default_aggregation,
    seconds_until,
)
from otel_cloudwatch_flask.sdk.internals import consumer_of, forget_measurements, is_registered

_logger = logging.getLogger(__name__)

EXIT_TIMEOUT_SECONDS: Final = 10.0
"""How long the end of the process waits for CloudWatch; process managers kill after 30 s or so."""

_JITTER: Final = 0.05
_live_readers: weakref.WeakSet["CloudWatchMetricReader"] = weakref.WeakSet()


class CloudWatchMetricReader(MetricReader):
    """Collect metrics for CloudWatch every ``export_interval_seconds``, and when a flush is requested.

    Without an ``exporter``, one is made of the environment. One thread of the reader collects and calls CloudWatch, for
    :meth:`flush` at once, for :meth:`request_flush` at most every ``flush_min_interval_seconds``. While metrics are
    pending because CloudWatch does not accept them, nothing is collected: deltas keep adding up inside the SDK, so an
    outage costs time resolution and no counts.

    What was recorded is flushed at exit and by :meth:`shutdown`. In a forked child the reader starts anew, with nothing
    of what the parent has recorded; children of multiprocessing flush when they come to their end, but not when they
    are terminated, as a ``Pool`` does with its own. uWSGI must have ``enable-threads``, and flushes what its workers
    have recorded when it ends them gracefully; those that it kills in the middle of a request lose up to a second's.
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
        self._exit_deadline: float | None = None
        self._start()
        _live_readers.add(self)
        call_after_fork(self._restart)
        self._forget_exit = call_at_exit(self._flush_at_exit)

    @property
    def exporter(self) -> CloudWatchMetricExporter:
        """Where collections go."""
        return self._exporter

    def request_flush(self) -> None:
        """Ask for a flush and return at once; requests that come together become one flush."""
        if not self._is_requested:
            self._is_requested = True
            self._woken.set()

    def flush(self, timeout_seconds: float = 10.0) -> bool:
        """Return ``True`` once everything recorded before this call is in CloudWatch, ``False`` after the timeout.

        ``False`` as well if data was lost on the way, see ``exporter.stats()``. Calls that come together share one
        collection and its requests.
        """
        lost_before = self._exporter.stats_recorder.lost_in_delivery()
        deadline = time.monotonic() + timeout_seconds
        # The thread may have ended or never been started. If gevent has patched threading since, as in a worker forked
        # by gunicorn, the thread may not be able to wake a greenlet that waits for it.
        has_thread = self._thread.is_alive() and self._lock_type is threading.Lock
        is_delivered = self._wait_for_flush(deadline) if has_thread else self._flush_now(deadline)
        return is_delivered and self._exporter.stats_recorder.lost_in_delivery() == lost_before

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """:meth:`flush`, by the name and in the unit that the SDK uses."""
        return self.flush(timeout_millis / 1000)

    def shutdown(self, timeout_millis: float = 30_000, **_kwargs: object) -> None:
        """Flush, and end the reader's thread; further calls do nothing."""
        if self._is_shut_down:
            return
        self._is_shut_down = True
        deadline = time.monotonic() + timeout_millis / 1000
        _live_readers.discard(self)
        self._forget_exit()
        self._exporter.delivery.expedite(is_ending=True)
        if self._thread.is_alive():
            if self._exporter.delivery.is_calling:
                # The call may keep the thread for too long, and new data must be on disk, or counted, by the deadline.
                with _failures_logged():
                    self._collect_now(deadline)
            self._exit_deadline = deadline
            self._woken.set()
            self._thread.join(seconds_until(deadline))
        else:
            self._flush_now(deadline, is_last=True)
        self._exporter.shutdown(timeout_millis=0.0)  # the thread has made all attempts

    def _start(self) -> None:
        """Make everything that belongs to one process, and start its thread."""
        self._lock_type = threading.Lock
        self._woken = threading.Event()
        self._is_requested = False
        self._changed = threading.Condition()  # guards what follows: flushes are counted, the first is 1
        self._deadlines: list[float] = []  # of those who wait for the next flush to begin
        self._begun = self._delivered = 0  # _delivered: the last one that left nothing pending
        self._ended = 0.0
        self._thread = threading.Thread(target=self._work, name="CloudWatchMetricReader", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # too many threads, or the interpreter is shutting down
            _logger.warning("No thread could be started: only flush() sends metrics. Allow more threads. (%s)", error)

    def _restart(self) -> None:
        """Start anew in a forked child."""
        if not self._is_shut_down:
            forget_measurements(self)
            self._start()

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_kwargs: Any) -> None:  # noqa: ARG002 - the SDK's signature
        self._exporter.accept(metrics_data)

    def _wait_for_flush(self, deadline: float) -> bool:
        """Let the thread begin another flush, and wait for its outcome; ``False`` if there is none by the deadline."""
        with self._changed:
            number = self._begun + 1
            self._deadlines.append(deadline)
            self._woken.set()
            self._changed.wait_for(lambda: self._ended >= number, seconds_until(deadline))
            if self._begun < number:
                self._deadlines.remove(deadline)
            return self._delivered >= number

    def _work(self) -> None:
        """Flush when asked and on the interval, until the reader is shut down."""
        begun, is_delivered = -math.inf, True
        while self._ended < math.inf:
            # With jitter: processes that were started together do not call CloudWatch together for ever.
            due = time.monotonic() + self._interval_seconds * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret
            if not is_delivered:
                due = min(due, max(self._exporter.delivery.retry_at, time.monotonic() + 1.0))
            self._pause(begun + self._min_interval_seconds, due)
            begun = time.monotonic()
            is_delivered = self._flush_for_all(begun + self._timeout_seconds)

    def _pause(self, earliest: float, due: float) -> None:
        """Wait until a flush is due, or until one was requested and it is not too early for it."""
        while not self._deadlines and self._exit_deadline is None:
            if not self._woken.wait(seconds_until(min(earliest, due) if self._is_requested else due)):
                return
            self._woken.clear()

    def _flush_for_all(self, deadline: float) -> bool:
        """Flush for all who wait for it, until the latest of their deadlines, and tell them the outcome."""
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
        """Flush in this thread. Until the end, nothing is collected before everything pending is delivered."""
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
    """Log what is raised in the block: callbacks and views of the program run there."""
    try:
        yield
    except Exception:  # the boundary of the thread
        _logger.exception(
            "Collecting metrics for CloudWatch failed; what was not collected is the next time. Mend the callback "
            "or the view that the traceback ends in."
        )


def live_readers() -> list[CloudWatchMetricReader]:
    """All CloudWatch readers of this process that are not shut down."""
    return list(_live_readers)


def readers_on(provider: object) -> list[CloudWatchMetricReader]:
    """The CloudWatch readers of a meter provider that are not shut down, however they were registered."""
    consumer = consumer_of(provider)
    return [] if consumer is None else [reader for reader in tuple(_live_readers) if consumer_of(reader) is consumer]
