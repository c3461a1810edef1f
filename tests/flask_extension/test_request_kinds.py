"""Every kind of request, over real servers: each metric arrives once, in one flush with the request's duration."""

import contextlib
import http.client
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch
from otel_cloudwatch_flask.testing.published import dimensions_of
from tests.reliability.processes import GUNICORN, PATIENCE_SECONDS, serving
from tests.support.fakes import eventually
from tests.support.kinds_of_requests import CHUNK, FILE, KINDS, Kind

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the servers inherit a socket")

OLD, NEW = ("http.server.duration", "http.target"), ("http.server.request.duration", "http.route")
"""The names of the duration metric and of its route attribute, in the old and in the new semantic conventions."""

GTHREAD = [*GUNICORN, "--worker-class", "gthread", "--threads", "4"]
SERVED = [sys.executable, "-m", "tests.support.kinds_of_requests"]
APP = "tests.support.kinds_of_requests:create_app()"
SERVERS = {
    "werkzeug, old names": ([*SERVED, "werkzeug", "{fd}"], "", "background", [OLD]),
    "waitress, new names": ([*SERVED, "waitress", "{fd}"], "http", "background", [NEW]),
    "gunicorn, both names": ([*GTHREAD, APP], "http/dup", "background", [OLD, NEW]),
    "gunicorn, sync": ([*GTHREAD, APP], "", "sync", [OLD]),
}


@dataclass(frozen=True)
class Served:
    """A running server, the CloudWatch it publishes to, and the names and route dimensions of its durations."""

    url: str
    cloudwatch: LocalCloudWatch
    durations: list[tuple[str, str]]

    def get(self, path: str, method: str = "GET") -> tuple[int, bytes]:
        """Send a request and read the whole response."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=PATIENCE_SECONDS)
        with contextlib.closing(connection):
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read()

    def abort(self, path: str) -> tuple[int, bytes]:
        """Send a request and disconnect in the middle of the response."""
        address = urlsplit(self.url)
        with socket.create_connection((address.hostname, address.port), timeout=PATIENCE_SECONDS) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n".encode())
            answer = b""
            while len(answer) < len(CHUNK):
                answer += connection.recv(4096)
        return int(answer.split()[1]), answer

    def has_arrived(self, kind: Kind) -> bool:
        """Return whether CloudWatch has the request's duration and the last metric added before its end.

        They may arrive in separate calls, because another request's flush may come between the two.
        """
        wanted = [name for name in kind.names() if not name.endswith(" late")][-1:]
        durations = [self._duration_of(kind, *each) for each in self.durations] if kind.has_duration else []
        datums = self.cloudwatch.published.datums
        return all(any(is_of(datum, name) for datum in datums) for name in wanted) and all(
            any(is_duration(datum) for datum in datums) for is_duration in durations
        )

    def counted_durations(self, kind: Kind) -> list[float]:
        """Return, for each duration metric, the number of its samples for this kind of request."""
        counted = []
        for name, route_dimension in self.durations:
            is_duration = self._duration_of(kind, name, route_dimension)
            counted.append(sum(count_of(datum) for datum in self.cloudwatch.published.datums if is_duration(datum)))
        return counted

    @staticmethod
    def _duration_of(kind: Kind, name: str, route_dimension: str) -> Any:
        route = None if kind.status == 404 else kind.path

        def is_duration(datum: Mapping[str, Any]) -> bool:
            dimensions = dict(dimensions_of(datum["Dimensions"]))
            methods = (dimensions.get("http.method"), dimensions.get("http.request.method"))
            return is_of(datum, name) and dimensions.get(route_dimension) == route and kind.method in methods

        return is_duration


def is_of(datum: Mapping[str, Any], name: str) -> bool:
    """Return whether a datum belongs to this metric."""
    return bool(datum["MetricName"] == name)


def count_of(datum: Mapping[str, Any]) -> float:
    """Return the number of samples in a datum."""
    return 1 if "Value" in datum else sum(datum.get("Counts") or [1] * len(datum["Values"]))


@pytest.fixture(scope="module", params=SERVERS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve the app with one of the servers, and check that the server shuts down cleanly."""
    command, names, flush, durations = SERVERS[request.param]
    variables = {"OTEL_SEMCONV_STABILITY_OPT_IN": names, "OTEL_EXPORTER_CLOUDWATCH_FLUSH": flush}
    log = tmp_path_factory.mktemp("server") / "log"
    with (
        LocalCloudWatch() as cloudwatch,
        serving(cloudwatch, log, command, [], **variables) as server,
    ):
        yield Served(server.url, cloudwatch, durations)
        assert cloudwatch.validation_errors == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.method} {kind.path}")
def test_each_kind_of_request(served: Served, kind: Kind) -> None:
    """Each request's metrics and duration arrive once, and the flush at the end includes the last of them."""
    status, body = served.abort(kind.path) if kind.is_aborted else served.get(kind.path, kind.method)
    assert status == kind.status
    assert kind.path != "/file" or body == (FILE.read_bytes() if kind.method == "GET" else b"")
    assert eventually(lambda: served.has_arrived(kind), within_seconds=PATIENCE_SECONDS), (
        served.cloudwatch.published.datums
    )
    assert served.get("/flush") == (200, b"True")
    assert {name: served.cloudwatch.published.count(name) for name in kind.names()} == dict.fromkeys(kind.names(), 1)
    assert served.counted_durations(kind) == [int(kind.has_duration)] * len(served.durations)
