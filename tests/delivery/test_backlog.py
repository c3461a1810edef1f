import threading
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from otel_cloudwatch_flask.delivery import batch as batch_module
from otel_cloudwatch_flask.delivery.backlog import Backlog
from otel_cloudwatch_flask.delivery.batch import Batch, Envelope
from otel_cloudwatch_flask.delivery.compaction import compacted, joined
from otel_cloudwatch_flask.delivery.spool import Spool
from otel_cloudwatch_flask.delivery.stats import LossReason, StatsRecorder
from otel_cloudwatch_flask.model.datum import Datum, Series
from tests.support.fakes import PATIENCE_SECONDS, in_threads, join_all

SHOP = Envelope("Shop")


def batch(*names: str, value: float = 1.0) -> Batch:
    """Return a request with one datum for each of these metrics."""
    return Batch(SHOP, tuple(Datum(Series(name, (), "Count"), 0, value) for name in names))


def names(one: Batch | None) -> list[str]:
    """Return the names of a batch's metrics."""
    return [datum.series.name for datum in one.datums] if one else []


ONE = batch("a").size_bytes


class Accounts:
    """A backlog and its recorder."""

    def __init__(self, max_bytes: int) -> None:
        self.recorder = StatsRecorder()
        self.backlog = Backlog(max_bytes, self.recorder)

    def lost(self, reason: LossReason) -> int:
        """Return the number of datums lost for this reason."""
        stats = self.recorder.stats(datums_pending=0, metrics_active=0, metrics_overflowed=0)
        return stats.datums_lost.get(reason.value, 0)

    def drained(self) -> list[str]:
        """Check out and settle every queued batch as sent; return the metric names in order."""
        sent: list[str] = []
        while one := self.backlog.check_out():
            sent += names(one)
            self.backlog.settle()
        return sent


def test_datums_stay_pending_while_they_are_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    """While datums are being merged, another thread still sees them as pending."""
    backlog = Accounts(ONE).backlog
    pending: list[int] = []

    def ask(together: list[Batch]) -> list[Batch]:
        join_all(in_threads(lambda: pending.append(backlog.datums)))
        return compacted(together)

    monkeypatch.setattr("otel_cloudwatch_flask.delivery.backlog.compacted", ask)
    backlog.add([batch("a"), batch("a")])
    assert pending == [2]
    assert backlog.datums == 1


def test_a_thread_sends_while_another_joins_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch to be joined with new ones can be sent meanwhile, and no datum is sent twice or lost."""
    accounts = Accounts(10 * ONE)
    sent: list[str] = []

    def send(pending: list[Batch]) -> list[Batch]:
        join_all(in_threads(lambda: sent.extend(accounts.drained())))
        return joined(pending)

    accounts.backlog.add([batch("a")])
    monkeypatch.setattr("otel_cloudwatch_flask.delivery.backlog.joined", send)
    accounts.backlog.add([batch("b")])
    assert sent == ["a"]
    assert accounts.drained() == ["b"]
    assert (accounts.backlog.datums, accounts.backlog.size_bytes) == (0, 0)


def test_a_sending_thread_waits_until_batches_are_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that sends while another merges all batches waits for them, instead of finding no batch."""
    monkeypatch.setattr("otel_cloudwatch_flask.delivery.backlog._LONGEST_WAIT_SECONDS", PATIENCE_SECONDS)
    accounts = Accounts(ONE)
    found: list[str] = []
    senders: list[threading.Thread] = []

    def merge(together: list[Batch]) -> list[Batch]:
        has_begun = threading.Event()

        def send() -> None:
            has_begun.set()
            found.extend(names(accounts.backlog.check_out()))

        senders.extend(in_threads(send))
        has_begun.wait(30)
        senders[0].join(0.1)  # enough for a thread that does not wait
        return compacted(together)

    monkeypatch.setattr("otel_cloudwatch_flask.delivery.backlog.compacted", merge)
    accounts.backlog.add([batch("a"), batch("a")])
    join_all(senders)
    assert found == ["a"]


