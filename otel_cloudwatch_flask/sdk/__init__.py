"""OpenTelemetry SDK components: the metric exporter, the metric reader, their entry points, and metrics about delivery.

The exporter maps each collection from the SDK to datums with ``mapping``, and sends them with ``delivery``. The reader
does this in a background thread. Only the module ``internals`` uses private names of the SDK.
"""
