"""The Flask extension, ``CloudWatchMetricsReporter``, and the set-up of its meter provider and reader.

In: an app and its configuration. Out: the app's registration, through which ``add_metric`` records and requests flush.
Only this folder, ``live_page``, ``commands`` and ``demo`` import Flask.
"""
