"""The Flask extension: ``CloudWatchMetricsReporter``, and how it finds or creates a meter provider and a reader.

Takes an app and its configuration. With ``live_page``, ``commands`` and ``demo``, the only code that knows Flask.
"""
