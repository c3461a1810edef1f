"""Send the backlog to CloudWatch, with retries, backoff and bisection."""

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final

from otel_cloudwatch_flask.delivery.backlog import Backlog
from otel_cloudwatch_flask.delivery.batch import Batch
from otel_cloudwatch_flask.delivery.boto_client import Put
from otel_cloudwatch_flask.delivery.error_codes import Failure, Kind, failure, service_time, unconfirmed
from otel_cloudwatch_flask.delivery.stats import LossReason, StatsRecorder
from otel_cloudwatch_flask.limits import MAX_AGE_SECONDS, MAX_AHEAD_SECONDS
from otel_cloudwatch_flask.model.datum import Datum, Series
from otel_cloudwatch_flask.runtime.process import no_fork
from otel_cloudwatch_flask.runtime.rate_limited_log import RateLimitedLog

_logger = logging.getLogger(__name__)
# Not the generator of the random module: a program that has seeded it expects the same numbers in each run.
_random: Final = random.SystemRandom()

_FIRST_BACKOFF_SECONDS: Final = 0.5
_LONGEST_BACKOFF_SECONDS: Final = 30.0
_MAX_RETRY_AFTER_SECONDS: Final = 300.0
"""The upper bound for ``Retry-After``. A proxy may send any value, and the backlog cannot grow forever."""
_MAX_LOST_RESPONSES: Final = 3
"""The number of lost responses after which the longest backoff applies, because each retry may store a duplicate."""

_MAX_BISECTION_CALLS: Final = 50
"""Maximum number of bisection calls within ``_BISECTION_SECONDS``. One refused request could cause 2,000 calls."""
_BISECTION_SECONDS: Final = 10.0
_REFUSED_SERIES_SECONDS: Final = 600.0
"""How long the datums of a series are lost without another call after CloudWatch refused one of them."""

_OPERATOR_REMEDIES: Final = {
    Kind.CREDENTIALS: "Provide credentials that allow cloudwatch:PutMetricData: an instance or task role, "
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE. Also check that the system clock is correct.",
    Kind.CONFIGURATION: "Set AWS_REGION, or region_name, to the Region to publish in. If the error names a profile, "
    "correct AWS_PROFILE.",
}
_OUTAGE_REMEDIES: Final = {
    Kind.THROTTLED: "set flush='interval' or increase flush_min_interval_seconds to send fewer requests.",
    Kind.SERVER: "check the AWS Health Dashboard.",
    Kind.NETWORK: "check that this process can reach CloudWatch: its proxy, VPC endpoint, security group and DNS.",
    Kind.STREAM: "check that standard output, or the stream that was passed, is open, and that its reader keeps up.",
    Kind.UNKNOWN: "fix the problem that the error reports.",
}


