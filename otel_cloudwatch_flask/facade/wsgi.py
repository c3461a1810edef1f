"""WSGI middleware that records buffered measurements when a response starts, and flushes when its body has ended.

The flush comes last so that it includes the request's duration, which instrumentations record before the body is sent.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import Context, ContextVar, copy_context
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from otel_cloudwatch_flask.facade.recorder import RequestBuffer
from otel_cloudwatch_flask.runtime.rate_limited_log import RateLimitedLog

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_each_minute = RateLimitedLog(logging.getLogger(__name__), interval_seconds=60.0)

_STATE_KEY: Final = "otel_cloudwatch_flask.request"
_LAMBDA_CONTEXT_KEYS: Final = ("apig_wsgi.context", "awsgi.context", "serverless.context")
_LAMBDA_RESERVE_SECONDS: Final = 0.2
"""Time reserved for the WSGI adapter to return the response before the AWS Lambda invocation times out."""


class RequestState:
    """The state of one request, which the middleware stores in the WSGI environment."""

    wants_flush = True
    has_length = False
    """Whether the response has a ``Content-Length``, which tells the client when it has received the whole body."""
    failed_in: Context | None = None
    """The context in which the application handled the request, if it may raise an exception instead of responding."""
    error: BaseException | None = None
    """The exception that the application raised instead of responding."""
    buffer: RequestBuffer | None = None
    is_buffering = True
    """Whether measurements are buffered. False once the application has returned the response body."""
    labels: Mapping[str, str] = MappingProxyType({})

    def replace_buffer(self, buffer: RequestBuffer) -> None:
        """Store ``buffer``, and end the buffer of an earlier app context of the same request."""
        former, self.buffer = self.buffer, buffer
        if former is not None:
            former.end()
        # Checked after storing, because another thread may have called end_buffering() just before.
        if not self.is_buffering:
            buffer.end()

    def end_buffering(self) -> None:
        """Record the buffered measurements. Those added later, by the body or a thread, are recorded immediately."""
        self.is_buffering = False
        if self.buffer is not None:
            self.buffer.end()


_measured: "ContextVar[RequestState | None]" = ContextVar("otel_cloudwatch_flask.request", default=None)
"""The state of the request that an instrumentation is measuring."""


def state_of(environ: "WSGIEnvironment") -> RequestState | None:
    """Return the state of a request, or ``None`` if the request did not pass through the middleware."""
    state: RequestState | None = environ.get(_STATE_KEY)
    return state


def request_labels() -> Mapping[str, str]:
    """Return the labels of the request that an instrumentation, wrapped by :func:`raising`, is measuring."""
    state = _measured.get()
    return state.labels if state else {}


def prepare_failure(environ: "WSGIEnvironment") -> None:
    """Make the instrumentation record status 500 for this request if its application raises an exception.

    Keeps the current context, because instrumentations need Flask's request to record the status. Does nothing if
    :func:`raising` does not wrap the instrumentation.
    """
    state = state_of(environ)
    if state is not None and state is _measured.get():
        state.failed_in = copy_context()


def disable_flush(environ: "WSGIEnvironment") -> None:
    """Disable the flush at the end of a request."""
    if (state := state_of(environ)) is not None:
        state.wants_flush = False


def remaining_seconds(environ: "WSGIEnvironment") -> float:
    """Return how many seconds a request may wait for its flush before its AWS Lambda invocation times out.

    A reserve for returning the response is subtracted. Returns infinity outside AWS Lambda, or if the WSGI adapter did
    not store the invocation's context in ``environ``.

    See https://docs.aws.amazon.com/lambda/latest/dg/python-context.html
    """
    for key in _LAMBDA_CONTEXT_KEYS:
        if remaining_milliseconds := getattr(environ.get(key), "get_remaining_time_in_millis", None):
            return max(0.0, float(remaining_milliseconds()) / 1000 - _LAMBDA_RESERVE_SECONDS)
    return math.inf


class RequestEndMiddleware:
    """Ends a request's buffer when the response starts, and calls ``flush`` when the response body has ended.

    ``flush`` is passed the request's WSGI environment.

    Flask's teardown functions are unsuitable for this: if one raises, the rest are skipped; FlaskInstrumentor records
    the duration after they have all run; and a streamed body can add metrics even later. If the application raises,
    ``flush`` is called immediately.

    If ``is_sync`` is true, a response with a ``Content-Length``, unless it is a file, is closed and flushed before the
    server gets the last part of its body, so that the flush ends before a client has received the whole response.
    """

    def __init__(
        self, application: "WSGIApplication", flush: "Callable[[WSGIEnvironment], object]", *, is_sync: bool = False
    ) -> None:
        self._application = application
        self._flush = flush
        self._is_sync = is_sync

    def answer(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Handle a request. This method is the WSGI application."""
        # Stored before the application runs, because an inner middleware may pass on a copy of the environment.
        state = environ.setdefault(_STATE_KEY, RequestState())
        state.failed_in = None  # a view that has handled an exception may call the application
        finish = partial(self._finish, state, environ)
        try:
            body = self._application(
                environ, _noting_length(start_response, state) if self._is_sync else start_response
            )
        except BaseException as error:
            if state.failed_in is not None:
                # raising() raises the error after the instrumentation has recorded the request.
                state.error = error
                state.failed_in.run(start_response, "500 INTERNAL SERVER ERROR", [])
                return ResponseBody((), finish, state)
            finish()
            raise
        state.end_buffering()
        # Wrapping a file would prevent the server from sending it with sendfile().
        file_wrapper = environ.get("wsgi.file_wrapper")
        if file_wrapper is not None and is_file(body, file_wrapper):
            call_after_close(body, finish)
            return body
        return ResponseBody(body, finish, state)

    def _finish(self, state: RequestState, environ: "WSGIEnvironment") -> None:
        try:
            state.end_buffering()
            if state.wants_flush:
                self._flush(environ)
        except Exception:  # noqa: BLE001 - the boundary to the server: a response must not fail because of metrics
            _each_minute.error(
                "end",
                "Recording or flushing metrics at the end of a request failed; the request's metrics may be lost, but "
                "its response is not affected. Report a bug, and include the traceback.",
                exc_info=True,
            )


