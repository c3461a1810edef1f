"""The observation of each exporter whose metrics a live page shows."""

import threading
import weakref

from otel_cloudwatch_flask.observation.record import Observation
from otel_cloudwatch_flask.sdk.exporter import CloudWatchMetricExporter


def observation_of(exporter: CloudWatchMetricExporter) -> Observation:
    """Return the observation of an exporter, which starts at the first call.

    Apps that share an exporter share its observation.
    """
    with _lock:
        observation = _observations.get(exporter)
        if observation is None:
            observation = _observations[exporter] = Observation()
            exporter.watch(observation.observe)
        return observation


_lock = threading.Lock()
# Weak keys: an observation is dropped with its exporter, so that apps can be created and discarded in one process.
_observations: "weakref.WeakKeyDictionary[CloudWatchMetricExporter, Observation]" = weakref.WeakKeyDictionary()
