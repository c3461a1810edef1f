"""An app for `opentelemetry-instrument flask run` that uses add_metric and configures no provider."""

from flask import Flask

from otel_cloudwatch_flask import CloudWatchMetricsReporter

app = Flask("no_code")
reporter = CloudWatchMetricsReporter(app)


@app.get("/")
def index() -> str:
    """Add one order."""
    reporter.add_metric("Orders", 1, "Count")
    return "ordered"
