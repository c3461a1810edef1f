"""Delivery, backlog and spool as one machine: whatever happens in whatever order, every datum has one fate.

A datum's value is a number that no other has, so that each is recognised wherever it is: at CloudWatch, or on disk.
"""

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from botocore.exceptions import EndpointConnectionError, NoCredentialsError, ReadTimeoutError
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from otel_cloudwatch_flask.backlog import Backlog, _Waiting
from otel_cloudwatch_flask.courier import Errand
from otel_cloudwatch_flask.datum import Datum
from otel_cloudwatch_flask.delivery import Delivery
from otel_cloudwatch_flask.failures import Failure
from otel_cloudwatch_flask.ledger import DeliveryStats, Ledger
from otel_cloudwatch_flask.spool import Spool, _verified
from otel_cloudwatch_flask.testing import client_error
from otel_cloudwatch_flask.wire import Batch, Envelope, batches
from tests.fakes import FakeClock, PassingWaits
from tests.fuzzing import datum_of, effort, numbers

NOW = 1_790_000_000
DAY = 86400
SHOP = Envelope("Shop")

LARGEST_BATCH_BYTES = 2_000
"""More than a request of these tests has, with the envelopes of the parts that it is divided into."""

POISON = "poison"
"""How the metrics begin that CloudWatch refuses, with every request that one is in."""

ERRORS: dict[str, Exception] = {
    "throttled": client_error("ThrottlingException"),
    "server error": client_error("InternalServiceFault", status=500),
    "no credentials": NoCredentialsError(),
    "no network": EndpointConnectionError(endpoint_url="https://monitoring"),
    "a bug": RuntimeError("of somebody's client"),
}
ANSWERS = st.sampled_from(["accepted", "accepted", "answer lost", "hangs", *ERRORS])


class Service:
    """A CloudWatch that answers by a script, and then accepts."""

    def __init__(self) -> None:
        self.script: list[str] = []
        self.accepted = Counter[int]()
        self.in_order: list[int] = []
        self.unsure: set[int] = set()

    def put(self, batch: Batch) -> None:
        """Answer one request."""
        answer = self.script.pop(0) if self.script else "accepted"
        if answer in ERRORS:
            raise ERRORS[answer]
        if any(datum.series.name.startswith(POISON) for datum in batch.datums):
            raise client_error("InvalidParameterValue")
        self.accept(batch)
        if answer == "answer lost":
            self.unsure.update(number for datum in batch.datums for number in numbers(datum))
            raise ReadTimeoutError(endpoint_url="https://monitoring")

    def accept(self, batch: Batch) -> None:
        """Store a request."""
        arrived = [number for datum in batch.datums for number in numbers(datum)]
        self.in_order += [number for number in arrived if number not in self.accepted]
        self.accepted.update(arrived)


class HangingErrand(Errand[Batch, Failure | None]):
    """An errand whose waits pass on a fake clock."""

    def __init__(self, item: Batch, clock: FakeClock) -> None:
        super().__init__(item)
        self._clock = clock

    def wait(self, seconds: float) -> bool:
        """Let the time pass that somebody wants to wait."""
        if not self._is_done and 0 < seconds < float("inf"):
            self._clock.advance(seconds)
        return self._is_done


class ScriptedCourier:
    """Makes each call at once, but for those that the script lets hang."""

    def __init__(self, call: Callable[[Batch], Failure | None], service: Service, clock: FakeClock) -> None:
        self._call = call
        self._service = service
        self._clock = clock
        self._afterwards: list[Callable[[], object]] = []
        self.hanging: HangingErrand | None = None

    def send(self, item: Batch) -> HangingErrand:
        """Make the call, unless it hangs."""
        errand = HangingErrand(item, self._clock)
        if self._service.script[:1] == ["hangs"]:
            self._service.script.pop(0)
            self.hanging = errand
        else:
            errand.run(self._call)
        return errand

    def then(self, call: Callable[[], object]) -> None:
        """Call when nothing hangs any more."""
        self._afterwards.append(call)
        if self.hanging is None:
            self._call_afterwards()

    def stop(self) -> None:
        """End."""

    def let_go(self) -> None:
        """Let the call that hangs be made."""
        assert self.hanging is not None
        self.hanging.run(self._call)
        self.hanging = None
        self._call_afterwards()

    def _call_afterwards(self) -> None:
        for call in self._afterwards:
            call()
        self._afterwards.clear()


