"""Outside debug mode, behind real servers and proxies, the live page is hidden from clients without the secret."""

import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import cycle
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from otel_cloudwatch_flask.testing.local.server import LocalCloudWatch
from tests.reliability.processes import GUNICORN, serving
from tests.support.fakes import eventually
from tests.support.live_page_app import SECRET

REQUESTS = 100
PATIENCE_SECONDS = 20.0

# The lists are cycled in parallel. Their lengths have no common divisor, so there are many combinations.
HOSTS = [
    "localhost",
    "127.0.0.1",
    "[::1]",
    "LOCALHOST:5000",
    "app.localhost",
    "shop.example",
    "0.0.0.0",
]
METHODS = ["GET", "HEAD", "GET", "POST", "GET", "OPTIONS", "GET", "PUT", "GET", "PROPFIND", "DELETE"]
HEADERS = [
    "X-Forwarded-For: 127.0.0.1",
    "X-Forwarded-For: ::1\r\nX-Forwarded-Host: localhost\r\nX-Forwarded-Proto: https",
    "Forwarded: for=127.0.0.1;host=localhost;proto=http",
    "X-Real-IP: 127.0.0.1",
    "Via: 1.1 localhost",
    "X-HTTP-Method-Override: GET",
    "X-Original-URL: /_cloudwatch\r\nX-Rewrite-URL: /_cloudwatch",
    "X-Forwarded-Prefix: /_cloudwatch\r\nX-Script-Name: /_cloudwatch",
    "Sec-Fetch-Site: same-origin\r\nReferer: http://localhost/_cloudwatch",
    "X-Live-Page-Key:",
    "X-Live-Page-Key: \xe9",
    "Authorization: Basic YWRtaW46YWRtaW4=\r\nCookie: live_page_key=1; session=.e30.AAAA",
    "X-Live-Page-Key: wrong\r\nX-Live-Page-Key: wronger",
]
TARGETS = [
    "/_cloudwatch",
    "http://localhost/_cloudwatch",
    "/_cloudwatch/data.json",
    "http://127.0.0.1/_cloudwatch/data.json?0123456789ab=1",
    "/%5Fcloudwatch",
    "/_cloudwatch%2Fdata.json",
    "//_cloudwatch",
    "/./_cloudwatch/live.js",
    "/shop/../_cloudwatch",
    "/_cloudwatch/series.json?id=1",
    "/_cloudwatch/",
    "/_cloudwatch//data.json",
    "/_cloudwatch/%2e%2e/_cloudwatch/data%2Ejson",
    "/_cloudwatch;x=1/data.json",
    "http://localhost:80//%5fcloudwatch/live.css",
    "/_CloudWatch",
    "/%2f_cloudwatch",
]

Address = str | tuple[str, int]


def forged() -> Iterator[tuple[str, bytes]]:
    """Yield the forged requests, each with its method."""
    columns = zip(range(REQUESTS), cycle(HOSTS), cycle(METHODS), cycle(HEADERS), cycle(TARGETS), strict=False)
    for number, host, method, header, target in columns:
        version = "1.0" if number % 10 == 9 else "1.1"
        yield method, request(method, target, version, host, header)


def request(method: str, target: str, version: str, host: str, header: str) -> bytes:
    """Return the bytes of a request that asks the server to close the connection after the response."""
    length = "Content-Length: 0\r\n" if method in ("POST", "PUT") else ""
    lines = f"{method} {target} HTTP/{version}\r\nHost: {host}\r\nConnection: close\r\n{length}{header}\r\n\r\n"
    return lines.encode("latin-1")


def nowhere(forged_request: bytes) -> bytes:
    """Return the same request with a path that has no route."""
    line, end, rest = forged_request.partition(b"\r\n")
    return re.sub(b"cloudwatch", b"cloudwatcx", line, flags=re.IGNORECASE) + end + rest


