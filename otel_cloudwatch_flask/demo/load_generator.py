"""Simulate visitors to the shop with threads that send real HTTP requests and record the responses."""

import http.client
import itertools
import json
import math
import random
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

_TIMEOUT_SECONDS: Final = 30.0
_REQUESTS_PER_CONNECTION: Final = 100
"""How often a visitor opens a new connection, which another worker of a server may accept."""
_WORDS: Final = ("tea", "coffee", "lamp", "o", "unicorn")
_PAYMENTS: Final = ("card",) * 12 + ("invoice",) * 6 + ("voucher",) * 2


@dataclass(frozen=True, slots=True)
class ShopRequest:
    """A request to the shop. ``route`` is the URL rule that matches the path, or ``None`` if no rule matches."""

    method: str
    route: str | None
    path: str
    body: Any = None


@dataclass(frozen=True, slots=True)
class ShopResponse:
    """The response to a request. ``milliseconds`` is the response time, and ``body`` is ``None`` unless it was JSON."""

    request: ShopRequest
    status: int
    body: Any
    milliseconds: float


def shop_requests(seed: int) -> Iterator[ShopRequest]:
    """Yield an endless sequence of requests, starting with one of each kind. ``seed`` determines the sequence."""
    source = random.Random(seed)  # noqa: S311 - not used for security
    kinds = [_index, _product, _search, _cart, _checkout, _refund, _slow, _missing_product, _unknown_page, _expensive]
    weights = [24, 30, 12, 14, 12, 2, 1, 2, 1, 2]
    for kind in itertools.chain(kinds, iter(lambda: source.choices(kinds, weights)[0], None)):
        yield kind(source)


def _index(_: random.Random) -> ShopRequest:
    return ShopRequest("GET", "/", "/")


def _product(source: random.Random) -> ShopRequest:
    return ShopRequest("GET", "/products/<int:product_id>", f"/products/{source.randint(1, 8)}")


def _missing_product(source: random.Random) -> ShopRequest:
    return ShopRequest("GET", "/products/<int:product_id>", f"/products/{source.randint(100, 999)}")


def _search(source: random.Random) -> ShopRequest:
    return ShopRequest("GET", "/search", f"/search?q={source.choice(_WORDS)}")


def _cart(source: random.Random) -> ShopRequest:
    return ShopRequest("POST", "/cart", "/cart", _basket(source))


def _checkout(source: random.Random) -> ShopRequest:
    return ShopRequest("POST", "/checkout", f"/checkout?payment={source.choice(_PAYMENTS)}", _basket(source))


def _expensive(source: random.Random) -> ShopRequest:
    return ShopRequest("POST", "/checkout", "/checkout?payment=invoice", {"6": source.randint(3, 9)})


def _refund(source: random.Random) -> ShopRequest:
    return ShopRequest("POST", "/refunds", "/refunds", {"amount": round(source.uniform(5, 100), 2)})


def _slow(_: random.Random) -> ShopRequest:
    return ShopRequest("GET", "/slow", "/slow")


def _unknown_page(source: random.Random) -> ShopRequest:
    return ShopRequest("GET", None, f"/wp-login-{source.randint(1, 99)}.php")


def _basket(source: random.Random) -> dict[str, int]:
    """Return product quantities with a moderate total price, because the shop declines large payments."""
    products = source.sample((1, 3, 4, 5, 7, 8), source.randint(1, 4))
    return {str(product): source.randint(1, 2) for product in products}


class LoadGenerator:
    """A group of threads, one for each visitor, that send requests to the shop.

    ``responses`` are the responses so far, and ``failures`` describe the requests without a response.

    :param requests: the requests to send. The threads end early if these run out.
    :param seconds: duration of the traffic.
    :param rate: total number of requests per second. By default, each visitor sends requests without pauses.
    """

    def __init__(
        self, url: str, requests: Iterable[ShopRequest], *, seconds: float, visitors: int, rate: float = math.inf
    ) -> None:
        self.responses: list[ShopResponse] = []
        self.failures: list[str] = []
        self._host = urlsplit(url).netloc
        self._requests = enumerate(requests)
        self._seconds = seconds
        self._rate = rate
        self._threads = [threading.Thread(target=self._send_requests, daemon=True) for _ in range(visitors)]
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._started_at = self._ended_at = 0.0

    def start(self) -> None:
        """Start the threads."""
        self._started_at = time.monotonic()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Tell the threads to end after their current requests. Does not wait for them to end."""
        self._stopping.set()

    def wait(self, timeout_seconds: float) -> bool:
        """Wait for the threads to end. Returns whether all of them ended before the timeout."""
        deadline = time.monotonic() + timeout_seconds
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
        if any(map(threading.Thread.is_alive, self._threads)):
            return False
        self._ended_at = self._ended_at or time.monotonic()
        return True

    @property
    def elapsed_seconds(self) -> float:
        """The number of seconds since the start or, once :meth:`wait` has returned ``True``, the total duration."""
        return (self._ended_at or time.monotonic()) - self._started_at

    def _send_requests(self) -> None:
        """Send requests on behalf of one visitor."""
        connection = http.client.HTTPConnection(self._host, timeout=_TIMEOUT_SECONDS)
        for number in itertools.count(1):
            if (request := self._next()) is None:
                break
            try:
                self.responses.append(_response(connection, request))
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{request.method} {request.path}: {error!r}")
                connection.close()
            if number % _REQUESTS_PER_CONNECTION == 0:
                connection.close()  # http.client reopens it for the next request
        connection.close()

    def _next(self) -> ShopRequest | None:
        """Wait until the next request is due and return it, or return ``None`` if the traffic is over."""
        with self._lock:
            number, request = next(self._requests, (0, None))
        # Requests follow a fixed schedule, so that a slow response does not lower the rate.
        due = number / self._rate
        if due >= self._seconds or self.elapsed_seconds >= self._seconds:
            return None
        is_stopped = self._stopping.wait(max(self._started_at + due - time.monotonic(), 0.0))
        return None if is_stopped else request


def _response(connection: http.client.HTTPConnection, request: ShopRequest) -> ShopResponse:
    begun = time.perf_counter()
    body = None if request.body is None else json.dumps(request.body)
    connection.request(request.method, request.path, body, {"Content-Type": "application/json"} if body else {})
    response = connection.getresponse()
    content = response.read()
    milliseconds = (time.perf_counter() - begun) * 1000
    is_json = response.headers.get_content_type() == "application/json"
    return ShopResponse(request, response.status, json.loads(content) if is_json else None, milliseconds)
