"""OpenTelemetry SDK components: the metric exporter, the metric reader, their views and aggregation.

In come the SDK's collections; out go datums, mapped with ``mapping`` and sent with ``delivery`` in the reader's thread,
the only thread of this package. ``internals`` is the only module that uses private names of the SDK.
"""
