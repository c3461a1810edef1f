"""A CloudWatch emulator that fails in every way, and records which requests it stored without responding."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from werkzeug.wsgi import ClosingIterator

from otel_cloudwatch_flask.testing.local.server import Fault, LocalCloudWatch
from otel_cloudwatch_flask.testing.request_rules import datums_of
from tests.support.fakes import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

SERVER_ERROR = Fault("InternalServiceError", 500)
THROTTLED = Fault("Throttling", 400)
DROPPED = Fault(status=None)
STORED_AND_DROPPED = Fault(status=None, after_storing=True)
EXPIRED_TOKEN = Fault("ExpiredToken", 403)
BAD_SIGNATURE = Fault("SignatureDoesNotMatch", 403)

FOR_EVER_SECONDS = 3600.0
MAX_CLOCK_SKEW_SECONDS = 300
"""https://docs.aws.amazon.com/IAM/latest/UserGuide/signature-v4-troubleshooting.html"""


class FailingCloudWatch(LocalCloudWatch):
    """A strict CloudWatch emulator that applies ``fault`` to each request, and can refuse connections.

    ``repeated`` counts the samples of each metric in requests that were stored without a response: the sender must send
    them again, so exactly these samples are stored twice. ``arrivals`` are the times of all requests
    (``time.monotonic()``). With ``judges_signatures``, requests signed with a wrong clock are rejected, as AWS does.
    """

    def __init__(self, *, judges_signatures: bool = False) -> None:
        self._released = threading.Event()
        super().__init__(answer_with=self._fault, sleep=self._sleep_unless_released)
        self.fault: Callable[[Mapping[str, Any]], Fault | None] = lambda _: None
        self.repeated: Counter[str] = Counter()
        self.arrivals: list[float] = []
        self._judges_signatures = judges_signatures
        self._is_closing = False
        self._unanswered: set[object] = set()
        self._current = threading.local()
        self._port = 0

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Respond to a request (WSGI). It counts as unanswered until the response is written."""
        token = object()
        self._unanswered.add(token)
        self.arrivals.append(time.monotonic())
        self._current.has_hung = False
        self._current.signed_at = environ.get("HTTP_X_AMZ_DATE")
        try:
            answer = super().__call__(environ, start_response)
        except BaseException:
            self._unanswered.discard(token)
            raise
        return ClosingIterator(answer, lambda: self._unanswered.discard(token))

    def always(self, fault: Fault | None) -> None:
        """Apply this fault to all requests until the next call."""
        self.fault = lambda _: fault

    def refuse_connections(self) -> None:
        """Stop listening, after responding to every stored request."""
        self._is_closing = True
        assert eventually(lambda: not self._unanswered)
        self._port = int(self.endpoint_url.rpartition(":")[2])
        self.stop()

    def accept_connections(self) -> None:
        """Start listening again."""
        self._is_closing = False
        self.start(port=self._port)

    @contextmanager
    def hanging(self) -> "Iterator[None]":
        """Accept requests without responding; drop them at the end, because their senders may have given up."""
        self.latency_seconds = FOR_EVER_SECONDS
        try:
            yield
        finally:
            self.latency_seconds = 0
            self._released.set()

    def exactly_once(self, name: str) -> float:
        """Return the sum of a metric, without the samples that had to be sent twice."""
        return self.published.sum(name) - self.repeated[name]

    def _sleep_unless_released(self, seconds: float) -> None:
        self._current.has_hung = seconds == FOR_EVER_SECONDS
        self._released.wait(seconds)

    def _fault(self, parameters: Mapping[str, Any]) -> Fault | None:
        if self._is_closing or self._current.has_hung:
            return DROPPED
        fault = BAD_SIGNATURE if self._judges_signatures and self._is_skewed() else self.fault(parameters)
        if fault is not None and fault.after_storing:
            for datum in datums_of(parameters):
                self.repeated[datum["MetricName"]] += sum_of(datum)
        return fault

    def _is_skewed(self) -> bool:
        signed_at = datetime.strptime(self._current.signed_at, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
        return abs(signed_at.timestamp() - time.time()) > MAX_CLOCK_SKEW_SECONDS


def sum_of(datum: Mapping[str, Any]) -> int:
    """Return the sum of a datum with integer values."""
    values, counts = datum.get("Values") or [datum["Value"]], datum.get("Counts") or [1]
    return int(sum(value * count for value, count in zip(values, counts, strict=True)))