class Process:
    """What one process has of all this."""

    def __init__(self, service: Service, clock: FakeClock, max_bytes: int, spool: Spool | None) -> None:
        self.clock = clock
        self.ledger = Ledger()
        self.backlog = Backlog(max_bytes, self.ledger, spool)
        self.spool = spool
        self.delivery = Delivery(
            lambda: service.put, self.backlog, self.ledger, clock=clock, wall_clock=lambda: NOW + clock.now
        )
        self.delivery._hurried = PassingWaits(clock)
        self.courier = ScriptedCourier(self.delivery._problem_putting, service, clock)
        self.delivery._courier = self.courier  # type: ignore[assignment]  # its stand-in

    def entries(self) -> list[_Waiting]:
        """All that is pending."""
        in_flight = self.backlog._in_flight
        return [*([in_flight] if in_flight else []), *self.backlog._waiting]

    def in_flight_numbers(self) -> set[int]:
        """The numbers of what is being sent."""
        errand = self.delivery._errand
        return {number for datum in errand.item.datums for number in numbers(datum)} if errand else set()

    def own_files(self) -> set[Path]:
        """The files of what is pending."""
        return {each.file for each in self.entries() if each.file}

    def waiting(self) -> Iterator[Datum]:
        """The datums that are pending."""
        for each in self.entries():
            batch = each.batch or (self.spool and each.file and self.spool.read(each.file))
            assert batch
            yield from batch.datums

    def stats(self) -> DeliveryStats:
        """The accounts."""
        return self.ledger.stats(datums_pending=self.backlog.datums, metrics_active=0, metrics_overflowed=0)

    def deliver(self, within_seconds: float) -> bool:
        """Deliver as the exporter does."""
        self.backlog.take_over()
        return self.delivery.deliver(self.clock.now + within_seconds)

    def shut_down(self, within_seconds: float) -> None:
        """End as the exporter does."""
        deadline = self.clock.now + within_seconds
        self.delivery.hurry(deadline)
        self.delivery.deliver(deadline)
        self.backlog.close()
        self.delivery.after_errand(self.take_late_answer)
        self.delivery.end()

    def take_late_answer(self) -> None:
        """Draw the consequences of an answer that came after the end."""
        self.delivery.deliver(float("inf"))
        self.backlog.close()


