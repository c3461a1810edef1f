"""The arithmetic of histograms: no OpenTelemetry, no CloudWatch API, no state.

Takes the buckets, count, sum and extremes of a data point. Returns at most 150 values with their counts, which keep
count, sum, minimum and maximum and place every value inside its bucket.
"""
