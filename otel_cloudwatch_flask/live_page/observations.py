"""Keep an observation for each exporter whose metrics a live page shows."""

import threading
import weakref

from otel_cloudwatch_flask.observation.record import Observation
from otel_cloudwatch_flask.sdk.exporter import CloudWatchMetricExporter


def observation_of(exporter: CloudWatchMetricExporter) -> Observation:
    """Return the observation of ``exporter``, and start the observation on the first call.

    Apps that share an exporter also share its observation, which includes pending metrics.
    """
    with _lock:
        observation = _observations.get(exporter)
        if observation is None:
            observation = _observations[exporter] = Observation()
            exporter.watch_pending(observation.observe_pending)
            exporter.watch(observation.observe)
        return observation


_lock = threading.Lock()
# The keys are weak references, so that an observation is deleted along with its exporter when an app is discarded.
_observations: "weakref.WeakKeyDictionary[CloudWatchMetricExporter, Observation]" = weakref.WeakKeyDictionary()