def test_a_sending_thread_does_not_wait_long_for_a_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    """If merging takes longer than a sending thread may wait, that thread finds no batch, and a later call finds it."""
    accounts = Accounts(ONE)
    found: list[Batch | None] = []

    def merge(together: list[Batch]) -> list[Batch]:
        join_all(in_threads(lambda: found.append(accounts.backlog.check_out())))
        return compacted(together)

    monkeypatch.setattr("otel_cloudwatch_flask.delivery.backlog._LONGEST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr("otel_cloudwatch_flask.delivery.backlog.compacted", merge)
    accounts.backlog.add([batch("a"), batch("a")])
    assert found == [None]
    assert names(accounts.backlog.check_out()) == ["a"]


def test_batches_that_cannot_be_merged_stay_in_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """If there is too little memory to merge batches, the oldest are lost, and the newest can still be sent."""
    accounts = Accounts(ONE)

    monkeypatch.setattr("otel_cloudwatch_flask.delivery.backlog.compacted", Mock(side_effect=MemoryError))
    accounts.backlog.add([batch("a", value=1.0), batch("a", value=2.0)])
    assert accounts.lost(LossReason.BACKLOG_FULL) == 1
    assert accounts.backlog.check_out() == batch("a", value=2.0)
    accounts.backlog.settle()
    assert (accounts.backlog.datums, accounts.backlog.size_bytes) == (0, 0)


def test_a_batch_that_memory_is_too_short_to_read_stays_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If there is too little memory to read a batch from the spool, the batch is read again later."""
    backlog = Backlog(ONE, StatsRecorder(), Spool(tmp_path))
    backlog.add([batch("a"), batch("b")])
    with monkeypatch.context() as patch:
        patch.setattr(Batch, "from_body", Mock(side_effect=MemoryError))
        assert backlog.check_out() is None
    assert names(backlog.check_out()) == ["a"]


def test_an_interrupt_leaves_a_batch_that_is_being_read_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If Ctrl-C interrupts the reading of a batch from the spool, the batch is still queued."""
    backlog = Backlog(ONE, StatsRecorder(), Spool(tmp_path))
    backlog.add([batch("a"), batch("b")])
    with monkeypatch.context() as patch:
        patch.setattr(Batch, "from_body", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            backlog.check_out()
    assert names(backlog.check_out()) == ["a"]


def test_close_unlocks_a_directory_that_is_not_completely_adopted(tmp_path: Path) -> None:
    """Another exporter adopts all batches of a process that a closed exporter had only begun to adopt."""
    ended = Spool(tmp_path)
    for name in ("a", "b", "c"):
        ended.write(batch(name))
    ended.close()
    first, second = (Backlog(10 * ONE, StatsRecorder(), Spool(tmp_path)) for _ in range(2))
    assert first.adopt_spooled(deadline=0.0)
    first.close()
    second.adopt_spooled(time.monotonic() + 60)
    assert second.datums == 3


def test_no_lock_is_held_while_batches_are_encoded_or_files_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread can read the statistics while a batch is encoded or a file is removed."""
    spool = Spool(tmp_path)
    backlog = Backlog(ONE, StatsRecorder(), spool)
    answered: list[int] = []

    def ask() -> None:
        join_all(in_threads(lambda: answered.append(backlog.datums)))

    encode, remove = batch_module.encoded, Spool.remove

    def asked_encode(datum: Datum) -> str:
        ask()
        return encode(datum)

    def asked_remove(spool: Spool, path: Path) -> None:
        ask()
        remove(spool, path)

    monkeypatch.setattr(batch_module, "encoded", asked_encode)
    monkeypatch.setattr(Spool, "remove", asked_remove)
    for name in ("a", "a", "b", "c"):
        backlog.add([batch(name)])
    one = backlog.check_out()
    assert one is not None
    backlog.settle(batch("d", "e").halves())
    assert answered


class TestMemory:
    """Waiting batches keep their values but not their encoded text."""

    @staticmethod
    def with_text(*names: str) -> Batch:
        """Return a batch with its encoded text, as the exporter creates it."""
        (made,) = SHOP.batches(batch(*names).datums)
        assert made._texts is not None
        return made

    def test_behind_others(self) -> None:
        """The next batch to send keeps its text; a batch queued behind it drops its text."""
        backlog = Accounts(10_000).backlog
        first, second = self.with_text("a"), self.with_text("b")
        second.envelope = Envelope("Warehouse")
        backlog.add([first])
        assert first._texts is not None
        backlog.add([second])
        assert second._texts is None
        assert (second.size_bytes, len(second.body())) == (
            len(warehouse := Batch(second.envelope, second.datums).body()),
        ) * 2
        assert second.body() == warehouse

    def test_after_an_attempt(self) -> None:
        """After a failed attempt, the batch and all batches behind it drop their text."""
        backlog = Accounts(10_000).backlog
        first, second = self.with_text("a"), self.with_text("b")
        backlog.add([first, second])
        assert backlog.check_out() is first
        backlog.settle([first])
        assert (first._texts, second._texts) == (None, None)
        assert backlog.size_bytes == first.size_bytes + second.size_bytes

    def test_put_together(self) -> None:
        """Batches merged because memory is short do not keep their text either."""
        backlog = Accounts(ONE).backlog
        backlog.add([self.with_text("a"), self.with_text("a")])
        together = backlog.check_out()
        assert together is not None
        assert together._texts is None


def test_oldest_first() -> None:
    """Batches are checked out in the order in which they were added."""
    accounts = Accounts(10_000)
    accounts.backlog.add([batch("a"), batch("b")])
    accounts.backlog.add([batch("c")])
    assert accounts.drained() == ["a", "b", "c"]
    assert (accounts.backlog.datums, accounts.backlog.size_bytes) == (0, 0)


def test_few_datums_share_a_request() -> None:
    """The datums of a queued batch and new ones are sent together if they have the same envelope."""
    backlog = Accounts(10_000).backlog
    backlog.add([batch("a")])
    backlog.add([batch("b", "c")])
    assert (backlog.datums, backlog.size_bytes) == (3, batch("a", "b", "c").size_bytes)
    backlog.add([Batch(Envelope("Warehouse"), batch("d").datums)])
    assert names(backlog.check_out()) == ["a", "b", "c"]
    backlog.settle()
    assert names(backlog.check_out()) == ["d"]


def test_half_of_a_refused_batch_stays_alone() -> None:
    """New datums are not joined with a suspect batch, which would undo the search for the refused datum."""
    backlog, whole = Accounts(10_000).backlog, batch("a", "b")
    backlog.add([whole])
    backlog.check_out()
    backlog.settle(whole.halves()[:1])
    backlog.add([batch("c")])
    assert names(backlog.check_out()) == ["a"]
    backlog.settle()
    assert names(backlog.check_out()) == ["c"]


def test_parts_of_a_refused_batch_are_skipped() -> None:
    """Batches behind the halves of a refused batch can be sent first. The halves stay in the queue, in order."""
    backlog, whole = Accounts(10_000).backlog, batch("a", "b")
    backlog.add([whole, batch("c")])
    backlog.check_out()
    backlog.settle(whole.halves())
    assert names(backlog.check_out(skips_suspects=True)) == ["c"]
    backlog.settle()
    assert backlog.check_out(skips_suspects=True) is None
    for expected in ("a", "b"):
        assert names(backlog.check_out()) == [expected]
        backlog.settle()


def test_a_batch_keeps_its_place_behind_skipped_parts() -> None:
    """A batch that was sent ahead of parts of a refused batch stays behind them if it fails or is refused too."""
    accounts, first, second = Accounts(10_000), batch("a", "b"), batch("c", "d")
    backlog = accounts.backlog
    backlog.add([first, second, batch("e")])
    backlog.check_out()
    backlog.settle(first.halves())
    for remaining in ((second,), second.halves()):
        assert names(backlog.check_out(skips_suspects=True)) == ["c", "d"]
        backlog.settle(remaining)
    assert accounts.drained() == ["a", "b", "c", "d", "e"]


def test_what_is_left_comes_first() -> None:
    """The rest of a partly sent batch returns to the front of the queue, in order."""
    backlog, whole = Accounts(10_000).backlog, batch("a", "b")
    backlog.add([whole, batch("c")])
    assert backlog.check_out() == whole
    backlog.settle(whole.halves())
    for expected in ("a", "b", "c"):
        assert names(backlog.check_out()) == [expected]
        backlog.settle()


def test_oldest_make_room() -> None:
    """When the limit is exceeded, the oldest datums are dropped and counted."""
    accounts = Accounts(ONE)
    accounts.backlog.add([batch(name) for name in "abc"])
    assert accounts.lost(LossReason.BACKLOG_FULL) + accounts.backlog.datums == 3
    assert accounts.drained() == list("abc")[accounts.lost(LossReason.BACKLOG_FULL) :]


def test_datums_of_one_series_are_merged() -> None:
    """When memory is short, datums of one series are merged, and no sample is lost."""
    accounts = Accounts(2 * ONE)
    for value in (1.0, 2.0, 3.5, 2.0):
        accounts.backlog.add([batch("a", value=value)])
    assert accounts.lost(LossReason.BACKLOG_FULL) == 0
    samples: dict[float, int] = {}
    while one := accounts.backlog.check_out():
        for datum in one.parameters()["MetricData"]:
            values = datum.get("Values", [datum.get("Value")])
            for value, count in zip(values, datum.get("Counts", [1]), strict=True):
                samples[value] = samples.get(value, 0) + count
        accounts.backlog.settle()
    assert samples == {1: 1, 2: 2, 3.5: 1}


def test_every_datum_is_counted_once() -> None:
    """Datums merged because memory is short are counted, so the figures add up to the number of datums added."""
    accounts = Accounts(2 * ONE)
    for name in "aabbaacd":
        accounts.backlog.add([batch(name)])
    stats = accounts.recorder.stats(datums_pending=accounts.backlog.datums, metrics_active=0, metrics_overflowed=0)
    assert stats.datums_merged > 0
    assert stats.datums_pending + stats.datums_merged + sum(stats.datums_lost.values()) == 8


def test_in_flight_is_not_dropped() -> None:
    """A batch in flight is not dropped to make room for newer ones."""
    accounts = Accounts(2 * ONE)
    accounts.backlog.add([batch("a"), batch("b")])
    first = accounts.backlog.check_out()
    assert names(first) == ["a"]
    accounts.backlog.add([batch("c")])
    assert accounts.backlog.datums + accounts.lost(LossReason.BACKLOG_FULL) == 3
    assert first is not None
    accounts.backlog.settle([first])
    drained = accounts.drained()
    assert (drained[0], drained[-1]) == ("a", "c")


@pytest.mark.parametrize("max_bytes", [1, ONE])
def test_the_newest_always_has_room(max_bytes: int) -> None:
    """If the limit is smaller than one request, the newest batch is still kept."""
    accounts = Accounts(max_bytes)
    accounts.backlog.add([batch("a")])
    accounts.backlog.add([batch("b" * 100)])
    assert accounts.drained()[-1] == "b" * 100


def test_empty() -> None:
    """An empty backlog has nothing to check out, and settling without a batch in flight has no effect."""
    accounts = Accounts(100)
    assert accounts.backlog.check_out() is None
    accounts.backlog.settle()
    accounts.backlog.settle([batch("a")])
    accounts.backlog.close()
    assert (accounts.backlog.datums, accounts.backlog.size_bytes, accounts.lost(LossReason.SHUTDOWN)) == (0, 0, 0)


def test_close_leaves_what_is_in_flight() -> None:
    """Closing drops and counts queued batches, but not the batch in flight, which may still arrive."""
    accounts = Accounts(10_000)
    accounts.backlog.add([batch("a", "b"), batch("c", "d", "e"), batch("f")])
    accounts.backlog.check_out()
    accounts.backlog.close()
    assert accounts.lost(LossReason.SHUTDOWN) == 4
    assert accounts.backlog.datums == 2
    accounts.backlog.settle()
    assert (accounts.backlog.datums, accounts.backlog.size_bytes) == (0, 0)


def test_threads_add_while_one_sends() -> None:
    """Batches added concurrently by several threads are all present, exactly once."""
    accounts = Accounts(10**7)
    is_added = threading.Event()
    sent: list[str] = []

    def add(prefix: str) -> None:
        for i in range(200):
            accounts.backlog.add([batch(f"{prefix}{i}")])

    def send() -> None:
        while not is_added.is_set() or accounts.backlog.datums:
            sent.extend(accounts.drained())

    sending, adding = in_threads(send), in_threads(lambda: add("a"), lambda: add("b"))
    join_all(adding)
    is_added.set()
    join_all(sending)
    assert sorted(sent) == sorted(f"{prefix}{i}" for prefix in "ab" for i in range(200))
    assert (accounts.backlog.datums, accounts.backlog.size_bytes) == (0, 0)


class BacklogMachine(RuleBasedStateMachine):
    """In any order of events, the oldest batch is sent and dropped first, and nothing is lost or counted twice."""

    def __init__(self) -> None:
        super().__init__()
        self.max_bytes = 8 * ONE
        self.accounts = Accounts(self.max_bytes)
        self.waiting: list[str] = []
        self.in_flight: Batch | None = None
        self.number = 0

    @rule(sizes=st.lists(st.integers(1, 5), max_size=4))
    def add(self, sizes: list[int]) -> None:
        """Add batches; if they exceed the limit, the oldest ones are dropped."""
        before = self.accounts.lost(LossReason.BACKLOG_FULL)
        added = []
        for size in sizes:
            added.append(batch(*[f"m{self.number + i}" for i in range(size)]))
            self.number += size
        self.waiting += [name for each in added for name in names(each)]
        self.accounts.backlog.add(added)
        del self.waiting[: self.accounts.lost(LossReason.BACKLOG_FULL) - before]

    @precondition(lambda self: self.in_flight is None)
    @rule()
    def check_out(self) -> None:
        """Check out the oldest batch."""
        self.in_flight = self.accounts.backlog.check_out()
        sent = names(self.in_flight)
        assert bool(sent) == bool(self.waiting)
        assert self.waiting[: len(sent)] == sent
        del self.waiting[: len(sent)]

    @rule(outcome=st.sampled_from(["sent", "kept", "halved", "expired in part"]))
    def settle(self, outcome: str) -> None:
        """Settle the batch in flight."""
        left: tuple[Batch, ...] = ()
        if self.in_flight is not None:
            if outcome == "kept":
                left = (self.in_flight,)
            elif outcome == "halved" and len(self.in_flight.datums) > 1:
                left = self.in_flight.halves()
            elif outcome == "expired in part" and len(self.in_flight.datums) > 1:
                left = (Batch(SHOP, self.in_flight.datums[1:]),)
        self.accounts.backlog.settle(left)
        self.waiting[:0] = [name for part in left for name in names(part)]
        self.in_flight = None

    @rule()
    def close(self) -> None:
        """Close the backlog, which drops all queued batches."""
        before = self.accounts.lost(LossReason.SHUTDOWN)
        self.accounts.backlog.close()
        assert self.accounts.lost(LossReason.SHUTDOWN) - before == len(self.waiting)
        self.waiting.clear()

    @invariant()
    def counts_are_right(self) -> None:
        """The queued batches and the one in flight count as pending."""
        backlog = self.accounts.backlog
        assert backlog.datums == len(self.waiting) + len(names(self.in_flight))
        assert (backlog.size_bytes > 0) == (backlog.datums > 0)


TestBacklogMachine = BacklogMachine.TestCase
TestBacklogMachine.settings = settings(max_examples=60, stateful_step_count=30)
