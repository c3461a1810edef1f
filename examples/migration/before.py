"""An app that uses flask-cloudwatch-metric 0.1.7."""

from flask import Flask
from flask_cloudwatch_metric import CloudWatchMetricsReporter
from flask_cloudwatch_metric.decorator import fault_failure_error, request_count

app = Flask(__name__)
metrics_reporter = CloudWatchMetricsReporter(app, "FlaskApplication", "us-east-1")


@app.route("/", endpoint="index")
@request_count(metrics_reporter, "Index")
def index() -> tuple[str, int]:
    metrics_reporter.add_metric(
        metric_name="Visits",
        value=1,
        unit="Count",
        dimensions=[{"Name": "Page", "Value": "Index"}],
    )
    return "Hello\n", 200


@app.route("/teapot", endpoint="teapot")
@fault_failure_error(metrics_reporter, "Teapot")
def teapot() -> tuple[str, int]:
    return "I'm a teapot\n", 418
