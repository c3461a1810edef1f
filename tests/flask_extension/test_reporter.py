"""The Flask extension, from ``add_metric`` in a real app to the requests that a fake CloudWatch receives."""

import asyncio
import gc
import io
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from unittest import mock

import pytest
from flask import Blueprint, Flask, Response, copy_current_request_context, current_app, send_file, stream_with_context
from flask import request as flask_request
from opentelemetry import trace
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from werkzeug.test import EnvironBuilder

from otel_cloudwatch_flask import (
    CloudWatchMetricExporter,
    CloudWatchMetricReader,
    CloudWatchMetricsReporter,
    DeliveryStats,
    MetricRule,
    get_metrics,
    initialize_metrics,
)
from otel_cloudwatch_flask.errors import ConfigurationError, InvalidMetricError
from otel_cloudwatch_flask.flask_extension import reporter as reporter_module
from otel_cloudwatch_flask.runtime.live_objects import LiveObjects
from otel_cloudwatch_flask.sdk.reader import readers_on
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch
from tests.support.fakes import eventually


class Programs:
    """Create reporters and providers as a program would, and shut them down after the test."""

    def __init__(self) -> None:
        self._reporters: list[CloudWatchMetricsReporter] = []
        self._readers: list[CloudWatchMetricReader] = []

    def provider(self, *readers: CloudWatchMetricReader, service: str = "unknown_service") -> MeterProvider:
        """Return a provider that is not the global one."""
        self._readers += readers
        return MeterProvider(readers, Resource({"service.name": service}), shutdown_on_exit=False)

    def reporter(
        self, app: Flask | None, namespace: str | None = "Shop", client: Any = None, **options: Any
    ) -> CloudWatchMetricsReporter:
        """Return a reporter, by default on its own provider."""
        options.setdefault("meter_provider", self.provider())
        reporter = CloudWatchMetricsReporter(app, namespace, client, **options)
        self._reporters.append(reporter)
        return reporter

    def end(self) -> None:
        """Shut everything down."""
        for reporter in self._reporters:
            reporter.shutdown(timeout_seconds=1)
        for reader in self._readers:
            reader.shutdown(timeout_millis=1000)


@pytest.fixture
def programs() -> Iterator[Programs]:
    """A program whose reporters and providers are shut down after the test."""
    programs = Programs()
    yield programs
    programs.end()


@pytest.fixture
def cloudwatch() -> FakeCloudWatch:
    """An in-memory fake CloudWatch."""
    return FakeCloudWatch()


@pytest.fixture
def app() -> Flask:
    """An app whose only route adds a metric through the class."""
    app = Flask("shop")
    app.add_url_rule("/", view_func=add_order, endpoint="order")
    return app


def add_order() -> str:
    """Add 1 to ``Orders``."""
    CloudWatchMetricsReporter.add_metric("Orders", 1, "Count")
    return "ordered"


def get(app: Flask, path: str = "/", method: str = "GET") -> int:
    """Request a path, close the response as a server does, and return the status."""
    return app.test_client().open(path, method=method, buffered=True).status_code


# Requests.


def test_a_program_for_the_predecessor(programs: Programs, cloudwatch: FakeCloudWatch) -> None:
    """The predecessor's positional constructor and keyword ``add_metric`` publish through the given client."""
    app = Flask("shop")
    reporter = programs.reporter(app, "FlaskApplication", cloudwatch)

    @app.route("/")
    def index() -> tuple[str, int]:
        reporter.add_metric(
            metric_name="Request Count",
            value=1,
            unit="Count",
            dimensions=[{"Name": "Page", "Value": "Index"}],
        )
        return "Hello world", 200

    assert get(app) == 200
    assert reporter.flush()
    [metric] = cloudwatch.metrics()
    assert str(metric) == "FlaskApplication: Request Count {Page=Index} in Count"
    assert cloudwatch.sum("Request Count", Page="Index") == 1


def test_a_request_without_metrics_meets_little_in_flask(
    programs: Programs, app: Flask, cloudwatch: FakeCloudWatch
) -> None:
    """A request without metrics runs one app-context teardown function of this package and no request hooks."""
    programs.reporter(app, client=cloudwatch)
    assert get(app) == 200
    assert not app.before_request_funcs
    assert not app.after_request_funcs
    assert not app.teardown_request_funcs
    assert len(app.teardown_appcontext_funcs) == 1


def test_a_body_that_nobody_closes(programs: Programs, app: Flask, cloudwatch: FakeCloudWatch) -> None:
    """Metrics added before the response starts and by an unclosed body are recorded."""
    reporter = programs.reporter(app, client=cloudwatch, flush="interval")

    @app.get("/stream")
    def stream() -> Response:
        def body() -> Iterator[str]:
            yield add_order()
            add_order()

        add_order()
        return Response(stream_with_context(body()))

    body = app(EnvironBuilder(path="/stream").get_environ(), lambda *_: lambda _: None)
    assert reporter.flush()
    assert cloudwatch.sum("Orders") in (1, 2)  # some versions of Flask start the body at once to capture its context
    assert list(body)
    assert reporter.flush()
    assert cloudwatch.sum("Orders") == 3


def test_contexts_that_no_server_made(programs: Programs, app: Flask, cloudwatch: FakeCloudWatch) -> None:
    """Metrics added in request contexts of tests and scripts are recorded."""
    reporter = programs.reporter(app, client=cloudwatch, flush="interval")
    for number in range(1, 4):
        with app.test_request_context("/"):
            add_order()
            assert get_metrics() is reporter
        assert reporter.flush()
        assert cloudwatch.sum("Orders") == number
    assert get(app) == 200
    assert reporter.flush()
    assert cloudwatch.sum("Orders") == 4


def test_the_last_teardown_of_an_app_within_another(programs: Programs, app: Flask, cloudwatch: FakeCloudWatch) -> None:
    """A metric added by a teardown function that runs after the reporter's own is recorded."""
    inner = Flask("inner")

    @inner.teardown_appcontext
    def add(_error: BaseException | None) -> None:
        add_order()

    reporter = programs.reporter(inner, client=cloudwatch, flush="interval")
    with app.test_request_context("/"), inner.test_request_context("/"):
        pass
    assert reporter.flush()
    assert cloudwatch.sum("Orders") == 1


