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

from otel_cloudwatch_flask.backlog import Backlog
from otel_cloudwatch_flask.boto_client import Put
from otel_cloudwatch_flask.courier import Courier, Errand
from otel_cloudwatch_flask.failures import Failure, Kind, failure
from otel_cloudwatch_flask.ledger import Ledger, LossReason
from otel_cloudwatch_flask.limits import MAX_AGE_SECONDS, MAX_AHEAD_SECONDS
from otel_cloudwatch_flask.process_lifecycle import no_fork
from otel_cloudwatch_flask.quiet_log import QuietLog
from otel_cloudwatch_flask.wire import Batch

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
    """Send what waits, oldest first, until it is in CloudWatch, lost, or time is up. For one thread at a time.

    The calls themselves are made by a thread of its own: one that hangs is still pending when the deadline has passed,
    and whoever delivers next waits for it first. Only a caller for whom nobody waits makes them himself.
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
        self._make_put = make_put
        self._on_accepted = on_accepted
        self._put: Put | None = None
        self._courier: Courier[Batch, Failure | None] = Courier(self._problem_putting)
        self._errand: Errand[Batch, Failure | None] | None = None
        self._late_call: Callable[[], object] | None = None
        self._backlog = backlog
        self._ledger = ledger
        self._clock = clock
        self._wall_clock = wall_clock
        self._hurried = threading.Event()
        self._is_ending = False
        self._is_calling_here = False
        self._last_deadline = math.inf
        self._needs_operator = False
        self._backoff = Backoff()
        self._retry_at = -math.inf
        self._each_minute = QuietLog(_logger, interval_seconds=_LOG_SECONDS, clock=clock)
        self._once_an_outage = QuietLog(_logger)

    @property
    def retry_at(self) -> float:
        """The time on the clock before which nothing is sent, because CloudWatch needs a rest."""
        return self._retry_at

    def hurry(self, deadline: float = math.inf) -> None:
        """Make the next attempt now, whether it waits already or not: the process is about to end.

        Whoever delivers until after ``deadline`` stops doing so at once.
        It then does not wait for what an operator would have to bring, credentials or a Region.
        """
        self._is_ending = True
        self._last_deadline = deadline
        self._retry_at = -math.inf
        self._hurried.set()
        if errand := self._errand:
            errand.interrupt()

    def renew_client(self) -> None:
        """Ask for another client for what is sent from now on, and let it show at once whether it does better."""
        self._put = None
        self._retry_at = -math.inf
        self._backoff = Backoff()
        self._hurried.set()

    def end(self) -> None:
        """Begin nothing more; the thread ends with what it is at."""
        self._courier.stop()

    def after_errand(self, call: Callable[[], object]) -> None:
        """Call when the answer has come that nobody has waited for long enough, if there is one."""
        self._late_call = call  # before looking: who sends at this moment looks for it after sending
        if self._errand is not None:
            self._courier.then(call)

    @property
    def is_calling_here(self) -> bool:
        """Whether a thread makes a call itself, which nobody can interrupt."""
        return self._is_calling_here

    def deliver(self, deadline: float, *, call_seconds: float | None = None) -> bool:
        """Send everything that waits; ``False`` if something still does at ``deadline``, in the clock's seconds.

        Where there are ``call_seconds`` left, a call is made in this thread: to hand it to another one, which finds
        cold caches, is a fifth of what a small export costs. Nobody ends it then but the client's own timeouts, which
        know nothing of an answer that comes in drops, so it must be a thread that nobody waits for.
        """
        while self._backlog.datums:
            if self._errand is None and not self._begin(deadline, call_seconds):
                return False
            if self._errand is not None and not self._end(self._errand, deadline):
                return False
        return True

    def _begin(self, deadline: float, call_seconds: float | None) -> bool:
        """Begin to send the oldest batch; ``False`` if CloudWatch needs a rest until after the deadline."""
        if not self._rested(deadline):
            return False
        batch = self._backlog.check_out()
        if batch is not None:
            timely = self._timely(batch) if batch.datums else batch
            if timely is batch and batch.datums:
                has_time = call_seconds is not None and deadline - self._clock() >= call_seconds
                self._errand = self._called_here(batch) if has_time else self._courier.send(batch)
                if self._late_call is not None:
                    self._errand.and_then(self._late_call)
            else:
                # Out of the queue it would still be pending with what is lost already.
                self._backlog.settle([timely] if timely.datums else ())
        return True

    def _called_here(self, batch: Batch) -> Errand[Batch, Failure | None]:
        errand: Errand[Batch, Failure | None] = Errand(batch)
        self._is_calling_here = True  # before looking: whoever ends the process looks at this after saying so
        try:
            if self._is_ending:
                return self._courier.send(batch)
            errand.run(self._problem_putting)
        finally:
            self._is_calling_here = False
        return errand

    def _end(self, errand: Errand[Batch, Failure | None], deadline: float) -> bool:
        """Wait for an answer, and draw the consequences; ``False`` if there is none by the deadline."""
        errand.forget_interruption()  # before looking at what is to be known of it
        if not errand.wait(0.0 if deadline > self._last_deadline else deadline - self._clock()):
            return False
        self._errand = None
        left: Sequence[Batch] = (errand.item,)
        try:
            left = self._left_of(errand.item, errand.result())
        finally:
            self._backlog.settle(left)
        return True

    def _rested(self, deadline: float) -> bool:
        """Wait until CloudWatch may be called again; ``False`` if that is not before the deadline."""
        now = self._clock()
        if now >= deadline or self._retry_at >= deadline or deadline > self._last_deadline:
            return False
        if self._retry_at > now:
            if self._is_ending and self._needs_operator:
                return False
            self._hurried.wait(self._retry_at - now)
            self._hurried.clear()
        return True

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
        except BaseException as error:  # the boundary to boto3 and to clients of any kind
            # What ends this thread, or the program, is nothing that the courier has to do with.
            if isinstance(error, KeyboardInterrupt) or (self._is_calling_here and not isinstance(error, Exception)):
                raise
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
            self._once_an_outage = QuietLog(_logger)

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
        self._retry_at = self._clock() + max(delay, min(problem.retry_after_seconds or 0.0, _LONGEST_REST_SECONDS))
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
