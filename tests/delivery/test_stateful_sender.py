"""Delivery, backlog and spool as one state machine: in any order of events, every datum has exactly one outcome.

Each datum has a unique value, which identifies it in CloudWatch and on disk.
"""

import contextlib
import errno
import math
import os
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from email.utils import formatdate
from pathlib import Path
from unittest import mock

from botocore.exceptions import EndpointConnectionError, NoCredentialsError, ReadTimeoutError
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from otel_cloudwatch_flask.delivery import sender
from otel_cloudwatch_flask.delivery.backlog import Backlog, _Entry
from otel_cloudwatch_flask.delivery.batch import Batch, Envelope
from otel_cloudwatch_flask.delivery.sender import Sender
from otel_cloudwatch_flask.delivery.spool import Spool, _verified
from otel_cloudwatch_flask.delivery.stats import DeliveryStats, StatsRecorder
from otel_cloudwatch_flask.model.datum import Datum
from otel_cloudwatch_flask.testing.fake import client_error
from tests.support.fakes import PATIENCE_SECONDS, FakeClock, PassingWaits, eventually, in_threads, join_all
from tests.support.fuzzing import datum_of, effort, numbers, repeatable_jitter  # noqa: F401 - a fixture

NOW = 1_790_000_000
DAY = 86400
SHOP = Envelope("Shop")

LARGEST_BATCH_BYTES = 2_000
"""Upper limit of the size of a request in these tests, including the second envelope after a bisection."""

POISON = "poison"
"""Prefix of metric names; CloudWatch rejects every request that contains one."""

ERRORS: dict[str, Exception] = {
    "throttled": client_error("ThrottlingException"),
    "server error": client_error("InternalServiceFault", status=500),
    "no credentials": NoCredentialsError(),
    "no network": EndpointConnectionError(endpoint_url="https://monitoring"),
    "unknown 400": client_error("NobodyKnowsThis"),
    "a bug": RuntimeError("of a program's own client"),
}
ANSWERS = st.sampled_from(["accepted", "accepted", "answer lost", "portal", "hangs", *ERRORS])


class Killed(BaseException):
    """The process was killed during a call."""


class Call:
    """A call that hangs until it is answered or its process is killed."""

    def __init__(self) -> None:
        self.answer = ""
        self.may_end = threading.Event()


class Service:
    """A fake CloudWatch that responds as scripted, and accepts all later requests."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.script: list[str] = []
        self.hanging: Call | None = None
        self.accepted = Counter[int]()
        self.in_order: list[int] = []
        self.unsure: set[int] = set()

    def put(self, batch: Batch) -> object:
        """Respond to one request, with CloudWatch's time."""
        answer = self.script.pop(0) if self.script else "accepted"
        if answer == "hangs":
            call = self.hanging = Call()
            assert call.may_end.wait(PATIENCE_SECONDS)
            answer = call.answer
        if answer == "killed":
            raise Killed
        if answer in ERRORS:
            raise ERRORS[answer]
        if answer == "portal":
            return {"ResponseMetadata": {"HTTPStatusCode": 200, "HTTPHeaders": {}}}
        if any(datum.series.name.startswith(POISON) for datum in batch.datums):
            raise Killed if answer == "arrived, killed" else client_error("InvalidParameterValue")
        self.accept(batch)
        if answer == "arrived, killed":
            raise Killed
        if answer == "answer lost":
            self.unsure.update(number for datum in batch.datums for number in numbers(datum))
            raise ReadTimeoutError(endpoint_url="https://monitoring")
        headers = {"date": formatdate(NOW + self.clock.now, usegmt=True)}
        return {"ResponseMetadata": {"RequestId": "b7a1", "HTTPHeaders": headers}}

    def accept(self, batch: Batch) -> None:
        """Store a request."""
        arrived = [number for datum in batch.datums for number in numbers(datum)]
        self.in_order += [number for number in arrived if number not in self.accepted]
        self.accepted.update(arrived)


