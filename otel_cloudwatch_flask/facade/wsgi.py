"""The end of a request, by WSGI: its measurements are recorded when there is a response, and flushed after its body.

By then every instrumentation has recorded the request's duration. No Flask.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from otel_cloudwatch_flask.facade.recorder import RequestBuffer
from otel_cloudwatch_flask.runtime.rate_limited_log import RateLimitedLog

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_each_minute = RateLimitedLog(logging.getLogger(__name__), interval_seconds=60.0)

_STATE_KEY: Final = "otel_cloudwatch_flask.request"


class RequestState:
    """What the WSGI environment of a request carries: whether its end flushes, and its latest buffer."""

    wants_flush = True
    buffer: RequestBuffer | None = None

    def replace_buffer(self, buffer: RequestBuffer) -> None:
        """Keep a buffer, and end the one of an earlier app context."""
        if self.buffer is not None:
            self.buffer.end()
        self.buffer = buffer


def state_of(environ: "WSGIEnvironment") -> RequestState | None:
    """The state of a request; ``None`` if no server made it."""
    state: RequestState | None = environ.get(_STATE_KEY)
    return state


def want_no_flush(environ: "WSGIEnvironment") -> None:
    """Let a request's end cause no flush."""
    if (state := state_of(environ)) is not None:
        state.wants_flush = False


class RequestEndMiddleware:
    """End a request's buffer when there is a response, and call ``flush`` when the server closes its body.

    Flask's teardown is not enough for either: a function there that raises stops those after it, FlaskInstrumentor
    records a request's duration later, and a streamed body still adds metrics. A request that raises flushes at once.

    ``closes_exhausted`` is for adapters that never close a body: it is then closed after its last part.
    """

    def __init__(
        self, application: "WSGIApplication", flush: Callable[[], object], *, closes_exhausted: bool = False
    ) -> None:
        self._application = application
        self._flush = flush
        self._body_class = SelfClosingBody if closes_exhausted else ClosingBody

    def answer(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a request, as a WSGI application does."""
        # Now, because a middleware further in may pass on a copy of the environment.
        state = environ.setdefault(_STATE_KEY, RequestState())
        finish = partial(self._finish, state)
        try:
            body = self._application(environ, start_response)
        except BaseException:
            finish()
            raise
        if state.buffer is not None:
            state.buffer.end()
        file_wrapper = environ.get("wsgi.file_wrapper")
        if file_wrapper is not None and is_file(body, file_wrapper):
            call_after_close(body, finish)
            return body
        return self._body_class(body, finish)

    def _finish(self, state: RequestState) -> None:
        try:
            if state.buffer is not None:
                state.buffer.end()
            if state.wants_flush:
                self._flush()
        except Exception:  # noqa: BLE001 - the boundary to the server, to which metrics are no reason to fail
            _each_minute.log(
                logging.ERROR,
                "end",
                "The end of a request was not recorded; its metrics may be lost, its response is not. Report it with "
                "the traceback.",
                exc_info=True,
            )


class ClosingBody:
    """A body that calls back after it was closed, even if closing fails; closing it again does nothing."""

    __slots__ = ("_body", "_callback", "_close")

    def __init__(self, body: Iterable[bytes], callback: Callable[[], None]) -> None:
        self._body = body
        self._close: Callable[[], None] | None = getattr(body, "close", None)
        self._callback: Callable[[], None] | None = callback

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        """Close the body, and call back."""
        callback, self._callback = self._callback, None
        if callback is None:
            return
        try:
            if self._close is not None:
                self._close()
        finally:
            callback()


class SelfClosingBody(ClosingBody):
    """One that closes itself after its last part."""

    __slots__ = ()

    def __iter__(self) -> Iterator[bytes]:
        try:
            for part in self._body:  # noqa: UP028 - "yield from" would close the body, too, and so twice
                yield part
        finally:
            self.close()


def is_file(body: object, file_wrapper: object) -> bool:
    """Whether a body is one that the server sends as a file, if it gets the very object that it made.

    https://peps.python.org/pep-3333/#optional-platform-specific-file-handling: ``wsgi.file_wrapper`` is a class almost
    everywhere; uWSGI's is a function that returns the file as it is.
    """
    return isinstance(body, file_wrapper) if isinstance(file_wrapper, type) else hasattr(body, "read")


def call_after_close(body: Any, callback: Callable[[], None]) -> None:
    """Add a call to the ``close`` of a body that must stay the object it is; call at once if that is impossible."""
    try:
        body.close = ClosingBody(body, callback).close
    except (AttributeError, TypeError):
        callback()