class ResponseBody:
    """A wrapper that closes the response body and calls ``finish``, once, when the response has ended.

    The response has ended when ``body`` is exhausted, or when the wrapper is closed or garbage collected. Waiting for
    ``close`` is not enough, because asgiref's ``WsgiToAsgi`` and some adapters for AWS Lambda never call it. If
    ``state.has_length`` is true, the last part of ``body`` is held back until ``finish`` has returned.
    """

    __slots__ = ("_body", "_close_error", "_finish", "_state")

    def __init__(self, body: Iterable[bytes], finish: Callable[[], None], state: RequestState) -> None:
        self._body = body
        self._state = state
        self._finish: Callable[[], None] | None = finish
        self._close_error: Exception | None = None

    def __iter__(self) -> Iterator[bytes]:
        held: list[bytes] = []
        try:
            # "yield from self._body" would also close the body, so it would be closed twice.
            for part in self._body:
                held.append(part)
                if len(held) > self._state.has_length:
                    yield held.pop(0)
        finally:
            self._end()
        yield from held

    def close(self) -> None:
        """Close the original body and call ``finish``, unless that has been done. Raise the error of closing once."""
        self._end()
        error, self._close_error = self._close_error, None
        if error is not None:
            raise error

    def _end(self) -> None:
        """Close the original body, then call ``finish``, even if closing raises. Later calls do nothing."""
        finish, self._finish = self._finish, None
        if finish is None:
            return
        close: Callable[[], None] | None = getattr(self._body, "close", None)
        try:
            if close is not None:
                close()
        except Exception as error:  # noqa: BLE001 - close() raises it, after the server has sent the whole response
            self._close_error = error
        finally:
            finish()

    __del__ = close


def _noting_length(start_response: "StartResponse", state: RequestState) -> "StartResponse":
    """Wrap ``start_response`` so that it also sets ``state.has_length``."""

    def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], object]:
        state.has_length = any(name.lower() == "content-length" for name, _ in headers)
        return start_response(status, headers, *exc_info)

    return start


def raising(application: "WSGIApplication") -> "WSGIApplication":
    """Wrap a WSGI application, and raise the exceptions that :class:`RequestEndMiddleware` held back inside it.

    ``application`` contains the middleware, and an instrumentation around it, such as FlaskInstrumentor, which records
    no duration for a request that raises an exception. Meanwhile, :func:`request_labels` returns the request's labels.
    """

    def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        state: RequestState = environ.setdefault(_STATE_KEY, RequestState())

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], object]:
            return (lambda _: None) if state.error is not None else start_response(status, headers, *exc_info)

        measured_outside = _measured.set(state)
        try:
            body = application(environ, start)
        finally:
            _measured.reset(measured_outside)
        if (error := state.error) is None:
            return body
        state.error = None  # the environment may belong to a request of another app, which catches the error
        body.close()  # type: ignore[attr-defined]  # a ResponseBody
        raise error

    return answer


def is_file(body: object, file_wrapper: object) -> bool:
    """Return whether the server sends ``body`` as a file, as it does with objects that its ``file_wrapper`` created.

    See https://peps.python.org/pep-3333/#optional-platform-specific-file-handling. The ``file_wrapper`` of most servers
    is a class, but uWSGI's is a function that returns the file unchanged.
    """
    return isinstance(body, file_wrapper) if isinstance(file_wrapper, type) else hasattr(body, "read")


def call_after_close(body: Any, callback: Callable[[], None]) -> None:
    """Make ``body.close`` also call ``callback``. If ``body.close`` cannot be replaced, call ``callback`` now."""
    close = getattr(body, "close", lambda: None)

    def close_and_call() -> None:
        try:
            close()
        finally:
            callback()

    try:
        body.close = close_and_call
    except (AttributeError, TypeError):
        callback()
