"""A page of the app itself that shows what it publishes: each series, whether it arrives, and what it costs."""

from otel_cloudwatch_flask.live_page.blueprint import serve_live_page, url_pattern

__all__ = ["serve_live_page", "url_pattern"]
