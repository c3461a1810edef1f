"""OpenTelemetry metrics in Amazon CloudWatch, and a Flask extension that puts an application's own beside them.

The names below are imported when they are first used: pytest and others that look for plugins import this package in
every program of an environment, and most of those use nothing of it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otel_cloudwatch_flask.exporter import CloudWatchMetricExporter
    from otel_cloudwatch_flask.extension import CloudWatchMetricsReporter, get_metrics, initialize_metrics
    from otel_cloudwatch_flask.ledger import DeliveryStats
    from otel_cloudwatch_flask.reader import CloudWatchMetricReader
    from otel_cloudwatch_flask.rules import MetricRule

__all__ = [
    "CloudWatchMetricExporter",
    "CloudWatchMetricReader",
    "CloudWatchMetricsReporter",
    "DeliveryStats",
    "MetricRule",
    "get_metrics",
    "initialize_metrics",
]

_MODULES = {
    "CloudWatchMetricExporter": "exporter",
    "CloudWatchMetricReader": "reader",
    "CloudWatchMetricsReporter": "extension",
    "DeliveryStats": "ledger",
    "MetricRule": "rules",
    "get_metrics": "extension",
    "initialize_metrics": "extension",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value  # found there the next time
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
