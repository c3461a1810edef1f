"""Functions without side effects that compute templates, the dashboard body and the cost estimate.

Their arguments are series from a document or from ListMetrics, and their results are numbers, text and
JSON-serializable objects.
"""
