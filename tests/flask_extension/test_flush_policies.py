"""When a request's metrics reach CloudWatch, by flush policy, over HTTP."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import pytest
from flask import Flask, Response
from opentelemetry.sdk.metrics import MeterProvider
from werkzeug.test import EnvironBuilder

from otel_cloudwatch_flask import CloudWatchMetricsReporter
from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch
from tests.reliability.cloudwatch import FailingCloudWatch


@pytest.fixture
def cloudwatch() -> Iterator[LocalCloudWatch]:
    """A strict CloudWatch emulator on loopback."""
    with LocalCloudWatch() as running:
        yield running


def app_with_reporter(
    cloudwatch: LocalCloudWatch, app: Flask | None = None, **arguments: object
) -> tuple[Flask, CloudWatchMetricsReporter]:
    """Return an app with one route that adds three metrics, and its reporter."""
    app = app or Flask("shop")
    app.config.setdefault("CLOUDWATCH_SYNC_TIMEOUT_SECONDS", 30.0)
    provider = MeterProvider(shutdown_on_exit=False)
    arguments = {"meter_provider": provider, **arguments}
    reporter = CloudWatchMetricsReporter(app, "Shop", cloudwatch.client(), **arguments)  # type: ignore[arg-type]

    @app.get("/")
    def index() -> str:
        reporter.add_metric("Requests", 1, "Count")
        reporter.add_metric("Bytes", 512, "Bytes", {"Page": "index"})
        reporter.add_metric("Balance", -3)
        return "hello"

    return app, reporter


def serve_one_request(app: Flask) -> float:
    """Serve one request as a WSGI server does, through ``close()``, and return the seconds it took."""
    begun = time.perf_counter()
    body = app.wsgi_app(EnvironBuilder().get_environ(), lambda _status, _headers, *_: lambda _data: None)
    assert b"".join(body) == b"hello"
    body.close()  # type: ignore[attr-defined]
    return time.perf_counter() - begun


def test_sync_has_delivered_when_the_body_is_closed(cloudwatch: LocalCloudWatch) -> None:
    """With ``sync``, ``close()`` does not return until CloudWatch has received the request's metrics."""
    app, reporter = app_with_reporter(cloudwatch, flush="sync")
    for served in (1, 2):
        serve_one_request(app)
        assert cloudwatch.published.sum("Requests") == served
        assert cloudwatch.published.sum("Balance") == -3 * served
    reporter.shutdown()


def test_sync_waits_for_its_timeout_only() -> None:
    """With ``sync``, ``close()`` waits for CloudWatch at most ``SYNC_TIMEOUT_SECONDS``; the metrics arrive later."""
    app = Flask("shop")
    app.config["CLOUDWATCH_SYNC_TIMEOUT_SECONDS"] = 0.3
    with FailingCloudWatch() as cloudwatch:
        app, reporter = app_with_reporter(cloudwatch, app, flush="sync")
        with cloudwatch.hanging():
            assert 0.3 <= serve_one_request(app) < 10
        assert reporter.flush(30)
        assert cloudwatch.published.sum("Requests") == 1
        reporter.shutdown()


@pytest.mark.parametrize("buffered", [False, True])
def test_sync_has_delivered_when_the_test_client_returns(*, buffered: bool) -> None:
    """With ``sync``, ``put_metric_data`` has been called once by the time the test client returns the response."""
    client, app = Mock(), Flask("shop")
    reporter = CloudWatchMetricsReporter(app, "Shop", client, meter_provider=MeterProvider(), flush="sync")

    @app.get("/")
    def index() -> Response:
        reporter.add_metric("Requests", 1, "Count")
        response = Response("hello")
        response.call_on_close(lambda: CloudWatchMetricsReporter.add_metric("Closed", 1, "Count"))
        return response

    response = app.test_client().get("/", buffered=buffered)
    client.put_metric_data.assert_called_once()
    names = {datum["MetricName"] for datum in client.put_metric_data.call_args.kwargs["MetricData"]}
    assert names == {"Requests", "Closed"}
    response.close()
    client.put_metric_data.assert_called_once()
    reporter.shutdown()


