"""Compute templates, the dashboard body and the cost estimate from the series in a document or from ListMetrics."""
