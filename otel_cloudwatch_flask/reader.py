"""The reader: collects on its interval and on request, and knows when what was recorded has arrived."""

import logging
import math
import os
import random
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Final

from opentelemetry.sdk.metrics.export import MetricReader, MetricsData

from otel_cloudwatch_flask.config import (
    DEFAULT_EXPORT_INTERVAL_SECONDS,
    DEFAULT_FLUSH_MIN_INTERVAL_SECONDS,
    Settings,
)
from otel_cloudwatch_flask.exporter import TEMPORALITY, CloudWatchMetricExporter, default_aggregation
from otel_cloudwatch_flask.group_commit import GroupCommit
from otel_cloudwatch_flask.process_lifecycle import call_after_fork, call_at_exit
from otel_cloudwatch_flask.sdk_internals import consumer_of, forget_measurements, is_registered

_logger = logging.getLogger(__name__)

EXIT_TIMEOUT_SECONDS: Final = 10.0
"""How long the end of the process waits for CloudWatch; process managers kill after 30 s or so."""

_JITTER: Final = 0.05
_live_readers: weakref.WeakSet["CloudWatchMetricReader"] = weakref.WeakSet()


class CloudWatchMetricReader(MetricReader):
    """Collect metrics for CloudWatch every ``export_interval_seconds``, and whenever somebody asks.

    Without an ``exporter``, one is made of the environment. Requests for a flush are served by a thread of the reader:
    the first at once, then at most one every ``flush_min_interval_seconds``. While CloudWatch does not take what was
    collected before, nothing is collected: deltas keep adding up inside the SDK, so an outage costs time resolution
    and no counts.

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
        settings = Settings.resolve(
            arguments={
                "export_interval_seconds": export_interval_seconds,
                "flush_min_interval_seconds": flush_min_interval_seconds,
            },
            app_config={},
            environ=os.environ,
        )
        self._exporter = exporter or CloudWatchMetricExporter()
        super().__init__(preferred_temporality=TEMPORALITY, preferred_aggregation=default_aggregation())
        self._interval_seconds = settings.export_interval_seconds
        self._min_interval_seconds = settings.flush_min_interval_seconds
        self._timeout_seconds = settings.export_timeout_seconds
        self._is_shut_down = False
        self._is_requested = False
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
            self._requested.set()

    def flush(self, timeout_seconds: float = 10.0) -> bool:
        """Whether all that was recorded before this call is in CloudWatch, within the timeout.

        ``False`` as well if some of it was lost on the way, see ``exporter.stats()``. Calls that come together share
        one collection and its requests.
        """
        lost_before = self._exporter.ledger.lost_in_delivery()
        is_delivered = self._commit.run(time.monotonic() + timeout_seconds)
        return is_delivered and self._exporter.ledger.lost_in_delivery() == lost_before

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """:meth:`flush`, by the name and in the unit that the SDK uses."""
        return self.flush(timeout_millis / 1000)

    def shutdown(self, timeout_millis: float = 30_000, **_kwargs: object) -> None:
        """Flush, and end the reader's thread; further calls do nothing."""
        if self._is_shut_down:
            return
        self._is_shut_down = True
        _live_readers.discard(self)
        self._forget_exit()
        deadline = time.monotonic() + timeout_millis / 1000
        self._last_flush(deadline)
        # The thread has tried as long as that made sense. At the interpreter's end no other thread can be started, so
        # an attempt from here might be one that nobody can stop waiting for.
        self._exporter.shutdown(timeout_millis=0.0)

    def _start(self) -> None:
        """Make everything that belongs to one process, and start its thread."""
        self._commit = GroupCommit(self._collect_and_deliver)
        self._requested = threading.Event()
        self._is_requested = False
        self._stopping = threading.Event()
        self._stopped = threading.Event()
        self._exit_deadline = math.inf
        self._thread = threading.Thread(target=self._work, name="CloudWatchMetricReader", daemon=True)
        self._thread.start()

    def _restart(self) -> None:
        """Start anew in a forked child."""
        if not self._is_shut_down:
            forget_measurements(self)
            self._start()

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_kwargs: Any) -> None:  # noqa: ARG002 - the SDK's signature
        self._exporter.accept(metrics_data)

    def _collect_and_deliver(self, deadline: float) -> bool:
        """One cycle: what waits goes first, and unless it went, nothing is added to it until the end."""
        is_own_thread = threading.current_thread() is self._thread  # for which nobody waits without a deadline
        if not self._stopping.is_set() and not self._exporter.deliver(deadline, may_call_here=is_own_thread):
            return False
        self._collect_now(deadline)
        return self._exporter.deliver(deadline, may_call_here=is_own_thread)

    def _collect_now(self, deadline: float) -> bool:
        if is_registered(self):
            self.collect(timeout_millis=max(deadline - time.monotonic(), 0.001) * 1000)
        return True

    def _work(self) -> None:
        """Flush on request and on the interval, until the reader is shut down."""
        begun = -math.inf
        due = time.monotonic() + self._jittered_interval()
        while not self._stopping.is_set():
            is_requested = self._requested.wait(max(due - time.monotonic(), 0.0))
            if is_requested and not self._stopping.wait(
                max(begun + self._min_interval_seconds - time.monotonic(), 0.0)
            ):
                self._requested.clear()
            # After that: who asks between the two has what he asks for in the flush that begins now.
            self._is_requested = False
            if self._stopping.is_set():
                break
            begun = time.monotonic()
            is_delivered = self._tried(self._commit.run, begun + self._timeout_seconds)
            due = time.monotonic() + self._jittered_interval()
            if not is_delivered:
                due = min(due, max(self._exporter.retry_at, time.monotonic() + 1.0))
        self._tried(self._commit.run, self._exit_deadline)
        self._stopped.set()

    def _jittered_interval(self) -> float:
        """The interval, give or take a little: a fleet that was started together does not call together for ever."""
        return self._interval_seconds * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret

    def _tried(self, work: Callable[[float], bool], deadline: float) -> bool:
        try:
            return work(deadline)
        except Exception:  # the boundary of the thread: callbacks of anybody's run below
            _logger.exception(
                "Collecting metrics for CloudWatch failed; what was not collected is the next time. Mend the callback "
                "or the view that the traceback ends in."
            )
            return False

    def _last_flush(self, deadline: float) -> None:
        """Let the thread flush once more; this one waits no longer than to the deadline, whatever the network does."""
        self._exit_deadline = deadline
        self._stopping.set()
        self._requested.set()
        self._exporter.hurry(deadline)
        if self._exporter.is_calling:
            # The call keeps the thread, perhaps for too long: what is recorded must be on disk, or counted, by then.
            self._tried(self._collect_now, deadline)
        if self._thread.is_alive():
            self._stopped.wait(max(deadline - time.monotonic(), 0.0))
        else:
            self._tried(self._commit.run, deadline)

    def _flush_at_exit(self) -> None:
        self.shutdown(timeout_millis=EXIT_TIMEOUT_SECONDS * 1000)


def live_readers() -> list[CloudWatchMetricReader]:
    """All CloudWatch readers of this process that are not shut down."""
    return list(_live_readers)


def readers_on(provider: object) -> list[CloudWatchMetricReader]:
    """The CloudWatch readers of a meter provider that are not shut down, however they were registered."""
    consumer = consumer_of(provider)
    return [] if consumer is None else [reader for reader in tuple(_live_readers) if consumer_of(reader) is consumer]
