from otel_cloudwatch_flask import CloudWatchMetricsReporter

# instrument=True also records each request's duration by route and status.
metrics = CloudWatchMetricsReporter(instrument=True)
