"""An app with a route for each kind of request. ``python -m tests.support.kinds_of_requests <server> <fd>`` serves it.

Each route adds metrics with names that begin with its path; :data:`KINDS` has their number and the expected response.
"""

import asyncio
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flask import (
    Blueprint,
    Flask,
    Response,
    after_this_request,
    copy_current_request_context,
    current_app,
    request,
    send_file,
    stream_with_context,
)

from otel_cloudwatch_flask import CloudWatchMetricsReporter

FILE = Path(__file__)
CHUNK = b"x" * 65_536


@dataclass(frozen=True)
class Kind:
    """A request to ``path``: the expected response, and the metrics that must arrive exactly once."""

    path: str
    status: int = 200
    method: str = "GET"
    metrics: tuple[str, ...] = ("",)
    is_aborted: bool = False
    has_duration: bool = True

    def names(self) -> list[str]:
        """Return the names of this request's metrics."""
        return [f"{self.method} {self.path}{ending}" for ending in self.metrics]


KINDS = [
    Kind("/plain"),
    Kind("/plain", method="HEAD"),
    Kind("/stream"),
    Kind("/stream", method="HEAD", metrics=()),
    Kind("/stream-with-context", metrics=("", " in body")),
    Kind("/file"),
    Kind("/file", method="HEAD"),
    Kind("/abort", metrics=(" begun", " closed"), is_aborted=True),
    Kind("/before-error", status=500),
    Kind("/handled-error", status=418),
    Kind("/unhandled-error", status=500),
    Kind("/no-such-product/7", status=404),
    Kind("/nested", metrics=("", " nested", " in request context")),
    Kind("/thread"),
    Kind("/late-thread", metrics=("", " late")),
    Kind("/async"),
    Kind("/blueprint"),
    Kind("/after-this-request", metrics=("", " after")),
    Kind("/on-close", metrics=("", " on close")),
    Kind("/teardown", metrics=("", " torn down")),
    # FlaskInstrumentor records no duration if the exception of a request reaches the server.
    Kind("/broken-teardown", status=500, has_duration=False),
]

stalls = Blueprint("stalls", __name__)
late_threads: list[threading.Thread] = []
released = threading.Event()


def add(ending: str = "") -> str:
    """Add the metric of this request with this name ending, and return the name."""
    CloudWatchMetricsReporter.add_metric(f"{request.method} {request.path}{ending}", 1, "Count")
    return "added"


class HandledError(Exception):
    """An exception that the app handles."""


@stalls.before_app_request
def fail_before() -> None:
    """Fail before any view is called, if the path says so."""
    if request.path == "/before-error":
        add()
        raise KeyError


@stalls.app_errorhandler(HandledError)
def handle(_error: HandledError) -> tuple[str, int]:
    """Respond to the handled error."""
    return add(), 418


@stalls.app_errorhandler(404)
def not_found(_error: Exception) -> tuple[str, int]:
    """Add a metric, and respond that the page was not found."""
    return add(), 404


@stalls.teardown_app_request
def tear_down(_error: BaseException | None) -> None:
    """Add a metric after the view, or raise like a broken extension."""
    if request.path == "/teardown":
        add(" torn down")
    if request.path == "/broken-teardown":
        raise KeyError


@stalls.get("/plain", endpoint="plain")
@stalls.get("/blueprint", endpoint="blueprint")
@stalls.get("/teardown", endpoint="teardown")
@stalls.get("/broken-teardown", endpoint="broken_teardown")
@stalls.get("/before-error", endpoint="before_error")
def plain() -> str:
    """Add a metric."""
    return add()


@stalls.get("/stream")
def stream() -> Response:
    """Add a metric in a response body without a request context."""
    name = f"{request.method} {request.path}"

    def body() -> Iterator[bytes]:
        yield b"a"
        CloudWatchMetricsReporter.add_metric(name, 1, "Count")
        yield b"b"

    return Response(body())


@stalls.get("/stream-with-context")
def stream_in_context() -> Response:
    """Add metrics in the view and in the response body."""
    add()

    def body() -> Iterator[str]:
        yield "a"
        yield add(" in body")

    return Response(stream_with_context(body()))


@stalls.get("/file")
def file() -> Response:
    """Let the server send a file."""
    add()
    return send_file(FILE)


@stalls.get("/abort")
def abort() -> Response:
    """Send data until the client disconnects."""

    def body() -> Iterator[bytes]:
        add(" begun")
        try:
            while True:
                yield CHUNK
        finally:
            add(" closed")

    return Response(stream_with_context(body()))


@stalls.get("/handled-error")
def fail_handled() -> str:
    """Raise an exception that the app handles."""
    raise HandledError


@stalls.get("/unhandled-error")
def fail_unhandled() -> str:
    """Raise an exception that the app does not handle."""
    add()
    raise KeyError


@stalls.get("/nested")
def nested() -> str:
    """Add metrics in the request's context and in nested ones."""
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    name = f"{request.method} {request.path}"
    with app.app_context():
        CloudWatchMetricsReporter.add_metric(f"{name} nested", 1, "Count")
    with app.test_request_context("/nested"):
        add(" in request context")
    return add()


@stalls.get("/thread")
def in_thread() -> str:
    """Add a metric in a thread for which the request waits."""
    thread = threading.Thread(target=copy_current_request_context(add))
    thread.start()
    thread.join()
    return "added"


@stalls.get("/late-thread")
def in_late_thread() -> str:
    """Start a thread that adds a metric after the request has ended."""

    @copy_current_request_context
    def add_late() -> None:
        released.wait(60)
        add(" late")

    late_threads.append(threading.Thread(target=add_late))
    late_threads[-1].start()
    return add()


@stalls.get("/async")
async def in_coroutine() -> str:
    """Add a metric in a coroutine."""
    await asyncio.sleep(0)
    return add()


@stalls.get("/after-this-request")
def after() -> str:
    """Add a metric after the view."""

    @after_this_request
    def add_after(response: Response) -> Response:
        add(" after")
        return response

    return add()


@stalls.get("/on-close")
def on_close() -> Response:
    """Add a metric when the server closes the response."""
    response = Response(add())
    name = f"{request.method} {request.path} on close"
    response.call_on_close(lambda: CloudWatchMetricsReporter.add_metric(name, 1, "Count"))
    return response


def create_app() -> Flask:
    """Return the app."""
    app = Flask("kinds")
    app.register_blueprint(stalls)
    reporter = CloudWatchMetricsReporter(
        app, "Kinds", instrument=True, flush_min_interval_seconds=0, export_interval_seconds=3600
    )

    @app.get("/flush")
    def flush() -> str:
        released.set()
        while late_threads:
            late_threads.pop().join()
        return str(reporter.flush(timeout_seconds=30))

    return app


def serve(server: str, descriptor: int) -> None:
    """Serve the app forever on a listening socket."""
    if server == "werkzeug":
        from werkzeug.serving import make_server  # noqa: PLC0415 - only one of the two is needed

        make_server("127.0.0.1", 0, create_app(), threaded=True, fd=descriptor).serve_forever()
    else:
        import socket  # noqa: PLC0415

        import waitress  # noqa: PLC0415

        waitress.serve(create_app(), sockets=[socket.socket(fileno=descriptor)])  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
