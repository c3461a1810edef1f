"""Delivery with scripted clients and a fake clock."""

import itertools
import logging
import math
import threading
from collections.abc import Callable
from email.utils import formatdate
from math import inf
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    ReadTimeoutError,
)
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from otel_cloudwatch_flask.delivery.backlog import Backlog
from otel_cloudwatch_flask.delivery.batch import Envelope
from otel_cloudwatch_flask.delivery.boto_client import Client, plain_put
from otel_cloudwatch_flask.delivery.sender import Sender, backoff_seconds
from otel_cloudwatch_flask.delivery.stats import DeliveryStats, StatsRecorder
from otel_cloudwatch_flask.model.datum import Datum, Series
from otel_cloudwatch_flask.testing.fake import client_error
from tests.support.fakes import FakeClock, PassingWaits, ScriptedClient, eventually, in_threads, join_all

NOW = 1_790_000_000
TWO_WEEKS = 14 * 86400


def scripted(*script: Exception | None, before_each: Callable[[], object] = lambda: None) -> ScriptedClient:
    """Return a scripted client that runs on the fake clock of these tests."""
    return ScriptedClient(*script, before_each=before_each, clock=lambda: NOW)


class Setting:
    """A sender with a backlog, statistics and fake clocks."""

    def __init__(self, client: Client, *, make_client: Callable[[], Client] | None = None) -> None:
        self.clock = FakeClock()
        self.wall_clock = FakeClock(NOW)
        self.recorder = StatsRecorder()
        self.backlog = Backlog(10**8, self.recorder)
        self.sender = Sender(
            lambda: plain_put(make_client() if make_client else client),
            self.backlog,
            self.recorder,
            clock=self.clock,
            wall_clock=self.wall_clock,
        )
        self.waits = self.sender._expedited = PassingWaits(self.clock)
        self._namespaces = itertools.count()

    def add(self, *names: str, unix_seconds: int = NOW) -> None:
        """Add datums as one batch, in a new namespace so that the backlog does not combine it with other batches."""
        made = [Datum(Series(name, (), "Count"), unix_seconds, 1.0) for name in names]
        self.backlog.add(Envelope(f"Shop{next(self._namespaces)}").batches(made))

    def deliver(self, within_seconds: float = 1e6) -> bool:
        """Deliver with this timeout."""
        return self.sender.deliver(self.clock.now + within_seconds)

    def stats(self) -> DeliveryStats:
        """Return the statistics."""
        return self.recorder.stats(datums_pending=self.backlog.datums, metrics_active=0, metrics_overflowed=0)


class TestSuccess:
    """CloudWatch accepts every request."""

    def test_oldest_first(self) -> None:
        """The oldest batch is sent first, and each request is sent once."""
        client = scripted()
        setting = Setting(client)
        for name in ("a", "b", "c"):
            setting.add(name)
        assert setting.deliver()
        assert client.names() == [["a"], ["b"], ["c"]]
        assert setting.waits.waits == []

    def test_accounts(self) -> None:
        """Datums, requests, bytes and time are counted."""
        setting = Setting(scripted())
        setting.add("a", "b")
        size = setting.backlog.size_bytes
        assert setting.deliver()
        assert setting.stats() == DeliveryStats(datums_sent=2, requests_sent=1, bytes_sent=size, last_success=NOW)

    def test_nothing_to_do(self) -> None:
        """If no batch is pending, no client is created."""
        setting = Setting(scripted(), make_client=lambda: pytest.fail("a client was made"))
        assert setting.deliver()

    def test_the_client_is_made_once(self) -> None:
        """One client serves all requests."""
        made: list[ScriptedClient] = []

        def make_client() -> ScriptedClient:
            made.append(scripted())
            return made[-1]

        setting = Setting(scripted(), make_client=make_client)
        for name in "abc":
            setting.add(name)
            assert setting.deliver()
        assert len(made) == 1


TEMPORARY = {
    "throttled": client_error("ThrottlingException"),
    "limit": client_error("LimitExceeded"),
    "server": client_error("InternalServiceFault", status=500),
    "unavailable": client_error("503", status=503),
    "network": EndpointConnectionError(endpoint_url="https://monitoring"),
    "credentials": NoCredentialsError(),
    "expired-token": client_error("ExpiredToken", status=403),
    "region": NoRegionError(),
}


