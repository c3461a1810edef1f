"""``LocalCloudWatch``, an HTTP server on loopback that emulates CloudWatch."""

import contextlib
import functools
import socket
import threading
from collections import deque
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from otel_cloudwatch_flask.testing.local.application import CloudWatchApplication, Fault, Traffic

if TYPE_CHECKING:
    from types import TracebackType

    from mypy_boto3_cloudwatch import CloudWatchClient
    from typing_extensions import Self

__all__ = ["Fault", "LocalCloudWatch", "Traffic"]

# With socketserver's default, each stop could take half a second.
_STOP_POLL_SECONDS: Final = 0.02


class LocalCloudWatch(CloudWatchApplication):
    """An emulated CloudWatch for AWS clients, at ``http://127.0.0.1:<port>``, that runs inside a ``with`` block::

        with LocalCloudWatch() as cloudwatch:
            subprocess.run([...], env={**os.environ, **cloudwatch.environment()})
            assert cloudwatch.published.sum("RequestCount", Page="Index") == 1

    It supports PutMetricData, GetMetricStatistics, GetMetricData without metric math, ListMetrics, and
    PutDashboard.

    The attributes ``latency_seconds`` and ``answer_with`` may be changed at any time.

    :param latency_seconds: delay before the response to each PutMetricData request.
    :param answer_with: function that receives the parameters of each PutMetricData request, and may return a
        :class:`Fault`.
    :param clock: function that returns the current time in Unix seconds.
    :param sleep: function that waits for a number of seconds.
    """  # noqa: D400 - the first sentence ends in an example

    _server: "_Server | None" = None

    def __enter__(self) -> "Self":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: "TracebackType | None"
    ) -> None:
        self.stop()

    def start(self, *, port: int = 0) -> None:
        """Listen in a new thread.

        :param port: TCP port on 127.0.0.1. 0 selects any free port.
        """
        if self._server is None:
            self._server = _Server("127.0.0.1", port, self, handler=_RequestHandler)
            serve = functools.partial(self._server.serve_forever, poll_interval=_STOP_POLL_SECONDS)
            threading.Thread(target=serve, name="LocalCloudWatch", daemon=True).start()

    def stop(self) -> None:
        """Stop listening and close all connections. Published metrics can still be looked up."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    @property
    def endpoint_url(self) -> str:
        """The URL of the server. Raises ``RuntimeError`` if the server is not running."""
        if self._server is None:
            raise RuntimeError("LocalCloudWatch is not running: use it in a with statement, or call start().")
        return f"http://127.0.0.1:{self._server.server_port}"

    def client(self, **arguments: Any) -> "CloudWatchClient":
        """Return a boto3 client for this server.

        :param arguments: passed to ``boto3.client``.
        """
        import boto3  # noqa: PLC0415 - slow to import, and only needed here

        defaults = {
            "endpoint_url": self.endpoint_url,
            "region_name": "us-east-1",
            "aws_access_key_id": "testing",
            "aws_secret_access_key": "testing",
        }
        client: CloudWatchClient = boto3.client("cloudwatch", **{**defaults, **arguments})
        return client

    def environment(self) -> dict[str, str]:
        """Return environment variables that point the AWS SDK of a child process to this server."""
        return {
            "AWS_ENDPOINT_URL_CLOUDWATCH": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


class _RequestHandler(WSGIRequestHandler):
    def parse_request(self) -> bool:
        """Read the head of a request. Returns ``False`` if it is invalid, or cut off by the end of the connection."""
        stream, last_lines = self.rfile, deque([b""], maxlen=1)

        def readline(limit: int) -> bytes:
            last_lines.append(stream.readline(limit))
            return last_lines[0]

        # The base class mistakes the end of the connection for the empty line after the last header.
        self.rfile = SimpleNamespace(readline=readline)  # type: ignore[assignment]
        try:
            return super().parse_request() and last_lines[0] != b""
        finally:
            self.rfile = stream

    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - werkzeug's name
        """Discard the server's log entries about requests. The server still logs the application's errors."""


class _Server(ThreadedWSGIServer):
    """A threaded server that closes its keep-alive connections when it stops."""

    def __init__(self, *arguments: Any, **keyword_arguments: Any) -> None:
        self._connections: set[socket.socket] = set()
        super().__init__(*arguments, **keyword_arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().close_request(request)

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in tuple(self._connections):
            with contextlib.suppress(OSError):  # the connection's thread may be closing it right now
                connection.shutdown(socket.SHUT_RDWR)
