"""OpenTelemetry is there already, and sends OTLP to a collector; CloudWatch becomes one more destination."""

from flask import Flask
from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from otel_cloudwatch_flask import CloudWatchMetricsReporter, MetricRule

# What is there already.
provider = MeterProvider(
    metric_readers=[PeriodicExportingMetricReader(OTLPMetricExporter())],
    resource=Resource.create({"service.name": "Shop"}),
)
metrics.set_meter_provider(provider)
app = Flask(__name__)
FlaskInstrumentor().instrument_app(app)
orders = metrics.get_meter("shop").create_counter("shop.orders", unit="{order}")

# What is new: it finds the global provider, and takes the service's name for its namespace.
rules = [MetricRule(match="http.server.*", dimensions=["http.target", "http.route"])]
reporter = CloudWatchMetricsReporter(app, rules=rules)


@app.post("/orders/<payment>")
def order(payment: str) -> str:
    orders.add(1, {"payment": payment})
    reporter.add_metric("Order Value", 12.5, dimensions={"Payment": payment})
    return "Thank you.\n"
