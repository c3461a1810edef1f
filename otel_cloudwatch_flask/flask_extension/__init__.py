"""The Flask extension, ``CloudWatchMetricsReporter``, and the setup of its meter provider and reader.

Creates a registration from an app and its configuration, through which ``add_metric`` records and requests flush. Only
this folder, ``live_page``, ``commands`` and ``demo`` import Flask.
"""
