"""The request durations that ``instrument=True`` records: requests that raise, and labels of a request."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any

import pytest
from flask import Flask, Response, copy_current_request_context, request
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.metrics import MeterProvider

from otel_cloudwatch_flask import CloudWatchMetricsReporter, MetricRule
from otel_cloudwatch_flask.errors import InvalidMetricError
from otel_cloudwatch_flask.testing import FakeCloudWatch

DURATION = "http.server.duration"
STATUS = MetricRule(dimensions=["http.response.status_code", "http.route", "plan", "otel.metric.overflow"])


@pytest.fixture
def cloudwatch() -> FakeCloudWatch:
    """An empty fake CloudWatch."""
    return FakeCloudWatch()


@pytest.fixture
def app() -> Flask:
    """An app with views that return responses and views that raise."""
    app = Flask("shop")

    @app.get("/")
    def index() -> str:
        return "hello"

    @app.get("/broken")
    def broken() -> str:
        raise KeyError("broken")

    @app.get("/streamed")
    def streamed() -> Iterator[str]:
        yield "a"
        raise KeyError("streamed")

    @app.get("/plan/<plan>")
    def labelled(plan: str) -> str:
        CloudWatchMetricsReporter.add_metric("Views", 1, "Count")
        app.extensions["cloudwatch_metrics"].reporter.label(plan=plan)
        return plan

    return app


@pytest.fixture
def reporter(app: Flask, cloudwatch: FakeCloudWatch) -> Iterator[CloudWatchMetricsReporter]:
    """A reporter that instruments the app and flushes at the end of each request."""
    made = CloudWatchMetricsReporter(
        app,
        "Shop",
        cloudwatch,
        meter_provider=MeterProvider(shutdown_on_exit=False),
        instrument=True,
        flush="sync",
        rules=[STATUS],
    )
    yield made
    made.shutdown()


@pytest.mark.parametrize("config", [{"DEBUG": True}, {"TESTING": True}, {"PROPAGATE_EXCEPTIONS": True}, {}])
def test_a_request_that_raises_is_counted_as_500(
    app: Flask, cloudwatch: FakeCloudWatch, reporter: CloudWatchMetricsReporter, config: dict[str, Any]
) -> None:
    """An exception that Flask re-raises reaches the server, and the request counts with status 500."""
    app.config.update(config)
    client = app.test_client()
    if config:
        for _ in range(16):
            with pytest.raises(KeyError, match="broken"):
                client.get("/broken")
    else:
        assert {client.get("/broken").status_code for _ in range(16)} == {500}
    client.get("/")
    assert cloudwatch.count(DURATION, dimensions={"http.status_code": "500", "http.target": "/broken"}) == 16
    assert cloudwatch.count(DURATION, dimensions={"http.status_code": "200", "http.target": "/"}) == 1
    assert reporter.stats().datums_pending == 0


def test_a_stream_that_raises_keeps_its_status(
    app: Flask, cloudwatch: FakeCloudWatch, reporter: CloudWatchMetricsReporter
) -> None:
    """An exception raised after the response has started is raised; the request counts with the status already sent."""
    app.debug = True
    with pytest.raises(KeyError, match="streamed"):
        app.test_client().get("/streamed", buffered=True)
    assert reporter.flush()
    assert cloudwatch.count(DURATION, dimensions={"http.status_code": "200", "http.target": "/streamed"}) == 1


def test_a_view_that_catches_the_exception_of_another_app(
    app: Flask, cloudwatch: FakeCloudWatch, reporter: CloudWatchMetricsReporter
) -> None:
    """If a view catches an exception of another app that shares its WSGI environment, the view's response counts."""
    outer = Flask("outer")
    CloudWatchMetricsReporter(
        outer, "Shop", cloudwatch, meter_provider=MeterProvider(shutdown_on_exit=False), instrument=True, flush="sync"
    )
    app.debug = True

    @outer.get("/broken")
    def call_app() -> tuple[str, int]:
        with pytest.raises(KeyError, match="broken"):
            app.wsgi_app(request.environ, lambda *_: lambda _: None)
        return "caught", 202

    assert outer.test_client().get("/broken").status_code == 202
    assert reporter.flush()
    assert cloudwatch.count(DURATION, dimensions={"http.status_code": "500", "http.target": "/broken"}) == 1
    assert sum(dict(each.dimensions).get("http.status_code") == "202" for each in cloudwatch.metrics()) == 1


