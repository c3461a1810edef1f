"""Convert a collection of the OpenTelemetry SDK to a list of datums.

Input: ``MetricsData``. Applies rules, temporality and the cost guard, and merges points of the same CloudWatch metric.
Pure: no clock of its own, no network, no threads.
"""
