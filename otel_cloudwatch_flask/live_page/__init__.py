"""A built-in page that shows which metrics the app publishes, whether they are delivered, and what they cost.

``blueprint`` serves the page, its assets and its data. ``page_data`` computes the data from the datums observed
at the exporter (``observations``), the exporter's delivery statistics, and recent log messages (``messages``).
``remedies`` explains failed calls, and ``access`` protects the page.
"""

from otel_cloudwatch_flask.live_page.blueprint import serve_live_page, url_pattern

__all__ = ["serve_live_page", "url_pattern"]