def test_a_view_that_returns_another_app(
    app: Flask, cloudwatch: FakeCloudWatch, reporter: CloudWatchMetricsReporter
) -> None:
    """If a view returns another app, which raises an exception, both apps count a request with status 500."""
    outer = Flask("outer")
    reporter.init_app(outer)
    outer.add_url_rule("/broken", "forward", lambda: app)
    app.debug = outer.debug = True
    with pytest.raises(KeyError, match="broken"):
        outer.test_client().get("/broken")
    assert cloudwatch.count(DURATION, dimensions={"http.status_code": "500", "http.target": "/broken"}) == 2


def test_a_view_that_raises_after_another_app_has_responded(
    app: Flask, cloudwatch: FakeCloudWatch, reporter: CloudWatchMetricsReporter
) -> None:
    """The response of another app that a view has called is not the response of the view's request."""
    outer = Flask("outer")
    reporter.init_app(outer)

    @outer.get("/")
    def view() -> str:
        raise KeyError(Response.from_app(app, request.environ).status_code)

    outer.debug = True
    with pytest.raises(KeyError, match="200"):
        outer.test_client().get("/")
    assert cloudwatch.count(DURATION, dimensions={"http.status_code": "200", "http.target": "/"}) == 1
    assert cloudwatch.count(DURATION, dimensions={"http.status_code": "500", "http.target": "/"}) == 1


def in_thread(function: Callable[[], object]) -> None:
    """Call ``function`` in a thread, and raise its exception."""
    with ThreadPoolExecutor() as pool:
        pool.submit(function).result()


def in_thread_with_context(function: Callable[[], object]) -> None:
    """Call ``function`` in a thread with a copy of the current context, as asyncio does, and raise its exception."""
    in_thread(partial(copy_context().run, function))


@pytest.mark.parametrize("call", [in_thread, in_thread_with_context, lambda function: function()])
def test_a_view_that_catches_an_exception_of_a_copied_context(
    app: Flask,
    cloudwatch: FakeCloudWatch,
    reporter: CloudWatchMetricsReporter,
    call: Callable[[Callable[[], object]], None],
) -> None:
    """If a function with a copy of the request context raises and the view catches it, the view's response counts."""

    def fail() -> None:
        raise KeyError("stock")

    @app.get("/stock")
    def stock() -> tuple[str, int]:
        with pytest.raises(KeyError, match="stock"):
            call(copy_current_request_context(fail))
        return "unknown", 203

    response = app.test_client().get("/stock")
    assert (response.status_code, response.text) == (203, "unknown")
    assert cloudwatch.count(DURATION, dimensions={"http.status_code": "203", "http.target": "/stock"}) == 1
    assert cloudwatch.count(DURATION) == 1
    assert reporter.stats().datums_pending == 0


def test_another_app_that_raises_after_an_exception_of_a_copied_context(
    app: Flask, cloudwatch: FakeCloudWatch, reporter: CloudWatchMetricsReporter
) -> None:
    """A view can handle an exception of a copied context, and then one of an app that is not instrumented."""
    other = Flask("other")
    reporter.init_app(other, instrument=False)
    other.add_url_rule("/calls", "fail", app.view_functions["broken"])
    other.debug = True

    @app.get("/calls")
    def view() -> str:
        with pytest.raises(KeyError, match="broken"):
            copy_current_request_context(app.view_functions["broken"])()
        with pytest.raises(KeyError, match="broken"):
            Response.from_app(other, request.environ)
        return "handled"

    assert app.test_client().get("/calls").text == "handled"
    assert cloudwatch.count(DURATION, dimensions={"http.status_code": "200", "http.target": "/calls"}) == 1


