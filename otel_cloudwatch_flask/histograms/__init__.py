"""Histogram arithmetic: no OpenTelemetry, no CloudWatch API, no state.

Input: the buckets, count, sum, minimum and maximum of a data point. Output: at most 150 values with their counts, which
preserve count, sum, minimum and maximum and keep every value inside the bucket of its samples.
"""
