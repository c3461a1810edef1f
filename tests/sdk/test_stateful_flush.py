"""Threads flush one reader in an order set by a state machine, and each flush returns the correct result."""

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
    """A flush in the reader's thread, which lasts until the state machine sets its outcome."""

    deadline: float
    is_delivered: bool = True
    may_end: threading.Event = field(default_factory=threading.Event)


@dataclass(eq=False)
class Caller:
    """A call of ``flush``: the number of flushes that began before it, and its result."""

    begun_before: int
    answer: bool | None = None


class ScriptedReader(CloudWatchMetricReader):
    """A reader whose flushes have the outcomes set by the state machine."""

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
        self.exporter.sender.retry_at = math.inf  # after a failed flush, none begins automatically

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
    """Threads flush while deliveries succeed or fail, and every call of ``flush`` returns the correct result."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = ScriptedReader()
        self.callers: list[Caller] = []
        self.threads: list[threading.Thread] = []

    def waiting(self) -> list[Caller]:
        """Return the callers that have no result yet."""
        return [caller for caller in self.callers if caller.answer is None]

    def begun(self) -> int:
        """Return the number of flushes that have begun."""
        return len(self.reader.runs)

    def is_settled(self) -> object:
        """Return whether a flush is in progress or none is requested."""
        return self.reader.running or not (self.waiting() or self.reader._is_requested)

    def settle(self) -> None:
        """Wait until the threads block."""
        assert eventually(self.is_settled)

    def call(self, timeout_seconds: float) -> Caller:
        """Start a thread that flushes."""
        caller = Caller(self.begun())
        self.callers.append(caller)

        def flush() -> None:
            caller.answer = self.reader.flush(timeout_seconds)

        self.threads += in_threads(flush)
        return caller

    @rule()
    def flush(self) -> None:
        """Flush in a thread, with an unlimited timeout."""
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
        """Flush in a thread with a tiny timeout while a flush is in progress; the call must not wait for that flush."""
        caller = self.call(0.001)
        assert eventually(lambda: caller.answer is False)

    @rule()
    def request(self) -> None:
        """Request a flush without waiting."""
        self.reader.request_flush()
        assert eventually(lambda: self.reader.running)

    @rule(is_delivered=st.sampled_from([True, True, False]))
    def end_run(self, *, is_delivered: bool) -> None:
        """End the flush in progress with this outcome; only callers that called before it began get the result."""
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
        """At most one flush is in progress at any time."""
        assert self.reader.most_at_once <= 1

    def teardown(self) -> None:
        """At the end, every caller has a result, even those that called after the last scripted flush."""
        self.reader.is_over.set()
        for run in self.reader.runs:
            run.may_end.set()
        self.reader.shutdown()
        join_all(self.threads)
        assert not self.waiting()


TestFlush = FlushMachine.TestCase
TestFlush.settings = effort(40)
