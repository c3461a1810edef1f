"""Compute templates, the dashboard body and the cost estimate from series of a document or of ListMetrics."""
