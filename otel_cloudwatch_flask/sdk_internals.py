"""Where this package touches what the OpenTelemetry SDK keeps to itself, each with what happens when it is gone.

Everything else uses the SDK's public interface.
"""

import threading
from typing import Any

from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import Resource


def is_unset(provider: metrics.MeterProvider) -> bool:
    """Whether this is what the API shows as long as nobody has set a provider.

    Gone: ``False``, and a reporter without a provider is a configuration error instead of making one.
    """
    return isinstance(provider, getattr(metrics._internal, "_ProxyMeterProvider", ()))  # noqa: SLF001 - see above


def resource_of(provider: MeterProvider) -> Resource:
    """The resource that a provider shows to exporters only; the namespace must be known before the first export.

    Gone: an empty one, and the namespace is the app's name.
    """
    return getattr(getattr(provider, "_sdk_config", None), "resource", None) or Resource.get_empty()


def consumer_of(provider_or_reader: Any) -> object | None:
    """The object that a provider hands measurements to, and that a reader registered there collects from.

    It tells whether a reader belongs to a provider, however it was registered. Gone: ``None``, and a reader added by
    ``add_metric_reader`` is not recognised as the provider's.
    """
    if isinstance(provider_or_reader, MetricReader):
        return getattr(provider_or_reader._collect, "__self__", None)  # noqa: SLF001 - see above
    return getattr(provider_or_reader, "_measurement_consumer", None)


def exporters_on(provider_or_reader: Any) -> list[object]:
    """What the readers of a provider export to, those of the SDK and ours, however they were registered.

    Gone: none is found, and a CloudWatch exporter that a program adds beside a reporter publishes what that publishes.
    """
    consumer = consumer_of(provider_or_reader)
    # A copy of the references, in one step: a set that another thread adds to cannot be iterated over.
    references = list(getattr(getattr(MeterProvider, "_all_metric_readers", None), "data", ()))
    readers = [reader for reference in references if (reader := reference()) is not None]
    return [getattr(each, "_exporter", None) for each in readers if consumer and consumer_of(each) is consumer]


def forget_measurements(reader: MetricReader) -> None:
    """Drop what was measured for this reader so far: in a forked child, that belongs to the parent.

    The SDK would export it a second time. Its locks may have been held by another thread of the parent, so the one on
    the way is replaced, and the storage with all its locks is made anew. Gone: nothing is dropped.
    """
    consumer: Any = consumer_of(reader)
    if hasattr(consumer, "add_metric_reader") and hasattr(consumer, "_lock"):
        consumer._lock = threading.Lock()  # noqa: SLF001 - see above
        consumer.add_metric_reader(reader)
