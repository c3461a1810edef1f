"""A request ends when its response body is closed, read to the end, or garbage collected."""

import asyncio
import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from flask import Flask, Response
from opentelemetry.sdk.metrics import MeterProvider
from werkzeug.wsgi import ClosingIterator

from otel_cloudwatch_flask import CloudWatchMetricsReporter
from otel_cloudwatch_flask.facade.wsgi import RequestEndMiddleware, RequestState, ResponseBody, call_after_close
from otel_cloudwatch_flask.testing import FakeCloudWatch
from tests.support.fakes import eventually


class Body(io.BytesIO):
    """A body of two parts that records whether it was closed."""

    def __init__(self, events: list[str]) -> None:
        super().__init__(b"a\nb\n")
        self._events = events

    def close(self) -> None:
        """Record the first close."""
        if not self.closed:
            self._events.append("closed")
        super().close()


def close(body: ResponseBody) -> None:
    """Read and close the body, as PEP 3333 requires of servers."""
    list(body)
    body.close()


def read_to_end(body: ResponseBody) -> None:
    """Read the body without closing it, as asgiref does."""
    assert list(body) == [b"a\n", b"b\n"]


def close_at_once(body: ResponseBody) -> None:
    """Close the body unread, as for a HEAD request."""
    body.close()


def drop_half_way(body: ResponseBody) -> None:
    """Drop the body halfway, as a server does when the client disconnects."""
    assert next(iter(body)) == b"a\n"


def drop(body: ResponseBody) -> None:
    """Drop the body unread."""


@pytest.mark.parametrize("end", [close, read_to_end, close_at_once, drop_half_way, drop])
def test_each_end_counts_once(end: Callable[[ResponseBody], None]) -> None:
    """However a request ends, its body is closed first, and the request finishes once."""
    events: list[str] = []
    end(ResponseBody(Body(events), lambda: events.append("finished"), RequestState()))
    assert events == ["closed", "finished"]


def test_the_end_comes_with_the_last_part() -> None:
    """Reading the last part ends the request; closing the body afterward has no further effect."""
    events: list[str] = []
    body = ResponseBody(Body(events), lambda: events.append("finished"), RequestState())
    parts = iter(body)
    assert [next(parts), next(parts)] == [b"a\n", b"b\n"]
    assert events == []
    assert next(parts, None) is None
    assert events == ["closed", "finished"]
    body.close()
    assert events == ["closed", "finished"]


def test_a_body_of_known_length_ends_before_its_last_part() -> None:
    """If the body's length is known, the request ends before the last part, as the client may then have everything."""
    events: list[str] = []
    state = RequestState()
    state.has_length = True
    parts = iter(ResponseBody(Body(events), lambda: events.append("finished"), state))
    assert next(parts) == b"a\n"
    assert events == []
    assert next(parts) == b"b\n"
    assert events == ["closed", "finished"]
    assert next(parts, None) is None
    assert events == ["closed", "finished"]


def test_a_body_that_raises() -> None:
    """An exception raised by the body ends the request and reaches the server."""
    events: list[str] = []

    def broken() -> Iterator[bytes]:
        yield b"a"
        raise KeyError

    body = ResponseBody(broken(), lambda: events.append("finished"), RequestState())
    with pytest.raises(KeyError):
        list(body)
    assert events == ["finished"]


@pytest.mark.parametrize("has_length", [False, True])
@pytest.mark.parametrize("parts", [[], [b"a", b"b"]])
def test_a_body_that_raises_when_it_is_closed(parts: list[bytes], *, has_length: bool) -> None:
    """An exception of a ``call_on_close`` function reaches the server when it closes the body, after the response."""
    events: list[str] = []

    def fail() -> None:
        raise FileNotFoundError

    state = RequestState()
    state.has_length = has_length
    body = ResponseBody(ClosingIterator(parts, fail), lambda: events.append("finished"), state)
    assert list(body) == parts
    assert events == ["finished"]
    with pytest.raises(FileNotFoundError):
        body.close()
    body.close()
    assert events == ["finished"]


def test_a_file_stays_the_object_it_is() -> None:
    """A file's own ``close`` runs first; if ``close`` cannot be replaced, the request finishes immediately."""
    events: list[str] = []
    body = Body(events)
    call_after_close(body, lambda: events.append("finished"))
    body.close()
    assert events == ["closed", "finished"]
    events.clear()
    call_after_close((b"a",), lambda: events.append("finished"))
    assert events == ["finished"]


def test_a_body_that_cannot_be_read_twice_is_flushed_once() -> None:
    """Each request causes one flush, even if its body can be read only once."""
    flushes: list[int] = []

    def application(_environ: object, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [b"a"]

    answer = RequestEndMiddleware(application, lambda _: flushes.append(1)).answer
    for _ in range(3):
        b"".join(answer({}, lambda *_: print))
    assert len(flushes) == 3


@pytest.mark.parametrize("flush", ["background", "sync"])
def test_requests_through_asgiref(flush: Any) -> None:
    """Each request through Flask's recommended ``WsgiToAsgi``, which never closes a body, causes one flush."""
    wsgi_to_asgi = pytest.importorskip("asgiref.wsgi").WsgiToAsgi
    cloudwatch, app = FakeCloudWatch(), Flask("shop")
    provider = MeterProvider(shutdown_on_exit=False)
    reporter = CloudWatchMetricsReporter(
        app, "Shop", cloudwatch, meter_provider=provider, flush=flush, flush_min_interval_seconds=0
    )

    @app.get("/")
    def index() -> Response:
        reporter.add_metric("Orders", 1)
        return Response(iter(["a", "b"]))

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [],
        "query_string": b"",
        "scheme": "http",
        "http_version": "1.1",
    }
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(wsgi_to_asgi(app)(scope, receive, send))
    assert b"".join(each.get("body", b"") for each in sent) == b"ab"
    if flush == "sync":
        assert cloudwatch.sum("Orders") == 1
    else:
        assert eventually(lambda: cloudwatch.sum("Orders") == 1)
    reporter.shutdown()
