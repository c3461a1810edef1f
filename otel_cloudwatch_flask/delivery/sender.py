"""Delivery: what waits in the backlog is put into CloudWatch, or counted as lost."""

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from operator import attrgetter
from typing import Final

from otel_cloudwatch_flask.delivery.backlog import Backlog
from otel_cloudwatch_flask.delivery.batch import Batch
from otel_cloudwatch_flask.delivery.boto_client import Put
from otel_cloudwatch_flask.delivery.error_codes import Failure, Kind, failure
from otel_cloudwatch_flask.delivery.stats import Ledger, LossReason
from otel_cloudwatch_flask.limits import MAX_AGE_SECONDS, MAX_AHEAD_SECONDS
from otel_cloudwatch_flask.runtime.process import no_fork
from otel_cloudwatch_flask.runtime.rate_limited_log import RateLimitedLog

_logger = logging.getLogger(__name__)

_TIME: Final = attrgetter("unix_seconds")

_FIRST_BACKOFF_SECONDS: Final = 0.5
_LONGEST_BACKOFF_SECONDS: Final = 30.0
_LONGEST_REST_SECONDS: Final = 300.0
"""However long an answer's ``Retry-After`` asks for: it may come from a proxy, and memory is bounded."""
_LOG_SECONDS: Final = 60.0

_REMEDIES_OF_OPERATOR: Final = {
    Kind.CREDENTIALS: "Give the process credentials that may call cloudwatch:PutMetricData: an instance or task role, "
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE. A clock that is wrong makes those it has invalid.",
    Kind.CONFIGURATION: "Set AWS_REGION, or region_name, to the Region that shall have the metrics.",
}
_REMEDIES_IF_IT_LASTS: Final = {
    Kind.THROTTLED: "send fewer requests: flush='interval', or a longer flush_min_interval_seconds.",
    Kind.SERVER: "see the AWS Health Dashboard: the error is CloudWatch's own.",
    Kind.NETWORK: "see whether this process reaches CloudWatch: its proxy, VPC endpoint, security group and DNS.",
    Kind.UNKNOWN: "mend what the error names.",
}