def test_a_middleware_that_responds_to_exceptions(app: Flask, cloudwatch: FakeCloudWatch) -> None:
    """A middleware inside the reporter's, such as an error page, may respond to the exceptions that Flask re-raises."""
    application = app.wsgi_app

    def responding(environ: Any, start_response: Any) -> Iterable[bytes]:
        try:
            return application(environ, start_response)
        except KeyError:
            start_response("503 Service Unavailable", [("Content-Type", "text/plain")])
            return [b"sorry"]

    app.wsgi_app = responding  # type: ignore[method-assign]
    app.testing = True
    provider = MeterProvider(shutdown_on_exit=False)
    reporter = CloudWatchMetricsReporter(app, "Shop", cloudwatch, meter_provider=provider, instrument=True)
    response = app.test_client().get("/broken")
    assert (response.status_code, response.text) == (503, "sorry")
    reporter.shutdown()


@pytest.mark.parametrize("again", [False, True])
def test_an_app_that_is_uninstrumented(app: Flask, reporter: CloudWatchMetricsReporter, *, again: bool) -> None:
    """If the program removes the instrumentation, or replaces it with its own, exceptions still reach the server."""
    assert reporter.flush(), "the app is instrumented"
    FlaskInstrumentor().uninstrument_app(app)  # type: ignore[no-untyped-call]
    if again:
        FlaskInstrumentor().instrument_app(app)  # type: ignore[no-untyped-call]
    app.testing = True
    with pytest.raises(KeyError, match="broken"):
        app.test_client().get("/broken")


def test_labels(app: Flask, cloudwatch: FakeCloudWatch, reporter: CloudWatchMetricsReporter) -> None:
    """Labels are dimensions of this request's duration only, not of its other metrics or of other requests."""
    reporter.label(plan="outside")
    client = app.test_client()
    for path in ("/plan/pro", "/", "/plan/free", "/plan/pro"):
        assert client.get(path).status_code == 200
    route = {"http.status_code": "200", "http.target": "/plan/<plan>"}
    assert cloudwatch.count(DURATION, dimensions={**route, "plan": "pro"}) == 2
    assert cloudwatch.count(DURATION, dimensions={**route, "plan": "free"}) == 1
    assert cloudwatch.count(DURATION, dimensions={"http.status_code": "200", "http.target": "/"}) == 1
    assert cloudwatch.count("Views", dimensions={}) == 3
    assert cloudwatch.count(DURATION) == 4


def test_labels_of_a_request_within_another(
    app: Flask, cloudwatch: FakeCloudWatch, reporter: CloudWatchMetricsReporter
) -> None:
    """A request that a view sends to an app in this process leaves the labels of the view's own request unchanged."""

    @app.get("/outer/<plan>")
    def outer(plan: str) -> str:
        reporter.label(plan=plan)
        return app.test_client().get("/plan/inner").text

    assert app.test_client().get("/outer/pro").text == "inner"
    for route, plan in (("/plan/<plan>", "inner"), ("/outer/<plan>", "pro")):
        dimensions = {"http.status_code": "200", "http.target": route, "plan": plan}
        assert cloudwatch.count(DURATION, dimensions=dimensions) == 1


def test_labels_are_bounded(app: Flask, cloudwatch: FakeCloudWatch) -> None:
    """If every request has a new label, memory and the number of metrics stay within the limit of ``max_metrics``."""
    app.config["CLOUDWATCH_MAX_METRICS"] = 12
    provider = MeterProvider(shutdown_on_exit=False)
    reporter = CloudWatchMetricsReporter(
        app, "Shop", cloudwatch, meter_provider=provider, instrument=True, flush="interval", rules=[STATUS]
    )
    client = app.test_client()
    for number in range(300):
        client.get(f"/plan/{number}")
    assert reporter.flush()
    assert cloudwatch.count(DURATION) == 300
    assert len(cloudwatch.metrics()) <= 12
    reporter.shutdown()


def test_invalid_labels(app: Flask, cloudwatch: FakeCloudWatch, reporter: CloudWatchMetricsReporter) -> None:
    """An invalid label raises an error in tests; in production, the response and the duration are unaffected."""

    @app.get("/invalid")
    def invalid() -> str:
        reporter.label(plan=["pro"])
        return "hello"

    assert app.test_client().get("/invalid").status_code == 200
    assert cloudwatch.count(DURATION, dimensions={"http.status_code": "200", "http.target": "/invalid"}) == 1
    assert reporter.stats().measurements_lost == {"invalid": 1}
    app.testing = True
    with pytest.raises(InvalidMetricError, match="plan"):
        app.test_client().get("/invalid")