def test_sync_calls_a_mocked_client_once_for_each_request() -> None:
    """With ``sync``, a client that raises is called once; the next request delivers all metrics in one call."""
    client, app = Mock(), Flask("shop")
    reporter = CloudWatchMetricsReporter(app, "Shop", client, meter_provider=MeterProvider(), flush="sync")

    @app.get("/")
    def index() -> str:
        reporter.add_metric("Requests", 1, "Count")
        return "hello"

    client.put_metric_data = Mock(side_effect=Exception("Mock Failure"))
    app.test_client().get("/")
    client.put_metric_data.assert_called_once()
    client.put_metric_data = Mock(return_value=None)
    app.test_client().get("/")
    client.put_metric_data.assert_called_once()
    assert len(client.put_metric_data.call_args.kwargs["MetricData"]) == 2
    reporter.shutdown()


def test_concurrent_sync_requests_share_their_flushes(cloudwatch: LocalCloudWatch) -> None:
    """With a CloudWatch latency of 300 ms, 16 requests that end at the same time share at most three calls."""
    app, reporter = app_with_reporter(cloudwatch, flush="sync")
    serve_one_request(app)
    cloudwatch.latency_seconds = 0.3
    together = threading.Barrier(16)

    def serve(_: int) -> None:
        together.wait(timeout=10)
        serve_one_request(app)

    begun = time.perf_counter()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(serve, range(16)))
    assert time.perf_counter() - begun < 1.2
    assert cloudwatch.published.sum("Requests") == 17
    assert cloudwatch.traffic.put_requests <= 1 + 3
    cloudwatch.latency_seconds = 0
    reporter.shutdown()


def test_background_requests_do_not_wait_and_share_their_flushes() -> None:
    """200 requests end although CloudWatch does not respond, and share at most four calls."""
    may_answer = threading.Event()
    with LocalCloudWatch(latency_seconds=30, sleep=may_answer.wait) as cloudwatch:
        app, reporter = app_with_reporter(cloudwatch)
        for _ in range(200):
            serve_one_request(app)
        assert cloudwatch.published.metrics() == []
        may_answer.set()
        assert reporter.flush()
        assert cloudwatch.published.sum("Requests") == 200
        assert cloudwatch.published.count("Bytes", Page="index") == 200
        assert cloudwatch.traffic.put_requests <= 4
        reporter.shutdown()


def test_interval_sends_nothing_for_a_request(cloudwatch: LocalCloudWatch) -> None:
    """With ``interval``, the end of a request sends nothing; an explicit flush sends everything."""
    app, reporter = app_with_reporter(cloudwatch, flush="interval")
    for _ in range(50):
        serve_one_request(app)
    assert cloudwatch.traffic.put_requests == 0
    assert reporter.flush()
    assert cloudwatch.published.sum("Requests") == 50
    reporter.shutdown()


def test_two_apps_with_two_clients_each_get_their_own(cloudwatch: LocalCloudWatch) -> None:
    """Two reporters on one provider never publish each other's metrics, and each publishes its own once."""
    provider = MeterProvider(shutdown_on_exit=False)
    with LocalCloudWatch() as other_cloudwatch:
        app, reporter = app_with_reporter(cloudwatch, meter_provider=provider)
        other_app, other_reporter = app_with_reporter(other_cloudwatch, meter_provider=provider)
        for _ in range(3):
            serve_one_request(app)
        serve_one_request(other_app)
        assert reporter.flush()
        assert other_reporter.flush()
        assert cloudwatch.published.sum("Requests") == 3
        assert other_cloudwatch.published.sum("Requests") == 1
        reporter.shutdown()
        other_reporter.shutdown()
