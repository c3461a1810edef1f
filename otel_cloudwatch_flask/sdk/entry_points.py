"""The entry points that the OpenTelemetry SDK calls for ``OTEL_METRICS_EXPORTER`` and for its configuration file."""

import os
import sys
from typing import Any

from opentelemetry.sdk.environment_variables import OTEL_CONFIG_FILE
from opentelemetry.sdk.metrics.export import MetricExporter, MetricReader

from otel_cloudwatch_flask.config import use_configuration_file
from otel_cloudwatch_flask.sdk.exporter import CloudWatchMetricExporter
from otel_cloudwatch_flask.sdk.reader import CloudWatchMetricReader


class CloudWatchComponent(MetricReader):
    """The factory behind ``cloudwatch`` in ``OTEL_METRICS_EXPORTER``, and under ``periodic`` in a configuration file.

    The SDK calls the same class for both. For the variable, it accepts a reader, which a reporter can share. For the
    file, it needs an exporter, because it creates the reader itself.
    """

    def __new__(cls, **fields: Any) -> "MetricReader | MetricExporter":  # type: ignore[misc]  # a factory, see above
        """Create a reader or, for a configuration file, an exporter with ``fields`` as its settings."""
        if not (fields or os.environ.get(OTEL_CONFIG_FILE) or "opentelemetry.configuration" in sys.modules):
            return CloudWatchMetricReader()
        use_configuration_file(fields)
        return CloudWatchMetricExporter()


def pull_reader(**fields: Any) -> CloudWatchMetricReader:
    """Create a reader for ``cloudwatch`` under ``pull`` in a configuration file, with ``fields`` as its settings."""
    use_configuration_file(fields)
    return CloudWatchMetricReader()
