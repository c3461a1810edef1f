"""A TLS proxy in front of a CloudWatch emulator that cuts, delays and replaces bytes at random."""

import contextlib
import select
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from werkzeug.serving import make_ssl_devcert

HOST = "cloudwatch.test"
"""The host name in the proxy's certificate."""

TLS_FAULTS = ("plain text for TLS", "end in the handshake", "certificate of another")
BYTE_FAULTS = tuple(
    f"{fault} in the {direction}"
    for fault in ("trickle", "half-close", "reset", "silence")
    for direction in ("request", "answer")
)
FAULTS = (*TLS_FAULTS, *BYTE_FAULTS, "idle close", "portal")

_MEAN_BYTES_BEFORE_A_CUT = {"request": 700, "answer": 200}
_MOST_SECONDS_OPEN = 20.0
_QUIET_SECONDS = 0.03
_PORTAL_BODY = b"<html><body>Please log in.</body></html>"
_PORTAL_STATUSES = (
    b"200 OK",
    b"204 No Content",
    b"302 Found",
    b"400 Bad Request",
    b"403 Forbidden",
    b"503 Unavailable",
)


@dataclass
class _Exchange:
    """The fault of one request and its response. It happens after ``left`` bytes in the direction that it names."""

    fault: str = ""
    left: int = 0

    def is_in(self, direction: str) -> bool:
        """Return whether the fault affects bytes in this direction."""
        return self.fault.endswith(direction)


class _EndedError(Exception):
    """The connection has ended."""


class CuttingProxy:
    """Accepts TLS connections within a ``with`` block, and forwards or damages their bytes.

    Each request gets one of ``faults`` with this ``probability``. ``happened`` counts the faults that occurred. The
    file ``certificate`` lets clients trust the proxy.
    """

    def __init__(self, target_port: int, directory: Path, random: Random) -> None:
        self.faults: Sequence[str] = ()
        self.probability = 0.0
        self.happened: Counter[str] = Counter()
        self.connections = 0
        self.certificate, self._context = _certified(directory / "trusted")
        _, self._others_context = _certified(directory / "other")
        self._target = ("127.0.0.1", target_port)
        self._random = random
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> "CuttingProxy":  # noqa: PYI034 - Python 3.10's typing has no Self
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts connections
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _draw(self, among: Sequence[str]) -> str:
        """Return a random fault that is possible here, or an empty string for no fault."""
        possible = [each for each in self.faults if each in among]
        return self._random.choice(possible) if possible and self._random.random() < self.probability else ""

    def _serve(self, connection: socket.socket) -> None:
        """Handle one connection until it ends."""
        connection.settimeout(_MOST_SECONDS_OPEN)
        fault = self._draw(TLS_FAULTS)
        with connection, contextlib.suppress(OSError, _EndedError):
            if fault:
                self.happened[fault] += 1
            if fault == "plain text for TLS":
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            elif fault == "end in the handshake":
                connection.recv(self._random.randrange(1, 200))
            else:
                context = self._others_context if fault else self._context
                with (
                    context.wrap_socket(connection, server_side=True) as client,
                    socket.create_connection(self._target, _MOST_SECONDS_OPEN) as server,
                ):
                    self._relay(client, server)

    def _relay(self, client: ssl.SSLSocket, server: socket.socket) -> None:
        exchange, was_answer = _Exchange(), True
        while True:
            source = _readable(
                client, server, _QUIET_SECONDS if exchange.fault == "idle close" and was_answer else None
            )
            if source is None:
                raise self._end("idle close")
            if source is client and was_answer:
                exchange = self._next_exchange()
            was_answer = source is server
            content = source.recv(65536)
            if not content:
                raise _EndedError
            if exchange.fault == "portal":
                self._answer_as_portal(client)
            self._forward(
                content, exchange, *((server, client, "answer") if was_answer else (client, server, "request"))
            )

    def _next_exchange(self) -> _Exchange:
        fault = self._draw((*BYTE_FAULTS, "idle close", "portal"))
        mean = _MEAN_BYTES_BEFORE_A_CUT.get(fault.rpartition(" ")[2])
        return _Exchange(fault, round(self._random.expovariate(1 / mean)) if mean else 0)

    def _forward(
        self, content: bytes, exchange: _Exchange, source: socket.socket, destination: socket.socket, direction: str
    ) -> None:
        """Forward bytes up to the position of the fault."""
        if not exchange.is_in(direction):
            destination.sendall(content)
        elif exchange.fault.startswith("trickle"):
            self._trickle(content, destination, exchange)
        elif len(content) < exchange.left:
            exchange.left -= len(content)
            destination.sendall(content)
        else:
            destination.sendall(content[: exchange.left])
            self._cut(exchange, source, destination)

    def _trickle(self, content: bytes, destination: socket.socket, exchange: _Exchange) -> None:
        self.happened[exchange.fault] += 1
        size = self._random.randrange(1, 200)
        for begin in range(0, len(content), size):
            destination.sendall(content[begin : begin + size])
            threading.Event().wait(self._random.uniform(0.0, 0.05))

    def _cut(self, exchange: _Exchange, source: socket.socket, destination: socket.socket) -> None:
        """Drop further bytes in this direction, and end the connection."""
        if exchange.fault.startswith("reset"):
            _reset_on_close(source)
            _reset_on_close(destination)
        elif exchange.fault.startswith("half-close"):
            destination.shutdown(socket.SHUT_WR)
            _wait_for_end(destination)
        else:
            _wait_for_end(source if exchange.is_in("request") else destination)
        raise self._end(exchange.fault)

    def _answer_as_portal(self, client: ssl.SSLSocket) -> None:
        """Respond as a captive portal does, without forwarding the request."""
        while _readable(client, client, _QUIET_SECONDS) and client.recv(65536):
            pass
        status = self._random.choice(_PORTAL_STATUSES)
        body = b"" if status.startswith(b"204") or self._random.random() < 0.3 else _PORTAL_BODY
        head = b"HTTP/1.1 %b\r\nContent-Type: text/html\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
        client.sendall(head % (status, len(body)) + body)
        raise self._end("portal")

    def _end(self, fault: str) -> _EndedError:
        self.happened[fault] += 1
        return _EndedError()


def _certified(path: Path) -> tuple[str, ssl.SSLContext]:
    """Return the file of a new certificate for ``HOST``, and an SSL context that uses it."""
    certificate, key = make_ssl_devcert(str(path), cn=HOST)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return certificate, context


def _readable(
    client: ssl.SSLSocket, server: socket.socket, timeout_seconds: float | None = None
) -> socket.socket | None:
    """Return the socket that has bytes to read, or ``None`` after the timeout. Raise an error after 20 s."""
    if client.pending():
        return client
    readable, _, _ = select.select([client, server], [], [], timeout_seconds or _MOST_SECONDS_OPEN)
    if not readable and timeout_seconds is None:
        raise _EndedError
    return readable[0] if readable else None


def _reset_on_close(connection: socket.socket) -> None:
    """Make closing the connection send a reset (RST)."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _wait_for_end(connection: socket.socket) -> None:
    """Read and discard bytes until the connection ends or the client must have given up."""
    while connection.recv(65536):
        pass
