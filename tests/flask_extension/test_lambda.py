"""AWS Lambda: an invocation's metrics are in CloudWatch when the handler returns, whatever the adapter."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, Response, stream_with_context
from opentelemetry.sdk.metrics import MeterProvider

from otel_cloudwatch_flask import CloudWatchMetricsReporter
from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch
from tests.reliability.cloudwatch import FailingCloudWatch

Handler = Callable[[dict[str, Any], object], dict[str, Any]]


def event(path: str, method: str = "GET") -> dict[str, Any]:
    """Return an API Gateway event (payload format 1.0) for a request without a body."""
    return {
        "version": "1.0",
        "httpMethod": method,
        "path": path,
        "headers": {"Host": "shop.example", "Accept": "*/*"},
        "multiValueHeaders": {"Host": ["shop.example"], "Accept": ["*/*"]},
        "queryStringParameters": {},
        "multiValueQueryStringParameters": {},
        "requestContext": {"stage": "prod", "identity": {"sourceIp": "127.0.0.1"}},
        "body": None,
        "isBase64Encoded": False,
    }


def apig_wsgi(app: Flask) -> Handler:
    """Return the ``apig-wsgi`` adapter, which closes response bodies."""
    handler: Handler = pytest.importorskip("apig_wsgi").make_lambda_handler(app)
    return handler


def serverless_wsgi(app: Flask) -> Handler:
    """Return the ``serverless-wsgi`` adapter, which does not close response bodies."""
    module = pytest.importorskip("serverless_wsgi")
    return lambda event, context: module.handle_request(app, event, context)


def aws_wsgi(app: Flask) -> Handler:
    """Return the ``aws-wsgi`` adapter, which does not close response bodies."""
    module = pytest.importorskip("awsgi")
    return lambda event, context: module.response(app, event, context)


@pytest.fixture
def cloudwatch(monkeypatch: pytest.MonkeyPatch) -> Iterator[FailingCloudWatch]:
    """A local CloudWatch emulator, with the environment variables of a Lambda function set."""
    with FailingCloudWatch() as running:
        monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "shop")
        monkeypatch.setenv("OTEL_EXPORTER_CLOUDWATCH_SYNC_TIMEOUT_SECONDS", "30")
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def app() -> Flask:
    """The function's app."""
    return Flask("shop")


@pytest.fixture
def reporter(
    app: Flask, monkeypatch: pytest.MonkeyPatch, cloudwatch: LocalCloudWatch
) -> Iterator[CloudWatchMetricsReporter]:
    """A reporter whose reader has no thread, because Lambda may freeze background threads at any time."""
    assert cloudwatch.endpoint_url, "the environment must be set before the reporter is created"
    start = threading.Thread.start
    provider = MeterProvider(shutdown_on_exit=False)
    with monkeypatch.context() as frozen:
        frozen.setattr(
            threading.Thread, "start", lambda each: None if each.name == "CloudWatchMetricReader" else start(each)
        )
        reporter = CloudWatchMetricsReporter(app, "Shop", meter_provider=provider, instrument=True)
    yield reporter
    reporter.shutdown(timeout_seconds=1)


@pytest.mark.parametrize("adapter", [apig_wsgi, serverless_wsgi, aws_wsgi])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # raised by the adapters
def test_each_invocation_is_published(
    app: Flask, cloudwatch: LocalCloudWatch, reporter: CloudWatchMetricsReporter, adapter: Callable[[Flask], Handler]
) -> None:
    """When the handler returns, the duration and the metrics of view, stream and on-close functions are sent."""
    closed: list[str] = []

    @app.get("/orders")
    def orders() -> Response:
        reporter.add_metric("Orders", 1, "Count")
        response = Response("ordered", mimetype="text/plain")
        response.call_on_close(lambda: closed.append("orders"))
        response.call_on_close(lambda: reporter.add_metric("Closed", 1, "Count"))
        return response

    @app.get("/stream")
    def stream() -> Response:
        def body() -> Iterator[str]:
            yield "a"
            reporter.add_metric("Streams", 1, "Count")
            yield "b"

        return Response(stream_with_context(body()), mimetype="text/plain")

    handle, published = adapter(app), cloudwatch.published
    for invocation in range(2):
        assert handle(event("/orders"), None)["body"] == "ordered"
        assert (published.sum("Orders"), published.sum("Closed"), len(closed)) == (invocation + 1,) * 3
        assert published.count("http.server.duration") == 3 * invocation + 1
        assert handle(event("/stream"), None)["body"] == "ab"
        assert published.sum("Streams") == invocation + 1
        assert int(handle(event("/nowhere"), None)["statusCode"]) == 404
        assert published.count("http.server.duration") == 3 * invocation + 3
    assert cloudwatch.validation_errors == []


class Context:
    """A Lambda context with one second left."""

    aws_request_id = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds left."""
        return 1000


@pytest.mark.parametrize("adapter", [apig_wsgi, serverless_wsgi, aws_wsgi])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # raised by the adapters
def test_an_invocation_is_not_delayed_beyond_its_end(
    app: Flask, cloudwatch: FailingCloudWatch, adapter: Callable[[Flask], Handler]
) -> None:
    """If CloudWatch does not answer, the handler returns before its invocation times out, and no metric is lost."""
    reporter = CloudWatchMetricsReporter(app, "Shop", meter_provider=MeterProvider(shutdown_on_exit=False))

    @app.get("/orders")
    def orders() -> str:
        reporter.add_metric("Orders", 1, "Count")
        return "ordered"

    handle = adapter(app)
    assert reporter.flush(30), "the reader has a client"
    with cloudwatch.hanging():
        begun = time.monotonic()
        assert handle(event("/orders"), Context())["body"] == "ordered"
        assert 0.8 <= time.monotonic() - begun < 10, "it would wait for 30 seconds"
    assert reporter.flush(30)
    assert cloudwatch.published.sum("Orders") == 1
    reporter.shutdown()
