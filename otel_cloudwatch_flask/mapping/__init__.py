"""Convert the OpenTelemetry SDK's ``MetricsData`` to a list of datums.

The conversion applies the rules, converts cumulative data points to deltas, limits the number of series, and merges
data points that belong to the same series. It performs no I/O and starts no threads, and the caller provides the clock.
"""
