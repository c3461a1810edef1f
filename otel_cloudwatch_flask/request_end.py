"""When a request has ended: for what it has added, when there is a response; for the flush, when its body is closed.

By then whatever instruments it has recorded its duration. No Flask.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from otel_cloudwatch_flask.quiet_log import QuietLog
from otel_cloudwatch_flask.recorder import RequestBuffer

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_each_minute = QuietLog(logging.getLogger(__name__), interval_seconds=60.0)

_BUFFERS_KEY: Final = "otel_cloudwatch_flask.buffers"


class Buffers(list[RequestBuffer]):
    """The buffer that a request fills, until it ends, and whether its end is to flush."""

    wants_flush = True
    has_ended = False

    def add(self, buffer: RequestBuffer) -> bool:
        """Keep a buffer until the request ends; whether it is the first of the request that does.

        With another context come other buffers: those before end then, and so do those that come after the end.
        """
        is_first = not self and not self.has_ended
        while self:
            self.pop().end()
        self.append(buffer)
        if self.has_ended:
            self.end()
        return is_first

    def end(self) -> None:
        """Let be recorded what is kept, and at once what comes later. Never raises."""
        self.has_ended = True  # first: whoever adds one looks at this afterwards
        try:
            while self:
                self.pop().end()
        except Exception:  # noqa: BLE001 - the boundary to the server, to which metrics are no reason to fail
            _log_failure()


def buffers_of(environ: "WSGIEnvironment") -> Buffers | None:
    """The buffers of a request, whatever its app contexts have become; ``None`` if it came by no server."""
    buffers: Buffers | None = environ.get(_BUFFERS_KEY)
    return buffers


def want_no_flush(environ: "WSGIEnvironment") -> None:
    """Let a request's end cause no flush."""
    if (buffers := buffers_of(environ)) is not None:
        buffers.wants_flush = False


class RequestEndMiddleware:
    """End the buffers of a request when there is a response, and call ``flush`` when the server closes its body.

    Not before: FlaskInstrumentor records a request's duration after Flask's own teardown, and a streamed body still
    adds to its metrics. A request that raises flushes at once.

    ``closes_exhausted`` is for adapters that never close a body: then it is closed as soon as its last part was taken.
    """

    def __init__(
        self, application: "WSGIApplication", flush: Callable[[], object], *, closes_exhausted: bool = False
    ) -> None:
        self._application = application
        self._flush = flush
        self._closes_exhausted = closes_exhausted

    def answer(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a request, as a WSGI application does."""
        # Now, because a middleware further in may hand on a copy of the environment.
        buffers = environ.get(_BUFFERS_KEY)
        if buffers is None:
            buffers = environ[_BUFFERS_KEY] = Buffers()
        try:
            body = self._application(environ, start_response)
        except BaseException:
            buffers.end()
            ClosingBody((), buffers, self._flush).close()
            raise
        # What most requests do is written out here and below: they have no metrics, and should not feel those who do.
        buffers.has_ended = True
        if buffers:
            buffers.end()
        file_wrapper = environ.get("wsgi.file_wrapper")
        if file_wrapper is not None and is_file(body, file_wrapper):
            call_after_close(body, ClosingBody((), buffers, self._flush).close)
            return body
        if self._closes_exhausted:
            return SelfClosingBody(body, ClosingBody((), buffers, self._flush).close)
        return ClosingBody(body, buffers, self._flush)


class ClosingBody:
    """A body that flushes after it was closed, however often that is done and even if it fails: once."""

    __slots__ = ("_body", "_buffers", "_flush")

    def __init__(self, body: Iterable[bytes], buffers: Buffers, flush: Callable[[], object]) -> None:
        self._body = body
        self._buffers = buffers
        self._flush: Callable[[], object] | None = flush

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        """Close the body, and flush if the request wants that."""
        try:
            close: Callable[[], None] | None = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            flush, self._flush = self._flush, None
            if flush is not None and self._buffers.wants_flush:
                try:
                    flush()
                except Exception:  # noqa: BLE001 - the boundary to the server, to which metrics are no reason to fail
                    _log_failure()


def _log_failure() -> None:
    _each_minute.log(
        logging.ERROR,
        "end",
        "The end of a request was not recorded; its metrics may be lost, its response is not. Report it with the "
        "traceback.",
        exc_info=True,
    )


class SelfClosingBody:
    """A body that calls back after it was closed, which it does itself at its end; closing it again does nothing."""

    def __init__(self, body: Iterable[bytes], callback: Callable[[], None]) -> None:
        self._body = body
        self._close = _followed_by(callback, getattr(body, "close", None))
        self._is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            for part in self._body:  # noqa: UP028 - "yield from" would close the body, too, and so twice
                yield part
        finally:
            self.close()

    def close(self) -> None:
        """Close the body, and call back."""
        if not self._is_closed:
            self._is_closed = True
            self._close()


def is_file(body: object, file_wrapper: object) -> bool:
    """Whether a body is one that the server sends as a file, if it finds the object that it made itself.

    https://peps.python.org/pep-3333/#optional-platform-specific-file-handling: ``wsgi.file_wrapper`` is a class almost
    everywhere; uWSGI's is a function that returns the file as it is.
    """
    return isinstance(body, file_wrapper) if isinstance(file_wrapper, type) else hasattr(body, "read")


def call_after_close(body: Any, callback: Callable[[], None]) -> None:
    """Chain a call onto the ``close`` of a body that must stay the object it is; call at once if that cannot be."""
    try:
        body.close = _followed_by(callback, getattr(body, "close", None))
    except (AttributeError, TypeError):
        callback()


def _followed_by(callback: Callable[[], None], close: Callable[[], None] | None) -> Callable[[], None]:
    """A ``close`` that calls back afterwards, however often it is called and even if closing fails: once."""
    callbacks = [callback]

    def closing() -> None:
        try:
            if close:
                close()
        finally:
            while callbacks:
                callbacks.pop()()

    return closing
