"""Send OpenTelemetry metrics, and the metrics that a Flask app records itself, to Amazon CloudWatch.

Public names are imported on first use. pytest, and other programs that load entry points, import this package wherever
it is installed, and should not have to wait for boto3 and the OpenTelemetry SDK to be imported.
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
    globals()[name] = value  # Python calls __getattr__ only for missing names.
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