@pytest.mark.skipif("TRUSTED_HOSTS" not in Flask("shop").config, reason="this Flask has no TRUSTED_HOSTS")
def test_a_host_that_is_not_trusted(programs: Programs, app: Flask, cloudwatch: FakeCloudWatch) -> None:
    """An untrusted host gets a 400 response from the app's error handler, and the request is measured."""
    app.config["TRUSTED_HOSTS"] = ["shop.example"]
    torn_down: list[object] = []
    app.teardown_request(torn_down.append)
    app.register_error_handler(400, lambda _error: ("whose host?", 400))
    reporter = programs.reporter(app, client=cloudwatch, flush="interval", instrument=True)
    client = app.test_client()
    assert client.get("/", headers={"Host": "shop.example"}, buffered=True).text == "ordered"
    answer = client.get("/", headers={"Host": "evil.example"}, buffered=True)
    assert (answer.status_code, answer.text) == (400, "whose host?")
    assert len(torn_down) == 2
    assert reporter.flush()
    assert cloudwatch.count("http.server.duration") == 2


class Globals:
    """A custom ``g`` class without the methods of Flask's class."""


class SlottedGlobals:
    """A class for ``g`` that can hold only the app's own attributes."""

    __slots__ = ("user",)


@pytest.mark.parametrize("globals_class", [Globals, SlottedGlobals])
def test_an_app_with_globals_of_its_own(
    programs: Programs, app: Flask, cloudwatch: FakeCloudWatch, globals_class: type
) -> None:
    """With a custom ``g`` class, metrics are recorded in requests, test contexts and app contexts."""
    app.app_ctx_globals_class = globals_class  # type: ignore[assignment]  # Flask's own tests do so
    reporter = programs.reporter(app, client=cloudwatch, flush="interval")
    assert get(app) == 200
    with app.test_request_context("/"):
        add_order()
        assert reporter.flush()
    with app.app_context():
        add_order()
    assert reporter.flush()
    assert cloudwatch.sum("Orders") == 3


def test_contexts_within_one_call_of_a_server(programs: Programs, app: Flask, cloudwatch: FakeCloudWatch) -> None:
    """Metrics added in a WebSocket's per-message request contexts do not wait until the connection closes."""
    reporter = programs.reporter(app, client=cloudwatch, flush="interval")
    seen: list[float] = []

    @app.get("/socket")
    def socket() -> str:
        environ = flask_request.environ
        for _ in range(50):
            with app.request_context(environ):
                add_order()
        assert reporter.flush()
        seen.append(cloudwatch.sum("Orders"))
        add_order()
        return "closed"

    assert get(app, "/socket") == 200
    assert seen == [50]
    assert reporter.flush()
    assert cloudwatch.sum("Orders") == 51


def test_an_app_that_is_forgotten(programs: Programs, cloudwatch: FakeCloudWatch) -> None:
    """Metrics of a garbage-collected app are still published by the reader, which outlives it."""
    reader = CloudWatchMetricReader(CloudWatchMetricExporter("Shop", client=cloudwatch), export_interval_seconds=1e6)
    provider = programs.provider(reader)
    app = Flask("forgotten")
    app.add_url_rule("/", view_func=add_order, endpoint="order")
    CloudWatchMetricsReporter(app, meter_provider=provider, flush="interval")
    for _ in range(5):
        assert get(app) == 200
    del app
    gc.collect()
    assert reader.flush()
    assert cloudwatch.sum("Orders") == 5


def test_sync_waits_until_the_data_is_in(programs: Programs, app: Flask, cloudwatch: FakeCloudWatch) -> None:
    """With flush="sync", a request's metrics reach CloudWatch when its streamed response closes, and not before."""
    reporter = programs.reporter(app, client=cloudwatch, flush="sync")

    @app.get("/stream")
    def stream() -> Iterator[str]:
        reporter.add_metric("Streams", 1, "Count")
        yield from "ab"

    response = app.test_client().get("/stream")
    assert not cloudwatch.requests
    response.close()
    assert cloudwatch.sum("Streams") == 1


def test_interval_leaves_requests_alone(programs: Programs, app: Flask, cloudwatch: FakeCloudWatch) -> None:
    """With flush="interval", the end of a request does not trigger a flush."""
    reporter = programs.reporter(app, client=cloudwatch, flush="interval", export_interval_seconds=3600)
    for _ in range(3):
        get(app)
    assert not cloudwatch.requests
    assert reporter.flush()
    assert cloudwatch.sum("Orders") == 3


class SignallingCloudWatch(FakeCloudWatch):
    """A fake CloudWatch that lets a test wait for the next request."""

    def __init__(self) -> None:
        super().__init__()
        self.was_called = threading.Event()

    def put_metric_data(self, **request: Any) -> dict[str, Any]:
        """Store the request and wake the waiting test."""
        stored = super().put_metric_data(**request)
        self.was_called.set()
        return stored


def test_background_flushes_soon(programs: Programs, app: Flask) -> None:
    """By default, the end of a request triggers a flush without waiting for it."""
    cloudwatch = SignallingCloudWatch()
    programs.reporter(app, client=cloudwatch, export_interval_seconds=3600)
    get(app)
    assert cloudwatch.was_called.wait(timeout=10)
    assert cloudwatch.sum("Orders") == 1


