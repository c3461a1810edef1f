"""Measurements of requests that have ended, until they are recorded.

OpenTelemetry takes ten times as long to record a measurement as it takes to keep it, so no request waits for that. They
are recorded before anybody collects from the meter provider: whatever comes of them, it comes as if they had been
recorded at once. Where many come between two collections, a thread of ours records them meanwhile.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from opentelemetry.context import Context, get_current
from opentelemetry.metrics import MeterProvider

from otel_cloudwatch_flask.collection_hook import call_before_collection
from otel_cloudwatch_flask.courier import Courier
from otel_cloudwatch_flask.known_series import Measurement
from otel_cloudwatch_flask.process_lifecycle import call_after_fork

ENOUGH_REQUESTS: Final = 256
"""So many are worth a thread's while: to wake it costs as much as to record some."""
MOST_REQUESTS: Final = 1024
"""If that does not keep up, those that come are as slow as if they recorded themselves."""
MOST_MEASUREMENTS_OF_A_REQUEST: Final = 100
"""A request with more records them itself: memory is bounded, and it is not the fastest anyway."""
_MEASUREMENTS_AT_A_STRETCH: Final = 100
"""After so many, a millisecond's work, other threads have their turn."""

_NO_CONTEXT: Final = Context({"otel_cloudwatch_flask.context": None})
"""For those that had none: an empty one would stand for that of the thread that records, which may be in a span."""

_THREAD_NAME: Final = "CloudWatchRecorder"

RecordAll = Callable[[deque[Measurement], Context], None]


class Deferral:
    """Let measurements be recorded, in the order they came in, each once: soon. Safe to use from several threads.

    ``record_all`` takes them out of a deque, which several threads may do at the same time. In a forked child nothing
    is left of what waited in the parent.
    """

    def __init__(self, provider: MeterProvider, record_all: RecordAll) -> None:
        self._record_all = record_all
        self._is_coming = False
        self._begin()
        call_after_fork(self._begin)
        call_before_collection(provider, self.catch_up)

    def add(self, measurements: deque[Measurement]) -> None:
        """Take over the measurements of a request, with what OpenTelemetry's context says of it.

        They are taken out of the deque: what is added to it meanwhile is recorded, too, and what comes after that needs
        another call.
        """
        self._waiting.append((get_current() or _NO_CONTEXT, measurements))
        waiting = len(self._waiting)
        if waiting >= ENOUGH_REQUESTS:
            if not self._is_coming:
                self._is_coming = True
                self._courier.send(self)
            if waiting >= MOST_REQUESTS:
                self._record_oldest(2)

    def catch_up(self) -> None:
        """Record all that was added before this call, or wait until another thread has."""
        self._is_coming = False
        self._record_oldest(len(self._waiting))

    def _begin(self) -> None:
        """Make what belongs to one process."""
        self._waiting: deque[tuple[Context, deque[Measurement]]] = deque()
        # Held while something is recorded: it is out of the queue then, but cannot be collected yet. The thread that
        # holds it may come again, from the handler of a signal.
        self._recording = threading.RLock()
        self._courier: Courier[Deferral, None] = Courier(Deferral.catch_up, _THREAD_NAME)
        self._is_coming = False

    def _record_oldest(self, requests: int) -> None:
        with self._recording:
            recorded = 0
            for _ in range(requests):
                try:
                    context, measurements = self._waiting.popleft()
                except IndexError:  # another thread was faster
                    return
                recorded += len(measurements)
                self._record_all(measurements, context)
                if recorded >= _MEASUREMENTS_AT_A_STRETCH:
                    recorded = 0
                    time.sleep(0)
