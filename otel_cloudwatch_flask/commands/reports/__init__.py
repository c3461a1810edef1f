"""Functions without side effects that compute the alarm template, the dashboard body and the cost estimate.

They take series from a document or from CloudWatch's ListMetrics, and return numbers and JSON-serializable objects.
"""