class TestRetries:
    """Temporary errors."""

    @pytest.mark.parametrize("error", TEMPORARY.values(), ids=TEMPORARY)
    def test_kept_until_it_is_taken(self, error: Exception) -> None:
        """Temporary errors are retried until a call succeeds; no datum is lost or reordered."""
        client = scripted(*[error] * 4)
        setting = Setting(client)
        setting.add("a")
        setting.add("b")
        assert setting.deliver()
        assert client.names() == [["a"]] * 5 + [["b"]]
        stats = setting.stats()
        assert (stats.datums_sent, stats.datums_pending, stats.datums_lost) == (2, 0, {})
        assert (stats.requests_sent, stats.requests_failed) == (2, 4)
        assert stats.last_error is not None

    def test_one_attempt_for_an_unknown_error(self) -> None:
        """An error of unknown kind ends a delivery; later deliveries retry, the last one until it succeeds."""
        client = scripted(*[RuntimeError("a bug in a program's own client")] * 4)
        setting = Setting(client)
        setting.add("a")
        setting.add("b")
        for attempts in (1, 2):
            assert not setting.deliver()
            assert client.names() == [["a"]] * attempts
        assert setting.sender.deliver(setting.clock.now + 1e6, is_last=True)
        assert client.names() == [["a"]] * 5 + [["b"]]
        assert (setting.stats().datums_sent, setting.stats().datums_lost) == (2, {})

    def test_datums_that_are_lost_after_an_unknown_error(self) -> None:
        """A delivery that only finds expired datums at first does not end as if its own attempt had failed."""
        client = DatedClient(
            None, RuntimeError("a bug in a program's own client"), clock=lambda: NOW + setting.clock.now
        )
        setting = Setting(client)
        setting.clock.now = 0.0
        setting.add("first")
        assert setting.deliver()
        setting.add("old", unix_seconds=NOW - TWO_WEEKS + 600)
        setting.add("new")
        assert not setting.deliver()
        setting.clock.advance(700)
        setting.wall_clock.advance(700)
        assert setting.deliver()
        assert client.names() == [["first"], ["old"], ["new"]]
        assert setting.stats().datums_lost == {"expired": 1}

    def test_backoff(self) -> None:
        """The delay between attempts grows up to a maximum, and is reset when a call succeeds."""
        client = scripted(*[client_error("InternalFailure", status=500)] * 12, None, client_error("503", status=503))
        setting = Setting(client)
        setting.add("a")
        assert setting.deliver()
        assert len(setting.waits.waits) == 12
        longest = [min(30.0, 0.5 * 2**i) for i in range(12)]
        assert all(0 < wait <= most for wait, most in zip(setting.waits.waits, longest, strict=True))
        assert max(setting.waits.waits) > 1
        setting.add("b")
        setting.deliver()
        assert setting.waits.waits[-1] <= 0.5

    def test_backoff_is_bounded_for_ever(self) -> None:
        """The delay never exceeds half a minute, no matter how long an outage lasts."""
        assert all(0 <= backoff_seconds(failures) <= 30 for failures in range(5000))

    def test_retry_after(self) -> None:
        """The next attempt waits for the time given by ``Retry-After``."""
        error = client_error("ThrottlingException")
        error.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] = "17"
        setting = Setting(scripted(error))
        setting.add("a")
        assert setting.deliver()
        assert setting.waits.waits == [pytest.approx(17)]

    @pytest.mark.parametrize("asked", ["31536000", "inf", "1e400"])
    def test_retry_after_has_a_bound(self, asked: str) -> None:
        """A ``Retry-After`` of a year is reduced to at most five minutes."""
        error = client_error("ThrottlingException")
        error.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] = asked
        setting = Setting(scripted(error))
        setting.add("a")
        assert setting.deliver(within_seconds=1000)
        assert setting.waits.waits[0] <= 300

    def test_lost_responses(self) -> None:
        """After three lost responses, retries are half a minute apart; potential duplicates are counted."""
        client = scripted(*[ReadTimeoutError(endpoint_url="https://monitoring")] * 5)
        setting = Setting(client)
        setting.add("a", "b")
        assert setting.deliver()
        assert max(setting.waits.waits[:2]) <= 1.0
        assert setting.waits.waits[2:] == [pytest.approx(30)] * 3
        stats = setting.stats()
        assert (stats.datums_sent, stats.datums_possibly_duplicated) == (2, 10)
        setting.add("c")
        assert setting.deliver()
        assert setting.stats().datums_possibly_duplicated == 10

    def test_deadline(self) -> None:
        """If the next attempt is due after the deadline, delivery returns at once and the batch stays pending."""
        error = client_error("ThrottlingException")
        error.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] = "17"
        client = scripted(error)
        setting = Setting(client)
        setting.add("a")
        assert not setting.deliver(within_seconds=10)
        assert (len(client.calls), setting.waits.waits, setting.backlog.datums) == (1, [], 1)
        assert setting.sender.retry_at == pytest.approx(setting.clock.now + 17)
        assert not setting.deliver(within_seconds=16)
        assert len(client.calls) == 1
        setting.clock.advance(17)
        assert setting.deliver(within_seconds=1)
        assert len(client.calls) == 2

    def test_past_deadline(self) -> None:
        """No call is made after the deadline."""
        client = scripted()
        setting = Setting(client)
        setting.add("a")
        assert not setting.deliver(within_seconds=0)
        assert client.calls == []

    def test_deadline_between_requests(self) -> None:
        """When a slow client uses up the time, later batches stay pending."""
        setting = Setting(client := scripted(before_each=lambda: setting.clock.advance(6)))
        for name in "abc":
            setting.add(name)
        assert not setting.deliver(within_seconds=10)
        assert client.names() == [["a"], ["b"]]
        assert setting.backlog.datums == 1

    def test_expedite_before(self) -> None:
        """After ``expedite()``, the next attempt is made at once, despite ``Retry-After``."""
        error = client_error("ThrottlingException")
        error.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] = "1000"
        client = scripted(error)
        setting = Setting(client)
        setting.add("a")
        assert not setting.deliver(within_seconds=5)
        setting.sender.expedite()
        assert setting.deliver(within_seconds=5)
        assert len(client.calls) == 2

    def test_expedite_allows_only_one_attempt(self) -> None:
        """If the attempt after ``expedite()`` fails too, the next one waits for its ``Retry-After``."""
        error = client_error("ThrottlingException")
        error.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] = "17"
        setting = Setting(scripted(error))
        setting.add("a")
        setting.sender.expedite()
        assert setting.deliver()
        assert setting.waits.waits == [17]

    def test_expedite_while_it_waits(self) -> None:
        """``expedite()`` also ends a wait in progress."""
        error = client_error("ThrottlingException")
        error.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] = "1000"
        client = scripted(error)
        backlog = Backlog(10**6, StatsRecorder())
        backlog.add(Envelope("Shop").batches([Datum(Series("a", (), "Count"), NOW, 1.0)]))
        sender = Sender(lambda: plain_put(client), backlog, StatsRecorder(), wall_clock=FakeClock(NOW))
        threads = in_threads(lambda: sender.deliver(inf))
        assert eventually(lambda: client.calls and sender.retry_at > -inf)
        sender.expedite()
        join_all(threads)
        assert len(client.calls) == 2


