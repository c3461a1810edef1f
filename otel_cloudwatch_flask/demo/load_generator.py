"""The shop's visitors: real HTTP requests over connections that are kept alive, and a note of each answer."""

import http.client
import itertools
import json
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

_TIMEOUT_SECONDS: Final = 30.0
_FOR_EVER: Final = 1e9
_WORDS: Final = ("tea", "coffee", "lamp", "o", "unicorn")
_PAYMENTS: Final = ("card",) * 12 + ("invoice",) * 6 + ("voucher",) * 2


@dataclass(frozen=True, slots=True)
class Visit:
    """A request. ``route`` is the rule of the shop that it meets, or ``None``."""

    method: str
    route: str | None
    path: str
    body: Any = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the status and the JSON of it, and how long that took the visitor."""

    visit: Visit
    status: int
    body: Any
    milliseconds: float


def visits(seed: int) -> Iterator[Visit]:
    """Visits without end, the same for the same seed; the first ten are one of each kind."""
    source = random.Random(seed)  # noqa: S311 - no secret
    kinds = [_index, _product, _search, _cart, _checkout, _refund, _slow, _missing_product, _unknown_page, _expensive]
    weights = [24, 30, 12, 14, 12, 2, 1, 2, 1, 2]
    for kind in itertools.chain(kinds, iter(lambda: source.choices(kinds, weights)[0], None)):
        yield kind(source)


def _index(_: random.Random) -> Visit:
    return Visit("GET", "/", "/")


def _product(source: random.Random) -> Visit:
    return Visit("GET", "/products/<int:product_id>", f"/products/{source.randint(1, 8)}")


def _missing_product(source: random.Random) -> Visit:
    return Visit("GET", "/products/<int:product_id>", f"/products/{source.randint(100, 999)}")


def _search(source: random.Random) -> Visit:
    return Visit("GET", "/search", f"/search?q={source.choice(_WORDS)}")


def _cart(source: random.Random) -> Visit:
    return Visit("POST", "/cart", "/cart", _basket(source))


def _checkout(source: random.Random) -> Visit:
    return Visit("POST", "/checkout", f"/checkout?payment={source.choice(_PAYMENTS)}", _basket(source))


def _expensive(source: random.Random) -> Visit:
    return Visit("POST", "/checkout", "/checkout?payment=invoice", {"6": source.randint(3, 9)})


def _refund(source: random.Random) -> Visit:
    return Visit("POST", "/refunds", "/refunds", {"amount": round(source.uniform(5, 100), 2)})


def _slow(_: random.Random) -> Visit:
    return Visit("GET", "/slow", "/slow")


def _unknown_page(source: random.Random) -> Visit:
    return Visit("GET", None, f"/wp-login-{source.randint(1, 99)}.php")


def _basket(source: random.Random) -> dict[str, int]:
    """Mostly small things, and not too much of the expensive ones: the shop declines large payments."""
    products = source.sample((1, 3, 4, 5, 7, 8), source.randint(1, 4))
    return {str(product): source.randint(1, 2) for product in products}


@dataclass(slots=True)
class Traffic:
    """Visitors at a shop: ``visitors`` threads that together make ``rate`` visits a second, for some seconds.

    Ends early with the last of ``visits``; without a rate, they follow each other at once. A visitor comes back over a
    new connection after ``visits_per_connection``. ``answers`` grow meanwhile; ``failures`` are the visits that got
    none.
    """

    url: str
    visits: Iterator[Visit]
    seconds: float
    rate: float | None = None
    visitors: int = 8
    visits_per_connection: int = 100
    answers: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list, init=False)
    _stopping: threading.Event = field(default_factory=threading.Event, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _begun: int = field(default=0, init=False)
    _started_at: float = field(default=0.0, init=False)
    _ended_at: float = field(default=0.0, init=False)

    def start(self) -> None:
        """Let them come."""
        self._started_at = time.monotonic()
        self._threads = [
            threading.Thread(target=self._visit, name=f"visitor-{number}", daemon=True)
            for number in range(self.visitors)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let them finish what they are at, and come no more."""
        self._stopping.set()

    def wait(self, timeout_seconds: float = _FOR_EVER) -> bool:
        """Whether the last one has left, within the time."""
        deadline = time.monotonic() + timeout_seconds
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
        if any(map(threading.Thread.is_alive, self._threads)):
            return False
        self._ended_at = self._ended_at or time.monotonic()
        return True

    @property
    def elapsed_seconds(self) -> float:
        """Since the first came, until the last had left."""
        return (self._ended_at or time.monotonic()) - self._started_at

    def _visit(self) -> None:
        """One visitor's way through the shop."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=_TIMEOUT_SECONDS)
        for number in itertools.count(1):
            if (visit := self._next()) is None:
                break
            try:
                self.answers.append(_answer(connection, visit))
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{visit.method} {visit.path}: {error!r}")
                connection.close()
            if number % self.visits_per_connection == 0:
                connection.close()  # and the next request opens it again
        connection.close()

    def _next(self) -> Visit | None:
        """The next visit, when its time has come; ``None`` after the last."""
        with self._lock:
            visit = next(self.visits, None)
            begun, self._begun = self._begun, self._begun + 1
        due = begun / self.rate if self.rate else 0.0
        if due >= self.seconds or self.elapsed_seconds >= self.seconds:
            return None
        is_stopped = self._stopping.wait(max(self._started_at + due - time.monotonic(), 0.0))
        return None if is_stopped else visit


def _answer(connection: http.client.HTTPConnection, visit: Visit) -> Answer:
    begun = time.perf_counter()
    body = None if visit.body is None else json.dumps(visit.body)
    connection.request(visit.method, visit.path, body, {"Content-Type": "application/json"} if body else {})
    response = connection.getresponse()
    content = response.read()
    milliseconds = (time.perf_counter() - begun) * 1000
    is_json = response.headers.get_content_type() == "application/json"
    return Answer(visit, response.status, json.loads(content) if is_json else None, milliseconds)