def test_a_failing_client_never_reaches_the_response(
    programs: Programs, app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception raised by the client never affects the response; the metric is kept and retried."""
    cloudwatch = FakeCloudWatch()
    cloudwatch.fail_next(RuntimeError("boom"))
    reporter = programs.reporter(app, client=cloudwatch, flush="sync", strict=False)
    with caplog.at_level(logging.CRITICAL):
        assert get(app) == 200
    assert reporter.stats().requests_failed == 1
    assert reporter.flush()
    assert (reporter.stats().requests_failed, cloudwatch.sum("Orders")) == (1, 1)


def instrument(app: Flask, provider: MeterProvider) -> None:
    """Instrument an app as its program would."""
    FlaskInstrumentor().instrument_app(app, meter_provider=provider)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("order", ["instrumented before", "instrumented by us", "instrumented after"])
def test_the_request_s_own_duration_is_in_its_flush(
    programs: Programs, app: Flask, cloudwatch: FakeCloudWatch, order: str
) -> None:
    """The request's own duration is in the flush at its end, whether the app is instrumented before or after setup."""
    provider = programs.provider()
    if order == "instrumented before":
        instrument(app, provider)
    instruments_itself = order != "instrumented after"
    programs.reporter(app, client=cloudwatch, meter_provider=provider, flush="sync", instrument=instruments_itself)
    if order == "instrumented after":
        instrument(app, provider)
    get(app)
    durations = [datum for datum in cloudwatch.datums if datum["MetricName"] == "http.server.duration"]
    assert [sum(datum.get("Counts", [1])) for datum in durations] == [1]
    assert cloudwatch.sum("Orders") == 1


def test_exemplars_have_the_span_of_the_request(programs: Programs, app: Flask, cloudwatch: FakeCloudWatch) -> None:
    """Exemplars refer to the request's span, although FlaskInstrumentor detaches it before the request ends."""
    others = InMemoryMetricReader()
    spans: list[int] = []
    provider = MeterProvider([others], shutdown_on_exit=False)
    instrumentor: Any = FlaskInstrumentor()
    instrumentor.instrument_app(app, meter_provider=provider, tracer_provider=TracerProvider())
    programs.reporter(app, client=cloudwatch, meter_provider=provider, flush="interval")

    @app.get("/traced")
    def traced() -> str:
        spans.append(trace.get_current_span().get_span_context().span_id)
        return add_order()

    assert get(app, "/traced") == 200
    data = others.get_metrics_data()
    assert data is not None
    metrics = [metric for scope in data.resource_metrics[0].scope_metrics for metric in scope.metrics]
    (point,) = [point for metric in metrics if metric.name == "orders" for point in metric.data.data_points]
    assert [exemplar.span_id for exemplar in point.exemplars] == spans != [0]


class WatchedProvider(MeterProvider):
    """A provider that records the instruments created on its meters."""

    def __init__(self) -> None:
        super().__init__(shutdown_on_exit=False)
        self.made: list[str] = []

    def get_meter(self, *args: Any, **kwargs: Any) -> Any:
        """Return a meter that records the instruments created on it."""
        meter = super().get_meter(*args, **kwargs)
        for kind in ("counter", "histogram", "gauge", "observable_counter", "observable_gauge"):
            vars(meter).setdefault(f"create_{kind}", self._noting(getattr(meter, f"create_{kind}")))
        return meter

    def _noting(self, create: Callable[..., Any]) -> Callable[..., Any]:
        def noting(name: str, *args: Any, **kwargs: Any) -> Any:
            self.made.append(f"{create.__name__} {name}")
            return create(name, *args, **kwargs)

        return noting


def test_a_provider_has_no_instruments_but_the_facades(
    programs: Programs, app: Flask, cloudwatch: FakeCloudWatch
) -> None:
    """The program's other exporters see one histogram per metric and no other instruments."""
    provider = WatchedProvider()
    reporter = programs.reporter(app, client=cloudwatch, meter_provider=provider)
    assert get(app) == 200
    reporter.add_metric("Late", 1)
    assert reporter.flush()
    assert provider.made == ["create_histogram orders", "create_histogram late"]


# Kinds of requests: each adds 1 to Orders, and every test expects exactly 1.


def _streamed(app: Flask) -> None:
    @app.route("/")
    def view() -> Response:
        def body() -> Iterator[str]:
            yield "a"
            add_order()
            yield "b"

        return Response(stream_with_context(body()))


def _streamed_after_adding(app: Flask) -> None:
    @app.route("/")
    def view() -> Response:
        add_order()
        return Response(stream_with_context(iter("ab")))


def _file(app: Flask) -> None:
    @app.route("/")
    def view() -> Response:
        add_order()
        return send_file(io.BytesIO(b"file"), download_name="file.txt")


def _error(app: Flask) -> None:
    @app.route("/")
    def view() -> str:
        add_order()
        raise KeyError


def _error_before(app: Flask) -> None:
    @app.before_request
    def fail() -> None:
        add_order()
        raise KeyError


def _error_handler(app: Flask) -> None:
    @app.errorhandler(KeyError)
    def handle(_error: KeyError) -> tuple[str, int]:
        return add_order(), 418

    @app.route("/")
    def view() -> str:
        raise KeyError


def _not_found(app: Flask) -> None:
    app.register_error_handler(404, lambda _error: (add_order(), 404))


def _after_request(app: Flask) -> None:
    @app.after_request
    def add(response: Response) -> Response:
        add_order()
        return response


def _teardown(app: Flask) -> None:
    @app.teardown_request
    def add(_error: object) -> None:
        add_order()


def _late_teardown(app: Flask) -> None:
    @app.teardown_appcontext
    def add(_error: object) -> None:
        add_order()


def _broken_teardown(app: Flask) -> None:
    app.add_url_rule("/", view_func=add_order)

    @app.teardown_appcontext
    def fail(_error: object) -> None:
        raise KeyError


def _nested_context(app: Flask) -> None:
    @app.route("/")
    def view() -> str:
        with app.app_context():
            return add_order()


def _nested_context_and_broken_teardown(app: Flask) -> None:
    _nested_context(app)

    @app.teardown_request
    def fail(_error: object) -> None:
        raise KeyError


def _thread(app: Flask) -> None:
    @app.route("/")
    def view() -> str:
        thread = threading.Thread(target=copy_current_request_context(add_order))
        thread.start()
        thread.join()
        return "ordered"


def _async(app: Flask) -> None:
    @app.route("/")
    async def view() -> str:
        await asyncio.sleep(0)
        return add_order()


def _blueprint(app: Flask) -> None:
    blueprint = Blueprint("orders", __name__)
    blueprint.add_url_rule("/", view_func=add_order)
    app.register_blueprint(blueprint)


def _copied_environment(app: Flask) -> None:
    _broken_teardown(app)
    inner = app.wsgi_app
    app.wsgi_app = lambda environ, start_response: inner(dict(environ), start_response)  # type: ignore[method-assign]


KINDS: list[Callable[[Flask], None]] = [
    _streamed,
    _streamed_after_adding,
    _file,
    _error,
    _error_before,
    _error_handler,
    _not_found,
    _after_request,
    _teardown,
    _late_teardown,
    _broken_teardown,
    _nested_context,
    _nested_context_and_broken_teardown,
    _thread,
    _async,
    _blueprint,
    _copied_environment,
]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("is_set_up_first", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_each_metric_arrives_once(
    programs: Programs, cloudwatch: FakeCloudWatch, kind: Callable[[Flask], None], method: str, *, is_set_up_first: bool
) -> None:
    """Each request's metric arrives exactly once, when it ends, whatever its kind or outcome."""
    app = Flask("shop")
    if is_set_up_first:
        programs.reporter(app, client=cloudwatch, flush="sync")
    kind(app)
    if not is_set_up_first:
        programs.reporter(app, client=cloudwatch, flush="sync")
    try:
        get(app, method=method)
    except KeyError:
        # the server handles an exception raised by a teardown function
        assert "broken" in kind.__name__ or "copied" in kind.__name__
    is_body_wanted = method == "GET" or kind is not _streamed
    assert cloudwatch.count("Orders") == (1 if is_body_wanted else 0)


def test_an_aborted_client(programs: Programs, cloudwatch: FakeCloudWatch) -> None:
    """A stream closed halfway publishes the metrics added until then."""
    app = Flask("shop")
    programs.reporter(app, client=cloudwatch, flush="sync")

    @app.route("/")
    def view() -> Response:
        def body() -> Iterator[str]:
            while True:
                yield add_order()

        return Response(stream_with_context(body()))

    response = app.test_client().get("/")
    chunks = response.iter_encoded()
    assert [next(chunks), next(chunks)] == [b"ordered", b"ordered"]
    response.close()
    assert cloudwatch.sum("Orders") == 2


# Files sent by the server.


class FileWrapper:
    """A server's file wrapper, like gunicorn's."""

    def __init__(self, file: io.BytesIO, _block_size: int = 8192) -> None:
        self.file = file
        self.close = file.close

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.file)


class SlottedFileWrapper(FileWrapper):
    """A file wrapper whose ``close`` cannot be replaced."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        if name in vars(self):
            raise AttributeError(name)
        super().__setattr__(name, value)


@pytest.mark.parametrize(
    ("file_wrapper", "wrapped_class", "is_flushed_before_close"),
    [
        (FileWrapper, FileWrapper, False),
        (SlottedFileWrapper, SlottedFileWrapper, True),
        (lambda file, _size: file, io.BytesIO, False),  # like uWSGI's
    ],
)
def test_files_stay_the_server_s(
    programs: Programs,
    cloudwatch: FakeCloudWatch,
    file_wrapper: Any,
    wrapped_class: type,
    *,
    is_flushed_before_close: bool,
) -> None:
    """The server gets its own file wrapper back, so it can use sendfile; closing the wrapper triggers the flush."""
    app = Flask("shop")
    programs.reporter(app, client=cloudwatch, flush="sync")
    _file(app)
    environ = EnvironBuilder().get_environ()
    environ["wsgi.file_wrapper"] = file_wrapper
    body = app(environ, lambda *_: lambda _: None)
    assert type(body) is wrapped_class
    assert bool(cloudwatch.requests) is is_flushed_before_close
    body.close()  # type: ignore[attr-defined]
    assert cloudwatch.sum("Orders") == 1


# Outside requests.


def test_outside_of_a_request(programs: Programs, cloudwatch: FakeCloudWatch) -> None:
    """Metrics from a thread, a command or a bare app context are recorded immediately."""
    app = Flask("shop")
    reporter = programs.reporter(app, client=cloudwatch)
    app.cli.command("order")(add_order)
    thread = threading.Thread(target=add_order)
    thread.start()
    thread.join()
    app.test_cli_runner().invoke(args=["order"])
    with app.app_context():
        add_order()
        assert reporter.flush()
        assert cloudwatch.sum("Orders") == 3


def test_flush_inside_a_request(programs: Programs, cloudwatch: FakeCloudWatch) -> None:
    """A flush within a request sends the metrics added so far, and the end of the request does not resend them."""
    app = Flask("shop")
    reporter = programs.reporter(app, client=cloudwatch, flush="sync")
    seen: list[float] = []

    @app.route("/")
    def view() -> str:
        add_order()
        assert reporter.flush()
        seen.append(cloudwatch.sum("Orders"))
        return "ordered"

    get(app)
    assert [*seen, cloudwatch.sum("Orders")] == [1, 1]


def test_a_first_metric_in_a_streamed_body(programs: Programs, cloudwatch: FakeCloudWatch) -> None:
    """If only the response body adds metrics, a flush elsewhere sends them while the body is still being read."""
    app = Flask("shop")
    reporter = programs.reporter(app, client=cloudwatch, flush="interval")
    seen: list[float] = []

    @app.route("/")
    def view() -> Response:
        def body() -> Iterator[str]:
            yield add_order()
            with ThreadPoolExecutor() as pool:
                assert pool.submit(reporter.flush).result()
            seen.append(cloudwatch.sum("Orders"))

        return Response(stream_with_context(body()))

    assert get(app) == 200
    assert seen == [1]


def test_a_first_metric_in_a_thread_that_outlives_the_request(programs: Programs, cloudwatch: FakeCloudWatch) -> None:
    """After a request, a flush sends a metric that a thread with the request's context adds, although it still runs."""
    app = Flask("shop")
    reporter = programs.reporter(app, client=cloudwatch, flush="interval")
    has_responded, has_added, has_flushed = threading.Event(), threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    @app.route("/")
    def view() -> str:
        @copy_current_request_context
        def work() -> None:
            has_responded.wait(60)
            add_order()
            has_added.set()
            has_flushed.wait(60)

        threads.append(threading.Thread(target=work))
        threads[0].start()
        return "started"

    assert get(app) == 200
    has_responded.set()
    assert has_added.wait(60)
    assert reporter.flush()
    assert cloudwatch.sum("Orders") == 1
    has_flushed.set()
    threads[0].join()


def test_the_class_means_the_latest_reporter_outside(programs: Programs) -> None:
    """Outside an app context, the class represents the most recently initialized reporter that is still running."""
    first, last = FakeCloudWatch(), FakeCloudWatch()
    reporters = [programs.reporter(Flask("shop"), client=each) for each in (first, last)]
    add_order()
    reporters[1].shutdown()
    add_order()
    reporters[0].shutdown()
    assert (first.sum("Orders"), last.sum("Orders")) == (1, 1)


def test_add_metric_can_be_patched(programs: Programs, app: Flask) -> None:
    """``unittest.mock`` patches ``add_metric`` with ``autospec``, as it does the predecessor's."""
    reporter = programs.reporter(app)
    with mock.patch.object(CloudWatchMetricsReporter, "add_metric", autospec=True) as patched:
        assert get(app) == 200
        reporter.add_metric("Carts", 2)
    assert patched.mock_calls == [mock.call("Orders", 1, "Count"), mock.call("Carts", 2)]


def test_no_reporter() -> None:
    """Without a reporter, ``add_metric`` raises nothing and logs one warning that the metric is dropped."""
    program = """
        import logging, sys
        from flask import Flask
        from otel_cloudwatch_flask import CloudWatchMetricsReporter
        logging.basicConfig(stream=sys.stdout, format="%(message)s")
        CloudWatchMetricsReporter.add_metric("Orders", 1)
        with Flask("shop").app_context():
            CloudWatchMetricsReporter.add_metric("Orders", 1)
    """
    said = run(program)
    assert said == (
        "Metric dropped: no CloudWatchMetricsReporter was found. Call init_app(app) first, or call add_metric on a "
        "reporter."
    )


# Multiple apps.


def test_each_client_gets_its_own_app_s_metrics(programs: Programs) -> None:
    """With two apps and clients on one provider, each client gets its app's metrics; other metrics are sent once."""
    provider = programs.provider()
    clients = FakeCloudWatch(), FakeCloudWatch()
    apps = [Flask("shop"), Flask("shop")]
    reporters = [
        programs.reporter(app, client=client, meter_provider=provider)
        for app, client in zip(apps, clients, strict=True)
    ]
    for number, app in enumerate(apps, start=1):
        with app.test_request_context():
            for _ in range(number):
                add_order()
    provider.get_meter("plain").create_counter("plain").add(5)
    assert all(reporter.flush() for reporter in reporters)
    assert [client.sum("Orders") for client in clients] == [1, 2]
    assert [client.sum("plain") for client in clients] == [5, 0]


def test_one_reporter_for_two_apps(programs: Programs, cloudwatch: FakeCloudWatch) -> None:
    """One reporter serves several apps, each with its own configuration, and ``flush()`` covers all."""
    reporter = programs.reporter(None, None, cloudwatch)
    apps = [Flask("shop"), Flask("cafe")]
    for app in apps:
        app.config["CLOUDWATCH_NAMESPACE"] = app.name.title()
        app.add_url_rule("/", view_func=add_order)
        reporter.init_app(app)
        get(app)
    assert reporter.flush()
    totals = {name: cloudwatch.sum("Orders", namespace=name) for name in ("Shop", "Cafe")}
    assert totals == {"Shop": 1, "Cafe": 1}
    assert reporter.stats().datums_sent == 2


def test_an_application_factory(programs: Programs, cloudwatch: FakeCloudWatch) -> None:
    """Calls of an app factory share one reader and lose no metric; after a shutdown, a new reader is created."""
    provider = programs.provider()
    reporter = programs.reporter(None, client=cloudwatch, meter_provider=provider)
    apps = [Flask("shop") for _ in range(5)]
    for app in apps:
        app.add_url_rule("/", view_func=add_order)
        reporter.init_app(app)
        get(app)
    assert len(readers_on(provider)) == 1
    assert reporter.flush()
    assert cloudwatch.sum("Orders") == 5
    reporter.shutdown()
    reporter.init_app(Flask("shop"))
    add_order()
    assert reporter.flush()
    assert cloudwatch.sum("Orders") == 6


def test_an_app_of_somebody_else(programs: Programs) -> None:
    """A reporter used within another reporter's app still publishes to its own client."""
    own, other = FakeCloudWatch(), FakeCloudWatch()
    reporter = programs.reporter(Flask("shop"), client=own)
    other_app = Flask("cafe")
    programs.reporter(other_app, client=other, flush="sync")

    @other_app.route("/")
    def view() -> str:
        reporter.add_metric("Coffees", 1)
        return add_order()

    get(other_app)
    assert reporter.flush()
    assert (own.sum("Coffees"), other.sum("Orders")) == (1, 1)
    assert (own.sum("Orders"), other.sum("Coffees")) == (0, 0)


# Existing readers.


def plain_reader(client: FakeCloudWatch) -> CloudWatchMetricReader:
    """Return a reader as created by the OpenTelemetry entry point."""
    return CloudWatchMetricReader(CloudWatchMetricExporter("Plain", client=client))


def test_a_reader_is_shared(programs: Programs, app: Flask, cloudwatch: FakeCloudWatch) -> None:
    """A reporter without a destination publishes through the existing reader, which survives the reporter."""
    reader = plain_reader(cloudwatch)
    provider = programs.provider(reader)
    reporter = programs.reporter(app, None, meter_provider=provider, flush="sync")
    provider.get_meter("plain").create_counter("plain").add(5)
    get(app)
    assert readers_on(provider) == [reader]
    assert [cloudwatch.sum(name, namespace="Plain") for name in ("Orders", "plain")] == [1, 5]
    reporter.shutdown()
    provider.get_meter("plain").create_counter("plain").add(1)
    assert reader.flush()
    assert cloudwatch.sum("plain") == 6


def test_a_reader_of_its_own(programs: Programs, app: Flask, cloudwatch: FakeCloudWatch) -> None:
    """A reporter with its own client has its own reader; the existing reader keeps all other metrics."""
    own = FakeCloudWatch()
    provider = programs.provider(plain_reader(cloudwatch))
    programs.reporter(app, client=own, meter_provider=provider)
    provider.get_meter("plain").create_counter("plain").add(5)
    get(app)
    assert all(reader.flush() for reader in readers_on(provider))
    assert [own.sum(name) for name in ("Orders", "plain")] == [1, 0]
    assert [cloudwatch.sum(name) for name in ("Orders", "plain")] == [0, 5]


@pytest.mark.parametrize(
    ("options", "config", "readers"),
    [
        ({}, {}, 1),
        ({"flush": "sync", "default_dimensions": {"Stage": "test"}, "strict": True, "instrument": True}, {}, 1),
        ({}, {"CLOUDWATCH_FLUSH": "sync"}, 1),
        ({"namespace": "Shop"}, {}, 2),
        ({"client": FakeCloudWatch()}, {}, 2),
        ({"rules": [MetricRule()]}, {}, 2),
        ({"export_interval_seconds": 30.0}, {}, 2),
        ({}, {"CLOUDWATCH_REGION": "eu-west-3"}, 2),
        ({}, {"CLOUDWATCH_MAX_METRICS": 10}, 2),
        ({}, {"CLOUDWATCH_DRY_RUN": True}, 2),
        ({}, {"CLOUDWATCH_EXPORT_TIMEOUT_SECONDS": 5}, 2),
    ],
)
def test_what_makes_a_reader_of_its_own(
    programs: Programs, app: Flask, options: dict[str, Any], config: dict[str, Any], readers: int
) -> None:
    """A reporter shares the existing reader unless an option or setting says where or how to publish."""
    provider = programs.provider(plain_reader(FakeCloudWatch()))
    app.config.update(config)
    programs.reporter(app, **{"namespace": None, "meter_provider": provider, **options})
    assert len(readers_on(provider)) == readers


def test_shutdown_removes_the_reporter_s_reader(programs: Programs, app: Flask, cloudwatch: FakeCloudWatch) -> None:
    """``shutdown()`` flushes, removes the reporter's reader, and can be called again."""
    provider = programs.provider()
    reporter = programs.reporter(app, client=cloudwatch, meter_provider=provider, flush="interval")
    get(app)
    reporter.shutdown()
    reporter.shutdown()
    assert cloudwatch.sum("Orders") == 1
    assert readers_on(provider) == []
    assert get(app) == 200


# Invalid metrics.


def test_strict_in_debug_and_tests(programs: Programs, cloudwatch: FakeCloudWatch) -> None:
    """An invalid metric raises in debug mode and in tests, even if the mode is enabled after setup."""
    for attribute in ("debug", "testing"):
        app = Flask("shop")
        reporter = programs.reporter(app, client=cloudwatch)
        reporter.add_metric("Orders", "many")  # type: ignore[arg-type]
        setattr(app, attribute, True)
        with pytest.raises(InvalidMetricError, match="the value 'many' is a str; pass a number"):
            reporter.add_metric("Orders", "many")  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [{"strict": True}, {"config": True}])