def test_an_answer_of_another_server_is_no_success() -> None:
    """A captive portal's page with status 200 is not a success; the batch is kept and retried."""
    portal = {"ResponseMetadata": {"HTTPStatusCode": 200, "HTTPHeaders": {"server": "portal"}, "RetryAttempts": 0}}
    confirmed = {"ResponseMetadata": {**portal["ResponseMetadata"], "RequestId": "b7a1"}}
    answers = [portal, portal, confirmed]

    class Client:
        def put_metric_data(self, **_request: Any) -> object:
            return answers.pop(0)

    setting = Setting(Client())
    setting.add("a")
    assert setting.deliver()
    stats = setting.stats()
    assert (stats.datums_sent, stats.requests_sent, stats.requests_failed) == (1, 1, 2)


class PickyClient:
    """A CloudWatch client that rejects every request that contains a bad datum."""

    def __init__(self) -> None:
        self.calls = 0
        self.stored: list[str] = []

    def put_metric_data(self, **request: Any) -> None:
        """Accept or reject the whole request."""
        self.calls += 1
        names = [datum["MetricName"] for datum in request["MetricData"]]
        if any(name.startswith("bad") for name in names):
            raise client_error("InvalidParameterValue", "The value is invalid")
        self.stored += names


class TestRefusals:
    """CloudWatch rejects a datum."""

    @pytest.mark.parametrize("place", [0, 1, 499, 500, 777, 999])
    def test_one_bad_datum(self, place: int) -> None:
        """A bad datum among a thousand is isolated in few calls, and all others arrive in order."""
        names = [f"good{i}" for i in range(1000)]
        names[place] = "bad"
        client = PickyClient()
        setting = Setting(client)
        setting.add(*names)
        assert setting.deliver()
        assert client.stored == [name for name in names if name != "bad"]
        assert client.calls <= 2 * math.log2(1000) + 2
        stats = setting.stats()
        assert (stats.datums_sent, stats.datums_lost) == (999, {"refused": 1})
        assert stats.last_error is not None
        assert "The value is invalid" in stats.last_error
        assert setting.waits.waits == []

    def test_all_bad(self, caplog: pytest.LogCaptureFixture) -> None:
        """Each bad datum is counted, and all of them together cause one log record."""
        setting = Setting(PickyClient())
        setting.add(*["bad"] * 8)
        assert setting.deliver()
        assert setting.stats().datums_lost == {"refused": 8}
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert "bad" in record.getMessage()
        assert "The value is invalid" in record.getMessage()

    def test_the_calls_of_one_delivery_are_bounded(self, caplog: pytest.LogCaptureFixture) -> None:
        """With a thousand bad datums, a delivery isolates some in at most 60 calls, and later batches are delivered."""
        client = PickyClient()
        setting = Setting(client)
        setting.add(*[f"bad{i}" for i in range(1000)])
        setting.add("good")
        assert not setting.deliver()
        assert client.calls <= 60
        assert client.stored == ["good"]
        lost = setting.stats().datums_lost["refused"]
        assert 0 < lost == 1000 - setting.stats().datums_pending
        assert len(caplog.records) == 1
        assert not setting.deliver()
        assert client.calls <= 60, "within ten seconds no further calls are made"
        for _ in range(60):
            setting.clock.advance(10)
            setting.deliver()
        assert setting.stats().datums_lost == {"refused": 1000}

    def test_the_last_delivery_isolates_all(self) -> None:
        """The last delivery delivers all good datums among bad ones."""
        client = PickyClient()
        setting = Setting(client)
        names = [f"{'bad' if i % 10 == 0 else 'good'}{i}" for i in range(500)]
        setting.add(*names)
        setting.sender.expedite(is_ending=True)
        assert setting.sender.deliver(setting.clock.now + 1, is_last=True)
        assert client.stored == [name for name in names if name.startswith("good")]

    def test_a_refused_series_is_remembered(self) -> None:
        """Datums of a rejected series are dropped without a call for ten minutes."""
        client = PickyClient()
        setting = Setting(client)
        setting.add("good", "bad")
        assert setting.deliver()
        calls = client.calls
        setting.add("good", "bad")
        assert setting.deliver()
        assert client.calls == calls + 1
        assert (setting.stats().datums_sent, setting.stats().datums_lost) == (2, {"refused": 2})
        setting.clock.advance(600)
        setting.add("bad")
        assert setting.deliver()
        assert client.calls == calls + 2

    def test_throttled_while_halving(self) -> None:
        """Throttling during the bisection loses no datum, and the bad datum is still isolated."""
        picky = PickyClient()
        throttle = iter([False, True, False, True, False, False, True])

        def throttled() -> None:
            if next(throttle, False):
                raise client_error("ThrottlingException")

        class Client:
            def put_metric_data(self, **request: Any) -> None:
                throttled()
                picky.put_metric_data(**request)

        setting = Setting(Client())
        setting.add("a", "b", "bad", "c", "d")
        assert setting.deliver()
        assert picky.stored == ["a", "b", "c", "d"]
        assert setting.stats().datums_lost == {"refused": 1}


