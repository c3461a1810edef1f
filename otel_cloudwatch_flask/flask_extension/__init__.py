"""The Flask extension, ``CloudWatchMetricsReporter``, and the setup of its meter provider and reader.

The reporter has a registration for each app. ``add_metric`` uses the registration to record metrics, and the
registration decides when to flush them. Only this folder, ``live_page`` and ``commands`` import Flask.
"""
