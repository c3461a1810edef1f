"""Histogram arithmetic, which depends neither on OpenTelemetry nor on the CloudWatch API.

This subpackage converts the buckets, count, sum, minimum and maximum of a data point to at most 150 values with their
counts, which preserve the count, sum, minimum and maximum. Each value lies within the bucket whose samples it
represents.
"""