class DeliveryMachine(RuleBasedStateMachine):
    """Datums are recorded by one process after the other, in front of a CloudWatch that does its worst."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.clock = FakeClock()
        self.service = Service()
        self.recorded = 0
        self.first_of_process = 0
        self.ended = Counter[str]()

    @initialize(
        max_bytes=st.sampled_from([1, 600, 5_000, 10**6]),
        series=st.sampled_from([0, 2]),
        spool_bytes=st.sampled_from([None, 400, 10**6]),
    )
    def begin(self, max_bytes: int, series: int, spool_bytes: int | None) -> None:
        """The first process starts; with ``series``, datums belong to so many, else each to one of its own."""
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
        """A new datum."""
        self.recorded += 1
        number = self.recorded % self.series if self.series else self.recorded
        name = f"{POISON if is_poison else 'm'}{number}"
        unix_seconds = int(NOW + self.clock.now - age_seconds)
        return datum_of(name, self.recorded, unix_seconds=unix_seconds)

    @precondition(lambda self: not self.series or self.recorded < 250)  # a datum has 150 values at most
    @rule(
        sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4),
        ages=st.lists(st.sampled_from([0, 60, 13 * DAY, -3 * 3600, 15 * DAY]), min_size=1, max_size=4),
        poison=st.sets(st.integers(0, 20), max_size=2),
    )
    def add(self, sizes: list[int], ages: list[int], poison: set[int]) -> None:
        """A collection comes, in one request or several; the ages, in seconds, repeat."""
        place = 0
        for size in sizes:
            places = range(place, place + size)
            datums = [self.datum(ages[i % len(ages)], is_poison=i in poison and not self.series) for i in places]
            place += size
            self.process.backlog.add(batches(SHOP, datums))
            backlog = self.process.backlog
            # One request has always room: a smaller bound cannot be meant.
            assert backlog.size_bytes <= self.max_bytes or len(backlog._waiting) <= 1
        self.bound = max(self.max_bytes, backlog.size_bytes)

    @rule(script=st.lists(ANSWERS, max_size=6), within_seconds=st.sampled_from([0.0, 0.2, 30.0, 3600.0]))
    def deliver(self, script: list[str], within_seconds: float) -> None:
        """Somebody delivers, and CloudWatch answers so."""
        self.service.script = script
        is_delivered = self.process.deliver(within_seconds)
        assert is_delivered == (self.process.backlog.datums == 0)

    @precondition(lambda self: self.process.courier.hanging)
    @rule(answer=ANSWERS.filter(lambda answer: answer != "hangs"))
    def answer_comes(self, answer: str) -> None:
        """The request that hung is answered."""
        self.service.script = [answer]
        self.process.courier.let_go()

    @rule(seconds=st.sampled_from([1.0, 60.0, 3600.0, 1.5 * DAY]))
    def time_passes(self, seconds: float) -> None:
        """Nothing happens for a while."""
        self.clock.advance(seconds)

    @rule()
    def hurry(self) -> None:
        """Somebody who has little time wants the next attempt now."""
        self.process.delivery.hurry(self.clock.now + 1000)

    @rule(
        script=st.lists(ANSWERS, max_size=4),
        within_seconds=st.sampled_from([0.0, 5.0, 60.0]),
        late=st.sampled_from(["never", "accepted", "throttled", "answer lost"]),
    )
    def restart(self, script: list[str], within_seconds: float, late: str) -> None:
        """The process ends in good order, perhaps before an answer has come, and another one starts."""
        self.service.script = script
        self.process.shut_down(within_seconds)
        self.accounts_are_right()
        if self.process.courier.hanging and late != "never":
            self.service.script = [late]
            self.process.courier.let_go()
            self.accounts_are_right()
        self.leave()

    @rule(has_arrived=st.booleans())
    def kill(self, *, has_arrived: bool) -> None:
        """The process is killed; what hung may have arrived or not."""
        if self.process.spool:
            self.process.spool.abandon()
        self.service.unsure |= self.process.in_flight_numbers()
        if self.process.courier.hanging and has_arrived:
            self.answer_comes("accepted")
        self.leave()

    def leave(self) -> None:
        """Close the accounts of a process, and start another one."""
        stats = self.process.stats()
        self.ended["sent"] += stats.datums_sent
        self.ended["lost"] += sum(stats.datums_lost.values())
        # What was in memory only is gone with the process, and nobody was there to count it.
        self.ended["gone"] += stats.datums_pending - len(self.on_disk(self.process.own_files()))
        self.start()

    def files(self) -> set[Path]:
        """All that the spool holds."""
        return set(self.directory.glob("process-*/*.batch"))

    def on_disk(self, files: Iterable[Path]) -> list[Datum]:
        """The datums in these files."""
        return [datum for file in files for datum in Batch.from_body(_verified(file.read_bytes())).datums]

    @invariant()
    def accounts_are_right(self) -> None:
        """What was recorded was sent, is pending, is on disk for whoever comes next, or was lost."""
        left = self.on_disk(self.files() - self.process.own_files())
        stats = self.process.stats()
        lost = sum(stats.datums_lost.values()) + self.ended["lost"]
        if not self.series:
            sent = stats.datums_sent + self.ended["sent"]
            assert self.recorded == sent + stats.datums_pending + len(left) + lost + self.ended["gone"]
        waiting = Counter(number for datum in [*self.process.waiting(), *left] for number in numbers(datum))
        assert not [number for number, times in waiting.items() if times > 1]
        in_flight = self.process.in_flight_numbers()  # of which the answer may be there, and nobody has read it
        assert waiting.keys() & self.service.accepted.keys() <= self.service.unsure | in_flight
        missing = self.recorded - len(waiting.keys() | self.service.accepted.keys())
        assert missing >= lost + self.ended["gone"] - len(self.service.unsure)
        assert missing == 0 or lost + self.ended["gone"] > 0

    @invariant()
    def each_came_once(self) -> None:
        """CloudWatch has nothing twice, unless it could not say that it had it."""
        twice = {number for number, times in self.service.accepted.items() if times > 1}
        assert twice <= self.service.unsure

    @invariant()
    def oldest_first(self) -> None:
        """What a process recorded comes in this order, and after what it found on disk."""
        if not self.series:
            own = [number for number in self.service.in_order if number > self.first_of_process]
            assert own == sorted(own)
            assert own == self.service.in_order[len(self.service.in_order) - len(own) :]

    @invariant()
    def memory_is_bounded(self) -> None:
        """What is kept in memory is what is said, and no more comes to it than one request that is read from disk."""
        backlog = self.process.backlog
        sizes = [each.size_bytes for each in self.process.entries()]
        assert backlog.size_bytes == sum(sizes)
        assert backlog.size_bytes <= self.bound + LARGEST_BATCH_BYTES

    def teardown(self) -> None:
        """In the end the network is well again, and all that is left arrives."""
        if self.process.courier.hanging:
            self.answer_comes("accepted")
        self.kill(has_arrived=False)
        self.service.script = []
        assert self.process.deliver(1e6)
        self.accounts_are_right()
        assert not self.files()
        if self.process.spool:
            self.process.spool.close()
        assert not list(self.directory.glob("process-*"))
        shutil.rmtree(self.directory)


TestDelivery = DeliveryMachine.TestCase
TestDelivery.settings = effort(100)
