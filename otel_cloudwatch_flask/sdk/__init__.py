"""The plugs of the OpenTelemetry SDK: the metric exporter, the metric reader and their views and aggregation.

The reader owns the only thread of this package: it collects, maps with ``mapping`` and hands the datums to
``delivery``. ``internals`` is the only module that uses private names of the SDK.
"""
