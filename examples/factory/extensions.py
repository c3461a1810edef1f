from otel_cloudwatch_flask import CloudWatchMetricsReporter

# instrument=True: the duration of every request, too, by route and status.
metrics = CloudWatchMetricsReporter(instrument=True)
