"""Real threads flush one reader in the order that the state machine sets: each gets the correct result."""

import math
import threading
from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from otel_cloudwatch_flask import CloudWatchMetricExporter, CloudWatchMetricReader
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch
from tests.support.fakes import eventually, in_threads, join_all
from tests.support.fuzzing import effort, repeatable_jitter  # noqa: F401 - a fixture

NEVER = 1e6


@dataclass(eq=False)
class Run:
    """A flush of the reader's thread, which lasts until its outcome is set."""

    deadline: float
    is_delivered: bool = True
    may_end: threading.Event = field(default_factory=threading.Event)


@dataclass(eq=False)
class Caller:
    """A call of ``flush``: the number of flushes begun before it, and its result."""

    begun_before: int
    answer: bool | None = None


class ScriptedReader(CloudWatchMetricReader):
    """A reader whose flushes deliver as the state machine decides."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.running: list[Run] = []
        self.most_at_once = 0
        self.is_over = threading.Event()
        super().__init__(
            CloudWatchMetricExporter("Shop", client=FakeCloudWatch()),
            export_interval_seconds=NEVER,
            flush_min_interval_seconds=0.0,
        )
        self.exporter.sender.retry_at = math.inf  # no flush begins automatically after a failed one

    def _flush_now(self, deadline: float, *, is_last: bool = False) -> bool:
        run = Run(deadline)
        self.runs.append(run)
        self.running.append(run)
        self.most_at_once = max(self.most_at_once, len(self.running))
        while not (is_last or self.is_over.is_set() or run.may_end.wait(0.01)):
            pass
        self.running.remove(run)
        return run.is_delivered


class FlushMachine(RuleBasedStateMachine):
    """Threads flush while deliveries succeed and fail: each call of flush returns the correct result."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = ScriptedReader()
        self.callers: list[Caller] = []
        self.threads: list[threading.Thread] = []

    def waiting(self) -> list[Caller]:
        """Return the callers without a result."""
        return [caller for caller in self.callers if caller.answer is None]

    def begun(self) -> int:
        """Return the number of flushes that have begun."""
        return len(self.reader.runs)

    def is_settled(self) -> object:
        """Whether a flush is in progress, or none is requested."""
        return self.reader.running or not (self.waiting() or self.reader._is_requested)

    def settle(self) -> None:
        """Let the threads run until they block."""
        assert eventually(self.is_settled)

    def call(self, timeout_seconds: float) -> Caller:
        """Flush in a thread."""
        caller = Caller(self.begun())
        self.callers.append(caller)

        def flush() -> None:
            caller.answer = self.reader.flush(timeout_seconds)

        self.threads += in_threads(flush)
        return caller

    @rule()
    def flush(self) -> None:
        """A thread flushes with an unlimited timeout."""
        asked, was_idle = self.reader._inbox.qsize(), not self.reader.running
        caller = self.call(NEVER)
        if was_idle:
            assert eventually(lambda: self.begun() > caller.begun_before)
            assert self.reader.runs[-1].deadline > NEVER / 2
        else:
            assert eventually(lambda: self.reader._inbox.qsize() > asked)
        self.settle()

    @precondition(lambda self: self.reader.running)
    @rule()
    def flush_without_time(self) -> None:
        """A thread flushes with a tiny timeout while a flush is in progress, and does not wait for it."""
        caller = self.call(0.001)
        assert eventually(lambda: caller.answer is False)

    @rule()
    def request(self) -> None:
        """A request asks for a flush without waiting."""
        self.reader.request_flush()
        assert eventually(lambda: self.reader.running)

    @rule(is_delivered=st.sampled_from([True, True, False]))
    def end_run(self, *, is_delivered: bool) -> None:
        """End the flush in progress with this outcome; exactly the callers that asked before it began get a result."""
        for run in self.reader.running[:]:
            number = self.begun()
            served = [caller for caller in self.waiting() if caller.begun_before < number]
            others = [caller for caller in self.waiting() if caller not in served]
            run.is_delivered = is_delivered
            run.may_end.set()
            assert eventually(lambda run=run: run not in self.reader.running)  # type: ignore[misc]
            assert eventually(lambda served=served: all(caller.answer is not None for caller in served))  # type: ignore[misc]
            assert [caller.answer for caller in served] == [is_delivered] * len(served)
            self.settle()
            assert [caller.answer for caller in others] == [None] * len(others)
            assert not others or self.reader.runs[-1].deadline > NEVER / 2

    @invariant()
    def one_at_a_time(self) -> None:
        """Two flushes are never in progress at the same time."""
        assert self.reader.most_at_once <= 1

    def teardown(self) -> None:
        """At the end every caller has a result, including those that asked after the last flush."""
        self.reader.is_over.set()
        for run in self.reader.runs:
            run.may_end.set()
        self.reader.shutdown()
        join_all(self.threads)
        assert not self.waiting()


TestFlush = FlushMachine.TestCase
TestFlush.settings = effort(40)
