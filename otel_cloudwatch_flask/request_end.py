"""When a request has ended: its body is sent, and whatever instruments it has recorded its duration. No Flask."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from otel_cloudwatch_flask.recorder import RequestBuffer

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_BUFFERS_KEY: Final = "otel_cloudwatch_flask.buffers"


class Buffers(list[RequestBuffer]):
    """The buffers that a request has filled; ``wants_flush`` is false for one that is none of the app's own."""

    wants_flush = True
    has_ended = False


def buffers_of(environ: "WSGIEnvironment") -> Buffers | None:
    """The buffers of a request, whatever its app contexts have become; ``None`` if it came by no server."""
    buffers: Buffers | None = environ.get(_BUFFERS_KEY)
    return buffers


def want_no_flush(environ: "WSGIEnvironment") -> None:
    """Let a request's end cause no flush."""
    if (buffers := buffers_of(environ)) is not None:
        buffers.wants_flush = False


class RequestEndMiddleware:
    """Call ``on_end(buffers)`` when the server closes a response's body, or at once if there is none to close.

    Not at the end of Flask's own teardown: FlaskInstrumentor records a request's duration after that, and a streamed
    body still adds to its metrics. ``on_end`` must not raise.

    ``closes_exhausted`` is for adapters that never close a body: then it is closed as soon as its last part was taken.
    """

    def __init__(
        self,
        application: "WSGIApplication",
        on_end: Callable[[Buffers], None],
        *,
        closes_exhausted: bool = False,
    ) -> None:
        self._application = application
        self._on_end = on_end
        self._closes_exhausted = closes_exhausted

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a request."""
        # Now, because a middleware further in may hand on a copy of the environment.
        buffers = environ.get(_BUFFERS_KEY)
        if buffers is None:
            buffers = environ[_BUFFERS_KEY] = Buffers()
        try:
            body = self._application(environ, start_response)
        except BaseException:
            self._on_end(buffers)
            raise
        if is_file(body, environ):
            call_after_close(body, partial(self._on_end, buffers))
            return body
        if self._closes_exhausted:
            return SelfClosingBody(body, partial(self._on_end, buffers))
        return ClosingBody(body, self._on_end, buffers)


class ClosingBody:
    """A body that calls back after it was closed, however often that is done and even if it fails: once."""

    __slots__ = ("_body", "_buffers", "_on_end")

    def __init__(self, body: Iterable[bytes], on_end: Callable[[Buffers], None], buffers: Buffers) -> None:
        self._body = body
        self._on_end: Callable[[Buffers], None] | None = on_end
        self._buffers = buffers

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        """Close the body, and call back."""
        try:
            close: Callable[[], None] | None = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            on_end, self._on_end = self._on_end, None
            if on_end is not None:
                on_end(self._buffers)


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


def is_file(body: object, environ: "WSGIEnvironment") -> bool:
    """Whether a body is one that the server sends as a file, if it finds the object that it made itself.

    https://peps.python.org/pep-3333/#optional-platform-specific-file-handling: ``wsgi.file_wrapper`` is a class almost
    everywhere; uWSGI's is a function that returns the file as it is.
    """
    file_wrapper = environ.get("wsgi.file_wrapper")
    if isinstance(file_wrapper, type):
        return isinstance(body, file_wrapper)
    return file_wrapper is not None and hasattr(body, "read")


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