class DatedClient(ScriptedClient):
    """A client whose responses and errors carry CloudWatch's time, like botocore's."""

    def put_metric_data(self, **request: Any) -> Any:
        """Add the time header."""
        metadata = {"RequestId": "b7a1", "HTTPHeaders": {"date": formatdate(self.cloudwatch._clock(), usegmt=True)}}
        try:
            response = super().put_metric_data(**request)
        except ClientError as error:
            error.response["ResponseMetadata"].update(metadata)  # type: ignore[typeddict-item]
            raise
        response["ResponseMetadata"].update(metadata)
        return response


class TestExpired:
    """Datums older than CloudWatch accepts."""

    def test_lost_and_counted(self, caplog: pytest.LogCaptureFixture) -> None:
        """A datum older than two weeks that CloudWatch rejects counts as expired; the others are sent."""
        client = scripted()
        setting = Setting(client)
        setting.add("old", unix_seconds=NOW - TWO_WEEKS - 60)
        setting.add("new")
        assert setting.deliver()
        assert client.names() == [["old"], ["new"]]
        assert setting.stats().datums_lost == {"expired": 1}
        assert "two weeks" in caplog.text
        setting.add("old")
        assert setting.deliver()
        assert setting.stats().datums_sent == 2

    def test_grows_old_while_it_waits(self) -> None:
        """A datum's age is checked before each attempt, against CloudWatch's clock."""
        now = FakeClock(NOW)
        client = DatedClient(None, *[client_error("503", status=503)] * 3, clock=now)
        setting = Setting(client)
        setting.add("first")
        assert setting.deliver()
        setting.add("older", unix_seconds=NOW - TWO_WEEKS + 600)
        setting.add("newer")
        assert not setting.deliver(within_seconds=1e-9)
        setting.clock.advance(700)
        now.advance(700)
        assert setting.deliver()
        assert setting.stats().datums_lost == {"expired": 1}
        assert client.names()[-1] == ["newer"]

    def test_each_by_its_own_time(self) -> None:
        """In one request, a datum that is too old is dropped, and one dated tomorrow gets the current time."""
        client = DatedClient(clock=lambda: NOW)
        setting = Setting(client)
        times = {"old": NOW - TWO_WEEKS - 60, "new": NOW, "tomorrow": NOW + 86400}
        made = [Datum(Series(name, (), "Count"), at, 1.0) for name, at in times.items()]
        setting.backlog.add(Envelope("Shop").batches(made))
        assert setting.deliver()
        assert client.names()[1:] == [["new", "tomorrow"]]
        assert [datum["Timestamp"].timestamp() for datum in client.calls[1]["MetricData"]] == [NOW, NOW]
        assert setting.stats().datums_lost == {"expired": 1}

    def test_a_machine_that_was_suspended(self) -> None:
        """After a suspension, which the monotonic clock does not count, timestamps are not changed."""
        setting = Setting(client := DatedClient(clock=lambda: setting.wall_clock.now))
        for _ in range(2):
            setting.add("a", unix_seconds=int(setting.wall_clock.now))
            assert setting.deliver()
            setting.wall_clock.advance(3 * 3600)
        times = [call["MetricData"][0]["Timestamp"].timestamp() for call in client.calls]
        assert times == [NOW, NOW + 3 * 3600]

    @pytest.mark.parametrize(
        "client", [scripted(client_error("503", status=503)), DatedClient(None, clock=lambda: NOW)]
    )
    @pytest.mark.parametrize("days", [15, -15])
    def test_a_clock_that_jumps(self, client: ScriptedClient, days: int) -> None:
        """A wrong system clock does not make datums expire, and does not change their timestamps."""
        setting = Setting(client)
        setting.wall_clock.advance(days * 86400)
        for name in ("a", "b"):
            setting.add(name)
            assert setting.deliver()
        assert client.names()[-1] == ["b"]
        assert setting.stats().datums_lost == {}
        assert [each["MetricData"][0]["Timestamp"].timestamp() for each in client.calls[-2:]] == [NOW, NOW]


