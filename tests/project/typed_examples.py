"""Calls of the public functions, as programs make them. Type checkers check this module; it is not run."""

from typing import TYPE_CHECKING

import boto3
from flask import Flask
from opentelemetry.sdk.metrics import MeterProvider

from otel_cloudwatch_flask import (
    CloudWatchMetricExporter,
    CloudWatchMetricReader,
    CloudWatchMetricsReporter,
    MetricRule,
    get_metrics,
    initialize_metrics,
)
from otel_cloudwatch_flask.decorator import fault_failure_error, request_count
from otel_cloudwatch_flask.testing import FakeCloudWatch

if TYPE_CHECKING:
    from typing_extensions import assert_type


class OwnClient:
    """A client written by the program itself."""

    def put_metric_data(self, **request: object) -> dict[str, object]:
        """Return an empty response."""
        return request


app = Flask("shop")
reporter = CloudWatchMetricsReporter(app, "Shop", boto3.client("cloudwatch"), flush="sync")
CloudWatchMetricsReporter(app, "Shop", boto3.Session().client("cloudwatch", region_name="eu-central-1"))
CloudWatchMetricsReporter(app, "Shop", "eu-central-1", rules=[MetricRule(drop=True), {"match": "http.*"}])
CloudWatchMetricsReporter(app, cloudwatch_client=FakeCloudWatch())
CloudWatchMetricsReporter().init_app(app, "Shop", cloudwatch_client=OwnClient(), instrument=True)
initialize_metrics(app, "Shop", "eu-central-1")
exporter = CloudWatchMetricExporter("Shop", client=boto3.client("cloudwatch"))
MeterProvider(metric_readers=[CloudWatchMetricReader(exporter)])


def record(unit: str, dimensions: dict[str, str]) -> None:
    """Record metrics with units and dimensions in every form."""
    reporter.add_metric("Orders", 1)
    reporter.add_metric("Orders", 1.5, "Count", {"Payment": "card", "Items": 3})
    reporter.add_metric(metric_name="Orders", value=1, unit=unit, dimensions=dimensions)
    reporter.add_metric("Orders", 1, "Count", [{"Name": "Payment", "Value": "card"}])
    CloudWatchMetricsReporter.add_metric("Orders", True, unit="Milliseconds", dimensions=None)  # noqa: FBT003 - a bool is a number
    get_metrics().add_metric("Orders", 1, "Bytes/Second")
    reporter.add_metric(1, "Orders")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    reporter.add_metric("Orders", value=1, units="Count")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


@app.get("/cart/<int:number>")
@request_count(reporter, "Cart")
@fault_failure_error(metrics_reporter=reporter, resource_name="Cart")
def cart(number: int) -> str:
    """A decorated view keeps its signature."""
    return str(number)


@reporter.timer("Render", {"Page": "index"})
async def render(page: str) -> int:
    """A timed coroutine function keeps its signature."""
    with reporter.timer("Query"):
        return len(page)


if TYPE_CHECKING:
    assert_type(cart(1), str)
    assert_type(reporter.flush(5), bool)
    assert_type(reporter.stats().datums_lost.get("refused", 0), int)
    assert_type(exporter.stats().datums_sent, int)