class Delivery:
    """Send pending batches, oldest first, until each is in CloudWatch or lost, or time is up. For one thread at a time.

    The calls are made in the thread that delivers. The deadline is looked at between calls: one that has begun lasts
    until the client ends it.
    """

    def __init__(
        self,
        make_put: Callable[[], Put],
        backlog: Backlog,
        ledger: Ledger,
        *,
        on_accepted: Callable[[Batch], object] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.retry_at = -math.inf
        """The time on the clock before which nothing is sent, because CloudWatch needs a rest."""
        self.is_calling = False
        """Whether a thread may be inside a call to CloudWatch, which nothing here can end."""
        self._make_put = make_put
        self._on_accepted = on_accepted
        self._put: Put | None = None
        self._backlog = backlog
        self._ledger = ledger
        self._clock = clock
        self._wall_clock = wall_clock
        self._expedited = threading.Event()
        self._is_ending = False
        self._needs_operator = False
        self._backoff = Backoff()
        self._each_minute = RateLimitedLog(_logger, interval_seconds=_LOG_SECONDS, clock=clock)
        self._once_an_outage = RateLimitedLog(_logger)

    def expedite(self, *, is_ending: bool = False) -> None:
        """Make the next attempt now, also if a thread is waiting for its time.

        With ``is_ending``, deliveries in progress stop before their next call, and only the last one makes calls.
        """
        self._is_ending = self._is_ending or is_ending
        self.retry_at = -math.inf
        self._expedited.set()

    def renew_client(self) -> None:
        """Make another client for the next call, and make that call now."""
        self._put = None
        self._backoff = Backoff()
        self.expedite()

    def deliver(self, deadline: float, *, is_last: bool = False) -> bool:
        """Send everything that is pending; ``False`` if something still is at ``deadline``, in the clock's seconds.

        The last delivery does not wait for what an operator would have to provide: credentials or a Region.
        """
        while self._backlog.datums:
            if not self._rested(deadline, is_last=is_last):
                return False
            self.is_calling = True  # before reading _is_ending: a shutdown sets that before it reads is_calling
            try:
                if self._is_ending and not is_last:
                    return False
                self._send_oldest()
            finally:
                self.is_calling = False
        return True

    def _rested(self, deadline: float, *, is_last: bool) -> bool:
        """Wait until CloudWatch may be called again; ``False`` if that is not before the deadline."""
        now = self._clock()
        if now >= deadline or self.retry_at >= deadline:
            return False
        if self.retry_at > now:
            if is_last and self._needs_operator:
                return False
            self._expedited.wait(self.retry_at - now)
            self._expedited.clear()
        return True

    def _send_oldest(self) -> None:
        """Make one call for the oldest batch, and settle what becomes of the batch, whatever is raised."""
        batch = self._backlog.check_out()
        if batch is None:
            return
        left: Sequence[Batch] = (batch,)
        try:
            timely = self._timely(batch) if batch.datums else batch
            if timely is batch and batch.datums:
                left = self._left_of(batch, self._problem_putting(batch))
            else:
                # It is sent by the next call: a batch in flight is pending with all its datums, the lost ones included.
                left = (timely,) if timely.datums else ()
        finally:
            self._backlog.settle(left)

    def _left_of(self, batch: Batch, problem: Failure | None) -> Sequence[Batch]:
        """What is still to be sent of a batch after an attempt."""
        if problem is None:
            self._accepted(batch)
            return ()
        self._ledger.failed(problem.message)
        if problem.kind.is_final:
            return self._refused(batch, problem)
        self._postpone(problem)
        self._needs_operator = problem.kind in _REMEDIES_OF_OPERATOR
        if self._needs_operator:
            self._put = None  # its client has looked for what is missing once and for all; a new one looks again
        return (batch,)

    def _timely(self, batch: Batch) -> Batch:
        """The batch with the times that CloudWatch accepts now.

        What is too old is lost. What lies in the future was measured while the clock was wrong, and happens now.
        """
        now = self._wall_clock()
        oldest, newest = now - MAX_AGE_SECONDS, now + MAX_AHEAD_SECONDS
        times = [*map(_TIME, batch.datums)]
        if oldest < min(times) and max(times) <= newest:
            return batch
        timely = tuple(
            datum if datum.unix_seconds <= newest else datum._replace(unix_seconds=int(now))
            for datum in batch.datums
            if datum.unix_seconds > oldest
        )
        if expired := len(batch.datums) - len(timely):
            self._ledger.lost(LossReason.EXPIRED, expired)
            self._each_minute.log(
                logging.ERROR,
                "expired",
                "%d datum(s) are lost: they waited for two weeks, longer than CloudWatch takes. Mend what keeps "
                "metrics from CloudWatch; an earlier message says what.",
                expired,
            )
        return Batch(batch.envelope, timely)

    def _problem_putting(self, batch: Batch) -> Failure | None:
        begun = self._clock()
        try:
            with _uninstrumented():
                put = self._put = self._put or self._make_put()
                put(batch)
        except Exception as error:  # noqa: BLE001 - the boundary to boto3 and to clients of any kind
            return failure(error)
        finally:
            self._ledger.took(self._clock() - begun)
        return None

    def _accepted(self, batch: Batch) -> None:
        self._ledger.sent(datums=len(batch.datums), size_bytes=batch.size_bytes, unix_time=self._wall_clock())
        self._on_accepted(batch)
        if self._backoff.failures:
            _logger.info("CloudWatch takes metrics again; %d datum(s) that waited are sent now.", self._backlog.datums)
            self._backoff = Backoff()
            self._once_an_outage = RateLimitedLog(_logger)

    def _refused(self, batch: Batch, problem: Failure) -> Sequence[Batch]:
        """One bad datum makes CloudWatch refuse the whole request: halve it until the bad one is alone."""
        if len(batch.datums) > 1:
            return batch.halves()
        metric_name = batch.datums[0].series.name
        self._ledger.lost(LossReason.REFUSED)
        self._each_minute.log(
            logging.ERROR,
            ("refused", metric_name),
            "CloudWatch refused a datum of %s, which is lost; all others are not. Mend what it names, or drop the "
            "metric with a MetricRule. It said: %s",
            metric_name,
            problem.message,
        )
        return ()

    def _postpone(self, problem: Failure) -> None:
        delay = self._backoff.next_delay_seconds()
        self.retry_at = self._clock() + max(delay, min(problem.retry_after_seconds or 0.0, _LONGEST_REST_SECONDS))
        remedy = _REMEDIES_OF_OPERATOR.get(problem.kind)
        if remedy:
            self._once_an_outage.warning(
                problem.kind, "Metrics cannot be sent, and are kept until they can. %s (%s)", remedy, problem.message
            )
        else:
            self._each_minute.warning(
                problem.kind,
                "Metrics could not be sent (%s); they are kept and tried again. If it lasts, %s It said: %s",
                problem.kind.value,
                _REMEDIES_IF_IT_LASTS[problem.kind],
                problem.message,
            )


def _uninstrumented() -> AbstractContextManager[None]:
    """Whatever instruments boto3 and HTTP is told not to."""
    # What takes a third of this package's import is for those that send something; no fork finds it half imported.
    with no_fork():
        from opentelemetry.instrumentation.utils import suppress_instrumentation  # noqa: PLC0415 - see above
    return suppress_instrumentation()


class Backoff:
    """Exponential backoff with full jitter: a fleet that was throttled together does not come back together.

    https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
    """

    def __init__(self) -> None:
        self.failures = 0

    def next_delay_seconds(self) -> float:
        """Count a failure; return how long to rest after it."""
        longest = min(_LONGEST_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2.0 ** min(self.failures, 30))
        self.failures += 1
        return random.uniform(0.0, longest)  # noqa: S311 - no secret
