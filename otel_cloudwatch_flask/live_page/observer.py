"""What one exporter publishes, observed for as long as somebody may want to see it."""

import threading
import weakref
from collections.abc import Callable

from otel_cloudwatch_flask.exporter import CloudWatchMetricExporter
from otel_cloudwatch_flask.live_page.messages import MESSAGES
from otel_cloudwatch_flask.observation import Observation
from otel_cloudwatch_flask.wire import Batch


class Observer:
    """One exporter's record, shared by all apps whose metrics it publishes.

    ``is_wanted`` is asked for each request that CloudWatch accepts: an app may be set to debug after its set-up.
    """

    def __init__(self, exporter: CloudWatchMetricExporter) -> None:
        self.observation = Observation()
        self._wanted: list[Callable[[], bool]] = []
        exporter.watch(self._observe)

    @classmethod
    def of(cls, exporter: CloudWatchMetricExporter) -> "Observer":
        """The one observer of an exporter."""
        with _lock:
            observer = _observers.get(exporter)
            if observer is None:
                observer = _observers[exporter] = cls(exporter)
            return observer

    def serve(self, is_wanted: Callable[[], bool]) -> None:
        """Observe whenever this is true, beside what others want."""
        self._wanted.append(is_wanted)

    def _observe(self, batch: Batch) -> None:
        if any(is_wanted() for is_wanted in self._wanted):
            MESSAGES.attach()
            self.observation.observe(batch)


_lock = threading.Lock()
_observers: "weakref.WeakKeyDictionary[CloudWatchMetricExporter, Observer]" = weakref.WeakKeyDictionary()
