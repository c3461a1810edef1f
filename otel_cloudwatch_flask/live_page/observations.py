"""The record of what an exporter publishes, one for each exporter."""

import threading
import weakref

from otel_cloudwatch_flask.observation.record import Observation
from otel_cloudwatch_flask.sdk.exporter import CloudWatchMetricExporter


def observation_of(exporter: CloudWatchMetricExporter) -> Observation:
    """The exporter's record, which begins with the first call; apps that share an exporter share its record."""
    with _lock:
        observation = _observations.get(exporter)
        if observation is None:
            observation = _observations[exporter] = Observation()
            exporter.watch(observation.observe)
        return observation


_lock = threading.Lock()
_observations: "weakref.WeakKeyDictionary[CloudWatchMetricExporter, Observation]" = weakref.WeakKeyDictionary()
