"""Group commit with real threads that come, run and leave as the machine says, on a clock that does what it is told."""

import threading
from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from otel_cloudwatch_flask.group_commit import GroupCommit
from tests.fakes import PATIENCE_SECONDS, FakeClock, eventually, in_threads, join_all
from tests.fuzzing import effort

NEVER = 1e9


@dataclass(eq=False)
class Run:
    """A run of the work, which lasts until it is told its outcome."""

    deadline: float
    begun: int
    outcome: bool | Exception = True
    may_end: threading.Event = field(default_factory=threading.Event)
    is_over: threading.Event = field(default_factory=threading.Event)


@dataclass(eq=False)
class Asker:
    """Somebody who asks once: how many runs had begun by then, and what came of it."""

    deadline: float
    begun_before: int
    answer: bool | str | None = None


class GroupCommitMachine(RuleBasedStateMachine):
    """Many ask, runs succeed, fail and raise, time passes: nobody is told what is not so, and nobody is forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.commit = GroupCommit(self.work, self.clock)
        self.askers: list[Asker] = []
        self.threads: list[threading.Thread] = []
        self.runs: list[Run] = []
        self.running: list[Run] = []
        self.most_at_once = 0

    def work(self, deadline: float) -> bool:
        """One run."""
        run = Run(deadline, len(self.runs) + 1)
        self.runs.append(run)
        self.running.append(run)
        self.most_at_once = max(self.most_at_once, len(self.running))
        assert run.may_end.wait(PATIENCE_SECONDS)
        self.running.remove(run)
        run.is_over.set()
        if isinstance(run.outcome, Exception):
            raise run.outcome
        return run.outcome

    def is_settled(self) -> bool:
        """Whether every thread has come as far as it can: one runs, the others wait for it, or nobody is there."""
        waiting = sum(asker.answer is None for asker in self.askers)
        return len(self.running) == min(waiting, 1) and len(self.commit._changed._waiters) == max(waiting - 1, 0)  # type: ignore[attr-defined]  # nothing else says so

    def settle(self) -> None:
        """Let the threads come as far as they can."""
        assert eventually(self.is_settled)

    @rule(patience=st.sampled_from([0.0, 5.0, 50.0, NEVER]))
    def ask(self, patience: float) -> None:
        """Somebody asks, with so much time."""
        asker = Asker(self.clock.now + patience, len(self.runs))
        self.askers.append(asker)

        def run() -> None:
            try:
                answer: bool | str = self.commit.run(asker.deadline)
            except RuntimeError:
                answer = "raised"
            asker.answer = answer

        self.threads += in_threads(run)
        self.settle()

    @rule(outcome=st.sampled_from([True, True, False, RuntimeError("no")]))
    def end_run(self, outcome: bool | Exception) -> None:  # noqa: FBT001 - what the work does
        """The run that is on, if there is one, ends so."""
        for run in self.running[:]:
            waiting = [asker for asker in self.askers if asker.answer is None]
            run.outcome = outcome
            run.may_end.set()
            assert run.is_over.wait(PATIENCE_SECONDS)
            self.settle()
            self.answers_are_right(waiting, run)

    @rule(seconds=st.sampled_from([1.0, 10.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        """Time passes, and whoever waits looks at the clock."""
        self.clock.advance(seconds)
        with self.commit._changed:
            self.commit._changed.notify_all()
        self.settle()
        late = [asker for asker in self.askers if asker.deadline <= self.clock.now and asker.answer is None]
        assert len(late) <= len(self.running)  # the one whose run it is

    def answers_are_right(self, waiting: list[Asker], run: Run) -> None:
        """After a success all have it who asked before that run began; after anything else, nobody but its own."""
        answered = [asker for asker in waiting if asker.answer is not None]
        if run.outcome is True:
            served = [asker for asker in waiting if asker.begun_before < run.begun]
            assert [asker.answer for asker in served] == [True] * len(served)
            assert len(answered) - len(served) <= sum(asker.deadline <= self.clock.now for asker in answered)
        else:
            wanted = "raised" if isinstance(run.outcome, Exception) else False
            assert [asker.answer for asker in answered].count(wanted) >= 1
            assert True not in [asker.answer for asker in answered]

    @invariant()
    def one_at_a_time(self) -> None:
        """Never are two runs on at once."""
        assert self.most_at_once <= 1

    def teardown(self) -> None:
        """In the end everybody has an answer."""
        while self.running:
            self.end_run(outcome=True)
        join_all(self.threads)
        assert all(asker.answer is not None for asker in self.askers)


TestGroupCommit = GroupCommitMachine.TestCase
TestGroupCommit.settings = effort(40)
