"""OpenTelemetry metrics in Amazon CloudWatch, and a Flask extension that puts an application's own beside them.

The names below are imported when they are first used: pytest and others that look for plugins import this package in
every program of an environment, and most of those use nothing of it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otel_cloudwatch_flask.delivery.stats import DeliveryStats
    from otel_cloudwatch_flask.flask_extension.reporter import (
        CloudWatchMetricsReporter,
        get_metrics,
        initialize_metrics,
    )
    from otel_cloudwatch_flask.model.rules import MetricRule
    from otel_cloudwatch_flask.sdk.exporter import CloudWatchMetricExporter
    from otel_cloudwatch_flask.sdk.reader import CloudWatchMetricReader

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
    "CloudWatchMetricExporter": "sdk.exporter",
    "CloudWatchMetricReader": "sdk.reader",
    "CloudWatchMetricsReporter": "flask_extension.reporter",
    "DeliveryStats": "delivery.stats",
    "MetricRule": "model.rules",
    "get_metrics": "flask_extension.reporter",
    "initialize_metrics": "flask_extension.reporter",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value  # found there the next time
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