def test_strict_by_choice(programs: Programs, cloudwatch: FakeCloudWatch, given: dict[str, Any]) -> None:
    """An explicit ``strict`` argument or setting makes invalid metrics raise outside debug mode and tests."""
    app = Flask("shop")
    app.config["CLOUDWATCH_STRICT"] = given.pop("config", None)
    reporter = programs.reporter(app, client=cloudwatch, **given)
    with pytest.raises(InvalidMetricError):
        reporter.add_metric("Orders", 1, "furlong")


def test_a_bad_metric_is_counted(programs: Programs, app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """In production, an invalid metric is counted, and logged once per call site."""
    reporter = programs.reporter(app, client=FakeCloudWatch(), strict=False)
    for _ in range(5):
        reporter.add_metric("Orders", float("nan"))
        CloudWatchMetricsReporter.add_metric("", 1)
    with reporter.timer("\n"):
        pass
    assert reporter.stats().measurements_lost == {"invalid": 11}
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 3
    assert "metric 'Orders': the value nan is not a finite number" in messages[0]
    assert all(os.path.basename(__file__) in message for message in messages)  # noqa: PTH119 - text, not a path


# Timers.


def test_timer(programs: Programs, cloudwatch: FakeCloudWatch) -> None:
    """Blocks, functions and coroutine functions are timed in milliseconds, even if they raise."""
    reporter = programs.reporter(Flask("shop"), client=cloudwatch)

    @reporter.timer("Time", {"What": "function"})
    def function(number: int) -> int:
        """Return the inverse."""
        return 1 // number

    @reporter.timer("Time", [{"Name": "What", "Value": "coroutine"}])
    async def coroutine(number: int) -> int:
        await asyncio.sleep(0)
        return 1 // number

    with reporter.timer("Time", {"What": "block"}):
        assert (function(1), asyncio.run(coroutine(1))) == (1, 1)
    with pytest.raises(ZeroDivisionError):
        function(0)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(coroutine(0))
    assert (function.__name__, function.__doc__) == ("function", "Return the inverse.")
    assert reporter.flush()
    assert {metric.unit for metric in cloudwatch.metrics()} == {"Milliseconds"}
    assert [cloudwatch.count("Time", What=what) for what in ("block", "function", "coroutine")] == [1, 2, 2]


# Setup.


def test_a_second_reporter_is_refused(programs: Programs, app: Flask, cloudwatch: FakeCloudWatch) -> None:
    """A second reporter for an app is rejected with a message that gives the alternative."""
    reporter = programs.reporter(app, client=cloudwatch)
    for set_up in (reporter.init_app, CloudWatchMetricsReporter):
        with pytest.raises(
            ConfigurationError, match=r"app 'shop' already has a CloudWatchMetricsReporter; call init_app once per app"
        ):
            set_up(app)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"client": 7}, "The client 7 has no put_metric_data method; pass boto3.client"),
        ({"flush": "often"}, "flush='often' is not a flush policy; use one of 'background', 'sync', 'interval'."),
        ({"namespace": "AWS/Shop"}, "namespace='AWS/Shop' is reserved"),
        (
            {"meter_provider": NoOpMeterProvider()},
            "does not accept metric readers; use an opentelemetry.sdk.metrics.Meter",
        ),
        ({"rules": [{}, {"dimension": ["Route"]}]}, "rules[1] has the unknown field 'dimension'"),
        ({"rules": [{"distribution": "mean"}]}, "rules[0]: distribution='mean' is invalid; use"),
        ({"export_interval_seconds": 0}, "export_interval_seconds=0 is not a positive duration"),
    ],
)
def test_refused_set_up(programs: Programs, app: Flask, options: dict[str, Any], message: str) -> None:
    """Invalid settings are rejected at setup; the message contains the value, its source and the allowed values."""
    with pytest.raises(ConfigurationError) as caught:
        programs.reporter(app, **options)
    assert message in str(caught.value)
    assert "cloudwatch_metrics" not in app.extensions


