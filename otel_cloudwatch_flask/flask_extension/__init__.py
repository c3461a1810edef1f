"""The Flask extension, ``CloudWatchMetricsReporter``, and the setup of its meter provider and reader.

Creates a registration from an app and its configuration, which ``add_metric`` uses to record metrics, and which flushes
them after requests. Only this folder, ``live_page``, ``commands`` and ``demo`` import Flask.
"""
