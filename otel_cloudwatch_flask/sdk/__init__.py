"""OpenTelemetry SDK components: the metric exporter, the metric reader, their entry points, and metrics about delivery.

The exporter converts the SDK's metrics to datums with ``mapping``, and sends them with ``delivery``. The reader
collects the metrics, and calls the exporter, in a background thread. Only the module ``internals`` uses private names
of the SDK.
"""
