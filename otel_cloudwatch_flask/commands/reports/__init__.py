"""Functions without side effects that compute the alarm template, the dashboard body and the cost estimate.

They take the series of a document, or those that CloudWatch lists, and return numbers and JSON-serializable objects.
"""
