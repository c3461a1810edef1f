"""Histogram arithmetic, which depends on neither OpenTelemetry nor the CloudWatch API.

This package converts the buckets, count, sum, minimum and maximum of a data point to at most 150 values with counts.
The values preserve the count, sum, minimum and maximum, and each value lies within the range of the buckets whose
samples it represents.
"""
