"""Measurements of requests that have ended, until they are recorded.

OpenTelemetry takes ten times as long to record a measurement as it takes to keep it, so no request waits for that. They
are recorded before anybody collects from the meter provider, so that every exporter has them in time. Where many come
between two collections, a thread of ours records them meanwhile.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from opentelemetry.context import Context, get_current
from opentelemetry.metrics import MeterProvider

from otel_cloudwatch_flask.collection_hook import hook_of
from otel_cloudwatch_flask.known_series import Measurement
from otel_cloudwatch_flask.process_lifecycle import call_after_fork

ENOUGH_REQUESTS: Final = 256
"""So many are worth a thread's while: to wake it costs as much as to record some."""
MOST_REQUESTS: Final = 1024
"""If that does not keep up, those that come record themselves."""
MOST_MEASUREMENTS_OF_A_REQUEST: Final = 32
"""A request with more records them itself: memory is bounded, and so is what a collection has to wait for."""
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
        self._hook = hook_of(provider)
        self._begin()
        call_after_fork(self._begin)
        self._hook.add(self._before_collection)

    def add(self, measurements: deque[Measurement]) -> None:
        """Take over the measurements of a request, with what OpenTelemetry's context says of it.

        They are taken out of the deque: what is added to it meanwhile is recorded, too, and what comes after that needs
        another call.
        """
        context = get_current() or _NO_CONTEXT
        waiting = len(self._waiting)
        if waiting >= MOST_REQUESTS:
            self._record_all(measurements, context)
            return
        self._waiting.append((context, measurements))
        self._hook.kept.add(self)
        if waiting + 1 >= ENOUGH_REQUESTS and not self._is_coming:
            self._is_coming = True
            self._wake_thread()

    def catch_up(self) -> None:
        """Record all that was added before this call; what another thread is recording is recorded then, too."""
        self._record_waiting(len(self._waiting), math.inf)

    def catch_up_gently(self) -> None:
        """The same, with pauses in which other threads have their turn."""
        left = len(self._waiting)
        while left > 0:
            left -= self._record_waiting(left, _MEASUREMENTS_AT_A_STRETCH)
            time.sleep(0)  # never with the lock: under gevent, another greenlet would stop the whole thread in it
        self.catch_up()

    def _before_collection(self, is_locked: bool) -> None:  # noqa: FBT001 - the one argument of such methods
        if is_locked:
            self.catch_up()
        else:
            self.catch_up_gently()

    def _begin(self) -> None:
        """Make what belongs to one process."""
        self._waiting: deque[tuple[Context, deque[Measurement]]] = deque()
        # Held while something is recorded: it is out of the queue then, but cannot be collected yet. The thread that
        # holds it may come again, from the handler of a signal.
        self._recording = threading.RLock()
        self._is_coming = False

    def _wake_thread(self) -> None:
        threading.Thread(target=self.catch_up_gently, name=_THREAD_NAME, daemon=True).start()

    def _record_waiting(self, requests: int, measurements_at_most: float) -> int:
        """Record so many requests, or until there were enough measurements; how many requests are done or gone."""
        with self._recording:
            self._is_coming = False
            self._hook.kept.discard(self)  # before looking: whoever adds something is kept again
            recorded, done = 0, 0
            while done < requests and recorded < measurements_at_most:
                try:
                    context, measurements = self._waiting.popleft()
                except IndexError:  # another thread was faster
                    done = requests
                    break
                done += 1
                recorded += len(measurements)
                self._record_all(measurements, context)
            if self._waiting:
                self._hook.kept.add(self)
            return done