class Process:
    """The delivery components of one process, used as the exporter uses them."""

    def __init__(self, service: Service, clock: FakeClock, max_bytes: int, spool: Spool | None) -> None:
        self.clock = clock
        self.recorder = StatsRecorder()
        self.backlog = Backlog(max_bytes, self.recorder, spool)
        self.spool = spool
        self.service = service
        self.sender = Sender(
            lambda: service.put,
            self.backlog,
            self.recorder,
            clock=clock,
            wall_clock=lambda: NOW + clock.now + self.seconds_ahead,
        )
        self.seconds_ahead = 0.0
        """The error of the wall clock."""
        self.sender._expedited = PassingWaits(clock)
        self.is_closed = False
        self.has_deferred = False
        """Whether parts of refused batches may have waited while later batches were sent."""
        self.threads: list[threading.Thread] = []

    def entries(self) -> list[_Entry]:
        """Return all pending entries."""
        in_flight = self.backlog._in_flight
        return [*([in_flight] if in_flight else []), *self.backlog._waiting]

    def in_flight_numbers(self) -> set[int]:
        """Return the numbers of the datums in flight."""
        in_flight = self.backlog._in_flight
        batch = in_flight.batch if in_flight else None
        return {number for datum in batch.datums for number in numbers(datum)} if batch else set()

    def own_files(self) -> set[Path]:
        """Return the files of pending batches."""
        return {each.file for each in self.entries() if each.file}

    def waiting(self) -> Iterator[Datum]:
        """Yield the pending datums."""
        for each in self.entries():
            batch = each.batch or (self.spool and each.file and self.spool.read(each.file))
            assert batch
            yield from batch.datums

    def stats(self) -> DeliveryStats:
        """Return the statistics."""
        return self.recorder.stats(datums_pending=self.backlog.datums, metrics_active=0, metrics_overflowed=0)

    def deliver(self, within_seconds: float, *, is_last: bool = False) -> bool:
        """Deliver in a thread and wait for it, unless its call hangs; time out if another call already hangs."""
        answers: list[bool] = []
        if not self.service.hanging:
            deadline = self.clock.now + within_seconds
            self.threads += in_threads(lambda: self._deliver(answers, deadline, is_last=is_last))
            self._wait_for_thread()
        if self.service.hanging:
            self.clock.advance(within_seconds)
        self.has_deferred |= self.sender._bisection_calls >= sender._MAX_BISECTION_CALLS
        return answers == [True]

    def _deliver(self, answers: list[bool], deadline: float, *, is_last: bool) -> None:
        with contextlib.suppress(Killed):
            try:
                if not self.is_closed:
                    self.backlog.adopt_spooled(math.inf)
                answers.append(self.sender.deliver(deadline, is_last=is_last))
            finally:
                if self.is_closed:
                    self.backlog.close()

    def answer(self, answer: str) -> None:
        """Answer the hanging call, and let its thread finish."""
        assert self.service.hanging
        call, self.service.hanging = self.service.hanging, None
        call.answer = answer
        call.may_end.set()
        self._wait_for_thread()

    def _wait_for_thread(self) -> None:
        assert eventually(lambda: self.service.hanging or not self.threads[-1].is_alive())

    def shut_down(self, within_seconds: float) -> None:
        """Shut down within this time."""
        self.sender.expedite(is_ending=True)
        self.deliver(within_seconds, is_last=True)
        self.is_closed = True
        self.backlog.close()

    def end(self) -> None:
        """End the process together with its hanging thread."""
        if self.service.hanging:
            self.answer("killed")
        join_all(self.threads)