def response_to(address: Address, sent: bytes) -> tuple[int, bytes, bytes]:
    """Send a request, and return the status, the lower-case headers and the body of the response."""
    kind = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
    with closing(socket.socket(kind)) as connection:
        connection.settimeout(PATIENCE_SECONDS)
        connection.connect(address)
        connection.sendall(sent)
        received = b"".join(iter(lambda: connection.recv(2**16), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split(maxsplit=2)[1]), head.lower(), body


@pytest.fixture(scope="module")
def cloudwatch() -> Iterator[LocalCloudWatch]:
    """The CloudWatch emulator that the app publishes to."""
    with LocalCloudWatch() as local:
        yield local


@contextmanager
def served(cloudwatch: LocalCloudWatch, folder: Path, server: str) -> Iterator[Address]:
    """Run the app on a server with its default configuration."""
    program = [sys.executable, "-m", "tests.support.live_page_app", server, "{fd}"]
    command, application = (GUNICORN, ["tests.support.live_page_app:app"]) if server == "gunicorn" else (program, [])
    with serving(cloudwatch, folder / f"{server}.log", command, application) as running:
        url = urlsplit(running.url)
        yield str(url.hostname), int(url.port or 0)


NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/client; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen unix:{folder}/socket;
        location / {{ proxy_pass http://127.0.0.1:{port}; proxy_http_version 1.1; }}
    }}
}}
"""
HAPROXY = """
defaults
    mode http
    timeout connect 20s
    timeout client 20s
    timeout server 20s
listen shop
    bind unix@{folder}/socket
    server app 127.0.0.1:{port}
"""
PROXIES = {
    "nginx": (NGINX, ["-e", "stderr", "-c"]),
    "haproxy": (HAPROXY, ["-db", "-f"]),
}


@contextmanager
def proxied(proxy: str, port: int) -> Iterator[Address]:
    """Run a proxy in front of this port, on a Unix socket with a short enough path."""
    program = shutil.which(proxy, path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip(f"{proxy} is not installed")
    configuration, arguments = PROXIES[proxy]
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("wb") as log:
        (Path(folder) / "conf").write_text(configuration.format(folder=folder, port=port))
        with subprocess.Popen([program, *arguments, f"{folder}/conf"], stdout=log, stderr=log) as process:
            try:
                assert eventually(Path(folder, "socket").exists), Path(folder, "log").read_text()
                yield f"{folder}/socket"
            finally:
                process.kill()


@pytest.fixture(scope="module")
def gunicorn(cloudwatch: LocalCloudWatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """The app on gunicorn, which is used directly and behind proxies."""
    with served(cloudwatch, tmp_path_factory.mktemp("gunicorn"), "gunicorn") as address:
        yield address


@pytest.mark.skipif(sys.platform == "win32", reason="these servers need Unix sockets or fork")
@pytest.mark.parametrize("server", ["nginx", "haproxy", "waitress", "gunicorn", "werkzeug"])
def test_forged_requests(cloudwatch: LocalCloudWatch, gunicorn: Address, tmp_path: Path, server: str) -> None:
    """Without the secret, the response is that for an unknown path; with the secret, it is the page."""
    with ExitStack() as stack:
        if server in PROXIES:
            address = stack.enter_context(proxied(server, int(gunicorn[1])))
        elif server == "gunicorn":
            address = gunicorn
        else:
            address = stack.enter_context(served(cloudwatch, tmp_path, server))
        with_secret = request("GET", "/_cloudwatch", "1.1", "shop.example", f"X-Live-Page-Key: {SECRET}")
        status, head, body = response_to(address, with_secret)
        assert (status, b"x-robots-tag" in head, b"data-root" in body) == (200, True, True)
        for method, sent in forged():
            status, head, body = response_to(address, sent)
            assert status >= 400, sent
            assert b"x-robots-tag" not in head, sent
            assert b"data-root" not in body, sent
            if method != "PROPFIND":  # no route allows this method, so the status is 405
                elsewhere, _, body_elsewhere = response_to(address, nowhere(sent))
                assert (status, body) == (elsewhere, body_elsewhere), sent