class TestCredentials:
    """Missing credentials or a missing Region."""

    @pytest.mark.parametrize(
        ("error", "remedy"),
        [
            (NoCredentialsError(), "AWS_ACCESS_KEY_ID"),
            (client_error("AccessDenied", status=403), "cloudwatch:PutMetricData"),
            (NoRegionError(), "AWS_REGION"),
        ],
        ids=["none", "denied", "region"],
    )
    def test_one_warning_and_a_new_client(
        self, error: Exception, remedy: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An outage logs one warning with the remedy; each attempt creates a client, which looks for credentials."""
        made: list[ScriptedClient] = []

        def make_client() -> ScriptedClient:
            made.append(scripted(*[error] * (len(made) < 5)))
            return made[-1]

        setting = Setting(scripted(), make_client=make_client)
        setting.add("a")
        assert setting.deliver()
        assert len(made) == 6
        (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert remedy in warning.getMessage()
        assert setting.stats().datums_lost == {}

    def test_a_client_that_cannot_be_made(self) -> None:
        """An error during client creation is retried like a failed call."""
        errors: list[Exception] = [NoRegionError(), NoCredentialsError(), ImportError("boto3")]

        def make_client() -> ScriptedClient:
            if errors:
                raise errors.pop(0)
            return scripted()

        setting = Setting(scripted(), make_client=make_client)
        setting.add("a")
        assert not setting.deliver()
        assert setting.deliver()
        assert (setting.stats().datums_sent, setting.stats().requests_failed) == (1, 3)

    def test_speaks_again_in_the_next_outage(self, caplog: pytest.LogCaptureFixture) -> None:
        """The end of an outage is logged, and so is the next outage."""
        caplog.set_level(logging.INFO, "otel_cloudwatch_flask")
        setting = Setting(scripted(NoCredentialsError(), None, NoCredentialsError(), None))
        for name in "ab":
            setting.add(name)
            assert setting.deliver()
        levels = [record.levelname for record in caplog.records]
        assert levels == ["WARNING", "INFO", "WARNING", "INFO"]


def test_own_requests_are_not_instrumented() -> None:
    """Instrumentation of botocore or HTTP does not measure the requests of this package."""
    enabled: list[bool] = []
    setting = Setting(scripted(before_each=lambda: enabled.append(is_instrumentation_enabled())))
    setting.add("a")
    assert setting.deliver()
    assert enabled == [False]
    assert is_instrumentation_enabled()


class TestCalls:
    """Calls run in the thread that delivers, and set ``is_calling``."""

    def test_made_in_the_thread_that_delivers(self) -> None:
        """``is_calling`` is set for the duration of a call, even if the call fails."""
        calls: list[tuple[threading.Thread, bool]] = []
        setting = Setting(
            scripted(
                client_error("503", status=503),
                before_each=lambda: calls.append((threading.current_thread(), setting.sender.is_calling)),
            )
        )
        setting.add("a")
        assert setting.deliver()
        assert calls == [(threading.current_thread(), True)] * 2
        assert not setting.sender.is_calling

    def test_a_client_is_replaced_while_it_is_created(self) -> None:
        """A client that has been replaced while it was being created is not used."""
        old, new = scripted(), scripted()
        clients = [new, old]

        def make_client() -> Client:
            client = clients.pop()
            if client is old:
                setting.sender.renew_client()
            return client

        setting = Setting(old, make_client=make_client)
        setting.add("a")
        assert setting.deliver()
        assert (old.calls, len(new.calls)) == ([], 1)

    @pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
    def test_an_interrupt_keeps_the_batch(self, interrupt: type[BaseException]) -> None:
        """Ctrl-C, or a SIGTERM handler that raises, propagates from a call and leaves the batch pending."""
        interrupts = [interrupt()]

        def raise_once() -> None:
            if interrupts:
                raise interrupts.pop()

        setting = Setting(scripted(before_each=raise_once))
        setting.add("a")
        with pytest.raises(interrupt):
            setting.deliver()
        assert not setting.sender.is_calling
        assert setting.stats().datums_pending == 1
        assert setting.deliver()
        assert setting.stats().datums_sent == 1


class TestEnd:
    """After ``expedite(is_ending=True)``, only the last delivery makes calls."""

    def test_others_make_no_calls(self) -> None:
        """Deliveries other than the last one make no calls."""
        client = scripted()
        setting = Setting(client)
        setting.add("a")
        setting.sender.expedite(is_ending=True)
        assert not setting.deliver()
        assert client.calls == []
        assert setting.sender.deliver(setting.clock.now + 1, is_last=True)
        assert client.names() == [["a"]]

    def test_a_delivery_in_progress_stops_between_calls(self) -> None:
        """If shutdown begins during a call, the remaining batches are left for the last delivery."""
        client = scripted(before_each=lambda: setting.sender.expedite(is_ending=True))
        setting = Setting(client)
        setting.add("a")
        setting.add("b")
        assert not setting.deliver()
        assert client.names() == [["a"]]
        assert not setting.sender.is_calling
        assert setting.sender.deliver(setting.clock.now + 1, is_last=True)
        assert client.names() == [["a"], ["b"]]

    @pytest.mark.parametrize("error", [NoCredentialsError(), NoRegionError()], ids=["credentials", "region"])
    def test_does_not_wait_for_an_operator(self, error: Exception) -> None:
        """Without credentials or a Region, the last delivery makes one attempt and does not wait."""
        client = scripted(*[error] * 9)
        setting = Setting(client)
        setting.add("a")
        setting.sender.expedite(is_ending=True)
        assert not setting.sender.deliver(setting.clock.now + 1000, is_last=True)
        assert (len(client.calls), setting.waits.waits) == (1, [])