class Sender:
    """Sends pending batches, oldest first, until all are delivered or lost, or until a deadline passes.

    Only one thread at a time may deliver. That thread makes the calls itself, and checks the deadline between them. A
    call in progress ends when CloudWatch responds or the client times out.
    """

    def __init__(
        self,
        make_put: Callable[[], Put],
        backlog: Backlog,
        stats_recorder: StatsRecorder,
        *,
        on_accepted: Callable[[Batch], object] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        has_responses: bool = True,
    ) -> None:
        self.retry_at = -math.inf
        """The earliest time on ``clock`` for the next attempt after a failure."""
        self.is_calling = False
        """Whether a thread may be making a call to CloudWatch, which cannot be interrupted."""
        self.last_failure: Failure | None = None
        """The reason that the latest call failed, or ``None`` if it succeeded."""
        self._make_put = make_put
        self._on_accepted = on_accepted
        self._puts: list[Put] = []
        """The function that sends with the current client, or no item if the next call has to create the client."""
        self._backlog = backlog
        self._stats_recorder = stats_recorder
        self._clock = clock
        self._wall_clock = wall_clock
        self._has_responses = has_responses
        self._expedited = threading.Event()
        self._is_ending = False
        self._failures = 0
        """The number of failures since CloudWatch last accepted a batch."""
        self._service_clock_offset: float | None = None
        """CloudWatch's time minus the time on ``clock``. Used for expiry, because the wall clock may jump."""
        self._wall_clock_offset = 0.0
        """The wall clock's time minus the time on ``clock`` at the same moment. It changes if either clock jumps."""
        self._lost_responses = 0
        """The number of lost responses since CloudWatch last accepted a batch."""
        self._bisection_calls = 0
        self._bisection_period_end = -math.inf
        self._refused_series: dict[Series, tuple[float, str]] = {}
        """The series of which CloudWatch has refused a datum: until when they count as refused, and its message."""
        self._each_minute = RateLimitedLog(_logger, interval_seconds=60.0, clock=clock)
        self._once_an_outage = RateLimitedLog(_logger)

    @property
    def is_unexplained(self) -> bool:
        """Whether the latest call failed for an unknown reason, such as a bug in the program's own client.

        The next attempt is likely to fail too, so the current delivery stops, and a later delivery retries.
        """
        return self.last_failure is not None and self.last_failure.kind is Kind.UNKNOWN

    def expedite(self, *, is_ending: bool = False) -> None:
        """Allow the next attempt immediately, and wake any thread that is waiting for ``retry_at``.

        If ``is_ending`` is true, deliveries in progress stop before their next call. From then on, only a delivery with
        ``is_last`` makes calls.
        """
        self._is_ending = self._is_ending or is_ending
        self.retry_at = -math.inf
        self._expedited.set()

    def renew_client(self) -> None:
        """Discard the client and the backoff, so that the next call uses a new client and can be made immediately."""
        self._puts = []
        self._failures = 0
        self.expedite()

    def deliver(self, deadline: float, *, is_last: bool = False) -> bool:
        """Send the pending batches. Returns ``False`` if some of them are still pending.

        :param deadline: a time on ``clock``.
        :param is_last: whether this is the exporter's last delivery. The last delivery ignores the limit on bisection
            calls, and does not wait for credentials or a Region, which only an operator can provide.
        """
        while self._backlog.datums:
            if not self._wait_for_retry(deadline, is_last=is_last):
                return False
            # Set before _is_ending is read, because a shutdown sets _is_ending before it reads is_calling.
            self.is_calling = True
            try:
                if (self._is_ending and not is_last) or not self._send_oldest(is_last=is_last):
                    return False
            finally:
                self.is_calling = False
        return True

    def _wait_for_retry(self, deadline: float, *, is_last: bool) -> bool:
        """Wait until ``retry_at``. Returns ``False`` at once if no attempt should be made before ``deadline``."""
        now = self._clock()
        if now >= deadline or self.retry_at >= deadline:
            return False
        if self.retry_at > now:
            if is_last and self.last_failure and self.last_failure.kind in _OPERATOR_REMEDIES:
                return False
            # An event instead of a sleep, so that a shutdown or a new client can end the wait.
            self._expedited.wait(self.retry_at - now)
        # Also without a wait: an event that stayed set would end the wait after the next failure.
        self._expedited.clear()
        return True

    def _send_oldest(self, *, is_last: bool) -> bool:
        """Send the oldest batch with at most one call, and settle it even if an exception is raised.

        Returns ``False`` if no batch could be checked out, or if the attempt failed for an unknown reason and later
        deliveries can retry.
        """
        batch = self._backlog.check_out(skips_suspects=not (is_last or self._may_bisect()))
        if batch is None:
            return False
        remaining: Sequence[Batch] = (batch,)
        failures = self._failures
        try:
            remaining = self._sent(batch)
        finally:
            self._backlog.settle(remaining)
        has_failed = self._failures > failures  # not if no call was necessary
        return is_last or not (has_failed and self.is_unexplained)

    def _may_bisect(self) -> bool:
        """Return whether the limit on bisection calls allows another call now."""
        now = self._clock()
        if now >= self._bisection_period_end:
            self._bisection_calls, self._bisection_period_end = 0, now + _BISECTION_SECONDS
        return self._bisection_calls < _MAX_BISECTION_CALLS

    def _sent(self, batch: Batch) -> Sequence[Batch]:
        """Send ``batch``, or adjust it if CloudWatch would refuse some of its datums.

        Returns the batches that still have to be sent in its place.
        """
        sendable = self._with_accepted_times(self._accepted_series(batch.datums), self._service_time())
        if sendable != batch.datums or not sendable:
            # Settle the reduced batch before sending it. During a call, its lost datums would still count as pending.
            return (Batch(batch.envelope, sendable, is_suspect=batch.is_suspect),)
        # Only bisection is limited: ordinary calls are paced by the reader and the backoff.
        self._bisection_calls += batch.is_suspect
        return self._remaining(batch, self._try_put(batch))

    def _accepted_series(self, datums: tuple[Datum, ...]) -> tuple[Datum, ...]:
        """Return ``datums`` without those of recently refused series, which are counted as lost."""
        now = self._clock()
        self._refused_series = {series: each for series, each in self._refused_series.items() if each[0] > now}
        if not self._refused_series:  # usually, and hashing the series of every datum would be wasted
            return datums
        accepted = []
        for datum in datums:
            if refusal := self._refused_series.get(datum.series):
                self._lose_refused(datum, refusal[1])
            else:
                accepted.append(datum)
        return tuple(accepted)

    def _remaining(self, batch: Batch, problem: Failure | None) -> Sequence[Batch]:
        """Handle the outcome of an attempt, and return the batches that still have to be sent in place of ``batch``."""
        self.last_failure = problem
        if problem is None:
            self._lost_responses = 0
            self._accepted(batch)
            return ()
        if problem.written:
            self._accepted(Batch(batch.envelope, problem.written))
            batch = Batch(batch.envelope, problem.unwritten)
        possibly_stored = len(batch.datums) if problem.may_be_stored else 0
        self._stats_recorder.failed(problem.message, datums_possibly_stored=possibly_stored)
        self._lost_responses += problem.may_be_stored
        if problem.kind is Kind.REFUSED:
            return self._refused(batch, problem)
        self._postpone(problem)
        if problem.kind in _OPERATOR_REMEDIES:
            self._puts = []  # a boto3 client looks for credentials only once, so the next attempt needs a new client
        return (batch,)

    def _service_time(self) -> float | None:
        """Return CloudWatch's current time, based on its last response, or ``None`` if that is unknown.

        It is unknown before the first response and after one of the clocks has jumped. While a machine is suspended,
        ``time.monotonic`` usually stands still.

        Streams have no responses, so for a stream this returns the machine's time.
        """
        if not self._has_responses:
            return self._wall_clock()
        has_jumped = abs(self._wall_clock() - self._clock() - self._wall_clock_offset) > MAX_AHEAD_SECONDS
        return None if self._service_clock_offset is None or has_jumped else self._clock() + self._service_clock_offset

    def _with_accepted_times(self, datums: tuple[Datum, ...], now: float | None) -> tuple[Datum, ...]:
        """Return ``datums`` with every timestamp acceptable to CloudWatch at ``now``, a Unix time.

        Datums that are too old are removed and counted as lost. A datum too far in the future was recorded while the
        clock was wrong, so its timestamp is set to ``now``. If ``now`` is ``None``, all are returned unchanged.
        """
        if now is None or not datums:
            return datums
        oldest, newest = now - MAX_AGE_SECONDS, now + MAX_AHEAD_SECONDS
        times = [datum.unix_seconds for datum in datums]
        if oldest < min(times) and max(times) <= newest:
            return datums
        timely = tuple(
            datum if datum.unix_seconds <= newest else datum._replace(unix_seconds=int(now))
            for datum in datums
            if datum.unix_seconds > oldest
        )
        if expired := len(datums) - len(timely):
            self._stats_recorder.lost(LossReason.EXPIRED, expired)
            self._each_minute.error(
                "expired",
                "%d data point(s) expired and are lost: CloudWatch does not accept data older than two weeks. Fix the "
                "delivery problem logged earlier.",
                expired,
            )
        return timely

    def _try_put(self, batch: Batch) -> Failure | None:
        begun = self._clock()
        try:
            with _uninstrumented():
                response = self._current_put()(batch)
            problem = unconfirmed(response)
        except Exception as error:  # noqa: BLE001 - the boundary to boto3 and to clients of any kind
            response, problem = error, failure(error)
        finally:
            self._stats_recorder.count(requests_seconds=self._clock() - begun)
        unix_time = service_time(response)
        if unix_time is not None:
            self._service_clock_offset = unix_time - self._clock()
            self._wall_clock_offset = self._wall_clock() - self._clock()
        return problem

    def _current_put(self) -> Put:
        """Return the function that sends with the current client. If necessary, create the client."""
        while not (puts := self._puts):
            # If another thread replaces the client meanwhile, the list is no longer in use, and the loop continues.
            puts.append(self._make_put())
        return puts[0]

    def _accepted(self, batch: Batch) -> None:
        self._stats_recorder.sent(datums=len(batch.datums), size_bytes=batch.size_bytes, unix_time=self._wall_clock())
        self._on_accepted(batch)
        if self._failures:
            _logger.info("Metrics can be sent again; sending %d pending data point(s).", self._backlog.datums)
            self._failures = 0
            self._once_an_outage = RateLimitedLog(_logger)

    def _refused(self, batch: Batch, problem: Failure) -> Sequence[Batch]:
        """Split a refused batch in half or, if it has only one datum, count that datum as lost.

        CloudWatch refuses a whole request because of one bad datum, so bisection continues until that datum is alone.
        """
        if len(batch.datums) > 1:
            return batch.halves()
        # If CloudWatch's time is unknown, the wall clock is safe here, because the datum has already been refused.
        timely = self._with_accepted_times(batch.datums, self._service_time() or self._wall_clock())
        if timely != batch.datums:
            return (Batch(batch.envelope, timely, is_suspect=batch.is_suspect),)
        (datum,) = batch.datums
        if "Timestamp" not in problem.message:  # a bad timestamp says nothing about later datums of the series
            # Remember the series, so that its datums in later batches do not cause a bisection each time.
            self._refused_series[datum.series] = (self._clock() + _REFUSED_SERIES_SECONDS, problem.message)
        self._lose_refused(datum, problem.message)
        return ()

    def _lose_refused(self, datum: Datum, message: str) -> None:
        self._stats_recorder.lost(LossReason.REFUSED)
        self._each_minute.error(
            "refused",
            "Lost a data point of %s: CloudWatch refused it. Other metrics are not affected. Fix the problem that "
            "CloudWatch reports, or drop the metric with a MetricRule. CloudWatch's response: %s",
            datum.series.name,
            message,
        )

    def _postpone(self, problem: Failure) -> None:
        delay = backoff_seconds(self._failures)
        self._failures += 1
        if problem.may_be_stored and self._lost_responses >= _MAX_LOST_RESPONSES:
            delay = _LONGEST_BACKOFF_SECONDS
        self.retry_at = self._clock() + max(delay, min(problem.retry_after_seconds, _MAX_RETRY_AFTER_SECONDS))
        remedy = _OPERATOR_REMEDIES.get(problem.kind)
        if remedy:
            self._once_an_outage.warning(
                problem.kind, "Cannot send metrics; they are kept and will be retried. %s (%s)", remedy, problem.message
            )
        else:
            self._each_minute.warning(
                problem.kind,
                "Metrics could not be sent (%s); they are kept and will be retried. If this persists, %s The error: %s",
                problem.kind.value,
                _OUTAGE_REMEDIES[problem.kind],
                problem.message,
            )


def _uninstrumented() -> AbstractContextManager[None]:
    """Suppress instrumentation of botocore and HTTP clients, so that the exporter's requests are not measured."""
    # Imported late because it takes a third of this package's import time, and with forks blocked because a child
    # could not complete a half-finished import.
    with no_fork():
        from opentelemetry.instrumentation.utils import suppress_instrumentation  # noqa: PLC0415 - see above
    return suppress_instrumentation()


def backoff_seconds(failures: int) -> float:
    """Return a random delay before the next attempt, after ``failures`` earlier failures in a row.

    The delay grows exponentially, with full jitter, so that processes throttled together do not retry together:
    https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
    """
    longest = min(_LONGEST_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2.0 ** min(failures, 30))
    return _random.uniform(0.0, longest)