class DeliveryMachine(RuleBasedStateMachine):
    """Successive processes record datums, and CloudWatch fails in every possible way."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.clock = FakeClock()
        self.service = Service(self.clock)
        self.recorded = 0
        self.first_of_process = 0
        self.ended = Counter[str]()

    @initialize(
        max_bytes=st.sampled_from([1, 600, 5_000, 10**6]),
        series=st.sampled_from([0, 2]),
        spool_bytes=st.sampled_from([None, 400, 10**6]),
    )
    def begin(self, max_bytes: int, series: int, spool_bytes: int | None) -> None:
        """Start the first process. Datums are divided among this number of series; 0 gives each datum its own."""
        self.max_bytes = self.bound = max_bytes
        self.series = series
        self.spool_bytes = spool_bytes
        self.start()

    def start(self) -> None:
        """Start a process."""
        spool = None if self.spool_bytes is None else Spool(self.directory, max_bytes=self.spool_bytes)
        self.process = Process(self.service, self.clock, self.max_bytes, spool)
        self.first_of_process = self.recorded
        self.service.in_order.clear()

    def datum(self, age_seconds: int, *, is_poison: bool) -> Datum:
        """Return a new datum."""
        self.recorded += 1
        number = self.recorded % self.series if self.series else self.recorded
        name = f"{POISON if is_poison else 'm'}{number}"
        unix_seconds = int(NOW + self.clock.now - age_seconds)
        return datum_of(name, self.recorded, unix_seconds=unix_seconds)

    @precondition(lambda self: not self.series or self.recorded < 250)  # a datum has at most 150 values
    @rule(
        sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4),
        ages=st.lists(st.sampled_from([0, 60, 13 * DAY, -3 * 3600, 15 * DAY]), min_size=1, max_size=4),
        poison=st.sets(st.integers(0, 20), max_size=2),
        lack=st.sampled_from([None, None, errno.ENOSPC, errno.EMFILE]),
    )
    def add(self, sizes: list[int], ages: list[int], poison: set[int], lack: int | None) -> None:
        """Add a collection in one or several requests, some of which may fail to reach the spool; the ages repeat."""
        place = 0
        for size in sizes:
            places = range(place, place + size)
            datums = [self.datum(ages[i % len(ages)], is_poison=i in poison and not self.series) for i in places]
            place += size
            with mock.patch.object(os, "open", side_effect=OSError(lack, "lack")) if lack else contextlib.nullcontext():
                self.process.backlog.add(SHOP.batches(datums))
            backlog = self.process.backlog
            # One request is always kept, even if it exceeds the limit.
            assert backlog.size_bytes <= self.max_bytes or len(backlog._waiting) <= 1
        self.bound = max(self.max_bytes, backlog.size_bytes)

    @rule(script=st.lists(ANSWERS, max_size=6), within_seconds=st.sampled_from([0.0, 0.2, 30.0, 3600.0]))
    def deliver(self, script: list[str], within_seconds: float) -> None:
        """Deliver while CloudWatch responds according to this script."""
        self.service.script = script
        is_delivered = self.process.deliver(within_seconds)
        assert is_delivered == (self.process.backlog.datums == 0)

    @precondition(lambda self: self.service.hanging)
    @rule(answer=ANSWERS.filter(lambda answer: answer != "hangs"))
    def answer_comes(self, answer: str) -> None:
        """The hanging request is answered."""
        self.process.answer(answer)

    @rule(seconds=st.sampled_from([1.0, 60.0, 3600.0, 1.5 * DAY]))
    def time_passes(self, seconds: float) -> None:
        """Let time pass without an event."""
        self.clock.advance(seconds)

    @rule(seconds_ahead=st.sampled_from([0.0, 15.0 * DAY, -15.0 * DAY]))
    def clock_jumps(self, seconds_ahead: float) -> None:
        """Set the error of the wall clock, which may be zero."""
        self.process.seconds_ahead = seconds_ahead

    @rule()
    def expedite(self) -> None:
        """Make the next attempt due now."""
        self.process.sender.expedite()

    @rule(
        script=st.lists(ANSWERS, max_size=4),
        within_seconds=st.sampled_from([0.0, 5.0, 60.0]),
        late=st.sampled_from(["never", "accepted", "throttled", "answer lost"]),
    )
    def restart(self, script: list[str], within_seconds: float, late: str) -> None:
        """The process shuts down, possibly before its call is answered, and another one starts."""
        self.service.script = script
        self.process.shut_down(within_seconds)
        self.accounts_are_right()
        if self.service.hanging and late != "never":
            self.process.answer(late)
            self.accounts_are_right()
        self.leave()

    @rule(has_arrived=st.booleans())
    def kill(self, *, has_arrived: bool) -> None:
        """The process is killed; the request in progress may or may not have arrived."""
        if self.process.spool:
            self.process.spool.release()
        self.service.unsure |= self.process.in_flight_numbers()
        if self.service.hanging:
            self.process.answer("arrived, killed" if has_arrived else "killed")
        self.leave()

    def leave(self) -> None:
        """Add the process's statistics to the totals, and start another process."""
        stats = self.process.stats()
        self.ended["sent"] += stats.datums_sent
        self.ended["lost"] += sum(stats.datums_lost.values())
        # Batches that were only in memory are lost with the process, and are not counted.
        self.ended["gone"] += stats.datums_pending - len(self.on_disk(self.process.own_files()))
        self.process.end()
        self.start()

    def files(self) -> set[Path]:
        """Return all files in the spool."""
        return set(self.directory.glob("process-*/*.batch"))

    def on_disk(self, files: Iterable[Path]) -> list[Datum]:
        """Return the datums in these files."""
        return [datum for file in files for datum in Batch.from_body(_verified(file.read_bytes())).datums]

    @invariant()
    def accounts_are_right(self) -> None:
        """Every recorded datum was sent, is pending, is on disk for the next process, or was lost."""
        left = self.on_disk(self.files() - self.process.own_files())
        stats = self.process.stats()
        lost = sum(stats.datums_lost.values()) + self.ended["lost"]
        if not self.series:
            sent = stats.datums_sent + self.ended["sent"]
            assert self.recorded == sent + stats.datums_pending + len(left) + lost + self.ended["gone"]
        waiting = Counter(number for datum in [*self.process.waiting(), *left] for number in numbers(datum))
        assert not [number for number, times in waiting.items() if times > 1]
        in_flight = self.process.in_flight_numbers()  # the request may have arrived although its response was not read
        assert waiting.keys() & self.service.accepted.keys() <= self.service.unsure | in_flight
        missing = self.recorded - len(waiting.keys() | self.service.accepted.keys())
        assert missing >= lost + self.ended["gone"] - len(self.service.unsure)
        assert missing == 0 or lost + self.ended["gone"] > 0

    @invariant()
    def each_came_once(self) -> None:
        """CloudWatch receives no duplicates, unless a response was lost."""
        twice = {number for number, times in self.service.accepted.items() if times > 1}
        assert twice <= self.service.unsure

    @invariant()
    def oldest_first(self) -> None:
        """Datums arrive in the order they were recorded, after those found on disk."""
        if not self.series and not self.process.has_deferred:
            own = [number for number in self.service.in_order if number > self.first_of_process]
            assert own == sorted(own)
            assert own == self.service.in_order[len(self.service.in_order) - len(own) :]

    @invariant()
    def memory_is_bounded(self) -> None:
        """The size in memory is exact, and exceeds the limit by at most one batch read from disk."""
        backlog = self.process.backlog
        sizes = [each.size_bytes for each in self.process.entries()]
        assert backlog.size_bytes == sum(sizes)
        assert backlog.size_bytes <= self.bound + LARGEST_BATCH_BYTES

    def teardown(self) -> None:
        """When CloudWatch no longer fails, every remaining datum arrives."""
        if self.service.hanging:
            self.answer_comes("accepted")
        self.kill(has_arrived=False)
        self.service.script = []
        for _ in range(100):  # each delivery isolates some of the rejected datums
            self.process.deliver(1e6)
            self.clock.advance(10)
        assert self.process.backlog.datums == 0
        self.accounts_are_right()
        assert not self.files()
        if self.process.spool:
            self.process.spool.close()
        assert not list(self.directory.glob("process-*"))
        shutil.rmtree(self.directory)


TestDelivery = DeliveryMachine.TestCase
TestDelivery.settings = effort(100)