def test_a_provider_that_is_shut_down(programs: Programs, app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """A provider that has been shut down is rejected."""
    provider = programs.provider()
    provider.shutdown()
    with (
        caplog.at_level(logging.CRITICAL),
        pytest.raises(ConfigurationError, match="is shut down; use one that is running"),
    ):
        programs.reporter(app, meter_provider=provider)


@pytest.mark.parametrize(
    ("service", "namespace"), [("cart", "cart"), ("unknown_service", "shop"), ("unknown_service:python", "shop")]
)
def test_namespace_of_last_resort(
    programs: Programs, app: Flask, caplog: pytest.LogCaptureFixture, service: str, namespace: str
) -> None:
    """The namespace defaults to the service name, or else to the app name with a single warning."""
    cloudwatch, provider = FakeCloudWatch(), programs.provider(service=service)
    programs.reporter(app, None, cloudwatch, meter_provider=provider, flush="sync")
    get(app)
    get(app)
    assert [metric.namespace for metric in cloudwatch.metrics()] == [namespace]
    warnings = [record for record in caplog.records if "No CloudWatch namespace is configured" in record.getMessage()]
    assert len(warnings) == (namespace == "shop")


def test_a_service_name_that_is_no_namespace(
    programs: Programs, app: Flask, cloudwatch: FakeCloudWatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An invalid namespace from the provider's service name is corrected, with one warning that names the result."""
    reporter = programs.reporter(app, None, cloudwatch, meter_provider=programs.provider(service="AWS/cart"))
    for _ in range(2):
        get(app)
        assert reporter.flush()
    assert [metric.namespace for metric in cloudwatch.metrics()] == ["_AWS/cart"]
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning == (
        "The default CloudWatch namespace is invalid, so '_AWS/cart' is used instead. To choose another, pass "
        "namespace=\"...\". The error: service.name='AWS/cart', the default CloudWatch namespace, is reserved for "
        "AWS's own services; use a name that does not start with 'AWS/'."
    )


@pytest.mark.parametrize(
    ("app_name", "service", "message"),
    [
        (
            "shop",
            "AWS/cart",
            "ConfigurationError service.name='AWS/cart', the default CloudWatch namespace, is reserved",
        ),
        ("AWS/shop", "", "ConfigurationError app.name='AWS/shop', the default CloudWatch namespace, is reserved"),
        ("AWS/shop", "cart", "cart"),
    ],
)
def test_a_name_that_is_no_namespace(app_name: str, service: str, message: str) -> None:
    """If the reporter creates the provider, an invalid default namespace is rejected at setup."""
    program = f"""
        from flask import Flask
        from otel_cloudwatch_flask import CloudWatchMetricsReporter
        from otel_cloudwatch_flask.errors import ConfigurationError
        from otel_cloudwatch_flask.testing.fake import FakeCloudWatch
        try:
            reporter = CloudWatchMetricsReporter(Flask({app_name!r}), cloudwatch_client=FakeCloudWatch())
        except ConfigurationError as error:
            print("ConfigurationError", error)
        else:
            print(reporter._registrations[0].exporter.settings.namespace)
    """
    assert run(program, OTEL_SERVICE_NAME=service).startswith(message)


def test_a_misspelt_key(programs: Programs, app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """A misspelled key is ignored, and the log suggests the correct spelling."""
    app.config["CLOUDWATCH_NAMESPAEC"] = "Shop"
    programs.reporter(app)
    assert "Unknown setting CLOUDWATCH_NAMESPAEC is ignored; did you mean CLOUDWATCH_NAMESPACE?" in caplog.text


def test_default_dimensions_and_rules(programs: Programs, app: Flask, cloudwatch: FakeCloudWatch) -> None:
    """Default dimensions apply to every facade metric, and rules match its name as written."""
    app.config["CLOUDWATCH_DEFAULT_DIMENSIONS"] = "Stage=prod"
    rules = [{"match": "Orders", "rollups": [()]}]
    programs.reporter(app, client=cloudwatch, flush="sync", rules=rules)
    get(app)
    assert [dict(metric.dimensions) for metric in cloudwatch.metrics()] in (
        [{"Stage": "prod"}, {}],
        [{}, {"Stage": "prod"}],
    )


@pytest.mark.parametrize(("interval_seconds", "timeout_seconds"), [(1000, 900), (500, 500)])
def test_the_timeout_of_an_app(  # noqa: PLR0917
    programs: Programs,
    app: Flask,
    cloudwatch: FakeCloudWatch,
    monkeypatch: pytest.MonkeyPatch,
    interval_seconds: int,
    timeout_seconds: int,
) -> None:
    """Background flushes use the configured timeout, but end before the next collection is due."""
    deadlines: list[float] = []

    def deliver(_exporter: CloudWatchMetricExporter, deadline: float, **_: bool) -> bool:
        deadlines.append(deadline - time.monotonic())
        return True

    monkeypatch.setattr(CloudWatchMetricExporter, "deliver", deliver)
    app.config["CLOUDWATCH_EXPORT_TIMEOUT_SECONDS"] = 900
    app.config["CLOUDWATCH_EXPORT_INTERVAL_SECONDS"] = interval_seconds
    programs.reporter(app, client=cloudwatch)
    get(app)
    assert eventually(lambda: deadlines)
    assert timeout_seconds - 100 < deadlines[0] <= timeout_seconds


def test_disabled(programs: Programs, app: Flask, cloudwatch: FakeCloudWatch) -> None:
    """With ENABLED=false, calls succeed, the program's provider is unchanged, and nothing is sent."""
    app.config["CLOUDWATCH_ENABLED"] = "false"
    provider = programs.provider()
    reporter = programs.reporter(app, client=cloudwatch, meter_provider=provider, flush="sync", strict=True)
    assert get(app) == 200
    with pytest.raises(InvalidMetricError):
        reporter.add_metric("Orders", 1, "furlong")
    assert reporter.flush()
    assert reporter.stats() == DeliveryStats()
    assert readers_on(provider) == []
    reporter.shutdown()
    assert not cloudwatch.requests


# Module-level functions.


def test_get_metrics(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    """``get_metrics()`` returns the current app's reporter, or the only one, or raises an error with the remedy."""
    monkeypatch.setattr(reporter_module, "_live_reporters", LiveObjects())  # hide other reporters
    app, other = Flask("shop"), Flask("cafe")
    reporter = programs.reporter(app)
    assert get_metrics() is reporter
    second = programs.reporter(other)
    with other.app_context():
        assert get_metrics() is second
    with app.test_request_context():
        assert get_metrics() is reporter
    with pytest.raises(ConfigurationError, match=r"exactly one initialized reporter, but there are 2\. Call"):
        get_metrics()
    with Flask("bare").app_context(), pytest.raises(ConfigurationError, match=r"'bare' has no .*; call initialize_"):
        get_metrics()


class Aws(HTTPServer):
    """An HTTP server that stores the Authorization headers of its requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _AwsHandler)
        self.authorizations: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Return the server's endpoint URL."""
        return f"http://127.0.0.1:{self.server_port}"


class _AwsHandler(BaseHTTPRequestHandler):
    server: Aws

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.authorizations.append(self.headers["Authorization"])
        self.send_response(200)
        self.send_header("x-amzn-RequestId", "b7a1")
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def run(program: str, **environ: str) -> str:
    """Run a program in its own process, where it may set the global provider, and return its output."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "AWS_"))}
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", textwrap.dedent(program)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**inherited, **environ}, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_initialize_metrics_with_credentials() -> None:
    """The predecessor's functions create a client with the given Region and credentials on first use."""
    program = """
        import sys
        from flask import Flask
        from otel_cloudwatch_flask import get_metrics, initialize_metrics
        app = Flask("shop")
        with app.app_context():
            initialize_metrics(app, "Shop", "eu-west-3", "AKIDEXAMPLE", "secret")
        @app.route("/")
        def view():
            get_metrics().add_metric("Orders", 1, "Count", [])
            return "boto3" if "boto3" in sys.modules else "ordered"
        print(app.test_client().get("/").text, get_metrics().flush(), get_metrics().stats().datums_sent)
    """
    aws = Aws()
    try:
        assert run(program, AWS_ENDPOINT_URL_CLOUDWATCH=aws.url) == "ordered True 1"
    finally:
        aws.shutdown()
        aws.server_close()
    [authorization] = aws.authorizations
    assert "Credential=AKIDEXAMPLE/" in authorization
    assert "/eu-west-3/" in authorization


GLOBAL_PROVIDER = """
    from flask import Flask
    from opentelemetry import metrics
    from otel_cloudwatch_flask import CloudWatchMetricsReporter
    from otel_cloudwatch_flask.testing.fake import FakeCloudWatch
    early = metrics.get_meter("plain").create_counter("early")
    app, cloudwatch = Flask("shop"), FakeCloudWatch()
    reporter = CloudWatchMetricsReporter(app, "Shop", cloudwatch)
    early.add(2)
    metrics.get_meter("plain").create_counter("late").add(3)
    reporter.add_metric("Orders", 1)
    print(type(metrics.get_meter_provider()).__module__, reporter.flush())
    print({metric.name: cloudwatch.sum(metric.name) for metric in cloudwatch.metrics()})
"""


def test_a_global_provider_is_made() -> None:
    """Without a global provider, the reporter creates one, which also serves instruments created earlier."""
    printed = run(GLOBAL_PROVIDER).splitlines()
    assert printed[0] == "opentelemetry.sdk.metrics._internal True"
    assert printed[1] == "{'early': 2.0, 'late': 3.0, 'Orders': 1.0}"


def test_otel_sdk_disabled() -> None:
    """With OTEL_SDK_DISABLED=true, the program runs, creates no provider and sends nothing."""
    assert run(GLOBAL_PROVIDER, OTEL_SDK_DISABLED="true").splitlines() == ["opentelemetry.metrics._internal True", "{}"]


def test_the_end_of_a_program() -> None:
    """The last measurements are sent at program exit."""
    program = """
        from flask import Flask
        from otel_cloudwatch_flask import CloudWatchMetricsReporter
        class Client:
            def put_metric_data(self, **request):
                print(request["Namespace"], [datum["MetricName"] for datum in request["MetricData"]])
        CloudWatchMetricsReporter(Flask("shop"), "Shop", Client()).add_metric("Orders", 1)
    """
    assert run(program) == "Shop ['Orders']"


@pytest.mark.parametrize("initialize", [initialize_metrics, CloudWatchMetricsReporter.new_reporter])
def test_initialize_metrics_twice(programs: Programs, app: Flask, initialize: Callable[..., Any]) -> None:
    """``initialize_metrics`` and ``new_reporter`` reject a second reporter for an app."""
    programs.reporter(app)
    with pytest.raises(ConfigurationError, match="already"):
        initialize(app, "Shop", "eu-west-3")


def test_the_constructor_of_the_predecessors_releases(programs: Programs) -> None:
    """The constructor accepts the Region as its third argument, as in releases up to 0.1.7."""
    reporter = programs.reporter(Flask("shop"), client="eu-west-3")
    assert reporter._options["region_name"] == "eu-west-3"


def test_current_app_is_an_app(programs: Programs, app: Flask, cloudwatch: FakeCloudWatch) -> None:
    """``current_app`` can be passed as the app within an app context."""
    reporter = programs.reporter(None, client=cloudwatch)
    with app.app_context():
        reporter.init_app(current_app)
    app.add_url_rule("/", view_func=add_order)
    get(app)
    assert reporter.flush()
    assert cloudwatch.sum("Orders") == 1


def test_after_the_shutdown_what_comes_is_counted_as_lost(
    programs: Programs, app: Flask, cloudwatch: FakeCloudWatch
) -> None:
    """Metrics added after ``shutdown()`` are counted as lost, and ``flush()`` returns False."""
    reporter = programs.reporter(app, client=cloudwatch)
    reporter.shutdown()
    add_order()
    reporter.add_metric("Late", 1)
    assert not reporter.flush()
    assert reporter.stats().measurements_lost["shutdown"] >= 1


def test_a_process_forked_in_a_request_sends_nothing_of_the_requests(
    programs: Programs, app: Flask, cloudwatch: FakeCloudWatch
) -> None:
    """A forked child discards the request's buffer, which the parent sends, and records its own metrics immediately."""
    reporter = programs.reporter(app, client=cloudwatch, meter_provider=programs.provider())

    @app.get("/fork")
    def fork() -> str:
        reporter.add_metric("FromParent", 1)
        child = os.fork()
        if child == 0:
            reporter.add_metric("FromChild", 1)
            flushed = reporter.flush()
            names = {metric.name for metric in cloudwatch.metrics()}
            os._exit(0 if flushed and names == {"FromChild"} else 1)
        return str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    with app.test_client() as client, client.get("/fork") as response:
        assert response.get_data(as_text=True) == "0"
    assert reporter.flush()
    assert {metric.name for metric in cloudwatch.metrics()} == {"FromParent"}


class Unspeakable:
    """An object whose ``repr()`` raises."""

    def __repr__(self) -> str:
        raise RuntimeError("detached")


@pytest.mark.parametrize("dimensions", [{"user": Unspeakable()}, (1 / 0 for _ in "x")])
def test_nothing_a_programs_objects_raise_reaches_production(
    programs: Programs, app: Flask, cloudwatch: FakeCloudWatch, dimensions: Any
) -> None:
    """In production, a metric whose arguments raise when read is counted as invalid."""
    reporter = programs.reporter(app, client=cloudwatch, meter_provider=programs.provider(), strict=False)
    reporter.add_metric("Orders", 1, "Count", dimensions)
    assert reporter.stats().measurements_lost == {"invalid": 1}
