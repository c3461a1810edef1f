"""An app that already sends OTLP to a collector, and now also sends metrics to CloudWatch."""

from flask import Flask
from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from otel_cloudwatch_flask import CloudWatchMetricsReporter, MetricRule

# Existing code.
provider = MeterProvider(
    metric_readers=[PeriodicExportingMetricReader(OTLPMetricExporter())],
    resource=Resource.create({"service.name": "Shop"}),
)
metrics.set_meter_provider(provider)
app = Flask(__name__)
FlaskInstrumentor().instrument_app(app)
orders = metrics.get_meter("shop").create_counter("shop.orders", unit="{order}")

# New: uses the global provider, and the service name as the namespace.
rules = [MetricRule(match="http.server.*", dimensions=["http.target", "http.route"])]
reporter = CloudWatchMetricsReporter(app, rules=rules)


@app.post("/orders/<payment>")
def order(payment: str) -> str:
    orders.add(1, {"payment": payment})
    reporter.add_metric("Order Value", 12.5, dimensions={"Payment": payment})
    return "Thank you.\n"
