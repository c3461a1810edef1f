"""Functions without side effects that compute the alarm template, the dashboard body and the cost estimate.

Their arguments are series that were read from a document or from CloudWatch's ListMetrics, and their results are
numbers and JSON-serializable objects.
"""
