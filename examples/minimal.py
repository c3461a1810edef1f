"""Two lines of setup, and add_metric."""

from flask import Flask

from otel_cloudwatch_flask import CloudWatchMetricsReporter

app = Flask(__name__)
metrics = CloudWatchMetricsReporter(app, "Shop")


@app.get("/")
def index() -> str:
    metrics.add_metric("Page Views", 1, "Count", {"Page": "index"})
    with metrics.timer("Render Time"):
        return "Hello\n"
