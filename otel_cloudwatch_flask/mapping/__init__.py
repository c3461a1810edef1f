"""Convert the OpenTelemetry SDK's ``MetricsData`` to a list of datums.

The conversion applies the rules, converts cumulative data points to deltas, limits the number of series, and merges
data points that belong to the same series. Apart from logging, it performs no I/O, and it starts no threads.
"""
