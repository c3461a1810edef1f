import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from otel_cloudwatch_flask.group_commit import GroupCommit
from tests.fakes import PATIENCE_SECONDS, eventually, in_threads, join_all


class Work:
    """Work whose runs begin, wait to be let go, and end as the test says."""

    def __init__(self, outcomes: Sequence[bool | Exception] = ()) -> None:
        self.begun = 0
        self.at_once = Counter[str]()
        self.most_at_once = 0
        self.deadlines: list[float] = []
        self._gates = [threading.Event() for _ in range(20)]
        self._outcomes = list(outcomes)
        self._lock = threading.Lock()

    def __call__(self, deadline: float) -> bool:
        """One run."""
        with self._lock:
            number = self.begun
            self.begun += 1
            self.at_once["now"] += 1
            self.most_at_once = max(self.most_at_once, self.at_once["now"])
            self.deadlines.append(deadline)
            outcome = self._outcomes.pop(0) if self._outcomes else True
        self._gates[number].wait(PATIENCE_SECONDS)
        with self._lock:
            self.at_once["now"] -= 1
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def let_go(self, number: int) -> None:
        """Let a run end; the first is 0."""
        self._gates[number].set()

    def let_all_go(self) -> None:
        """Let every run end at once."""
        for gate in self._gates:
            gate.set()


def waiters(commit: GroupCommit) -> int:
    """How many wait for a run."""
    return len(commit._changed._waiters)  # type: ignore[attr-defined]  # nothing else says so


def asker(commit: GroupCommit, answers: list[bool], seconds: float = PATIENCE_SECONDS) -> Callable[[], None]:
    """Somebody who asks once, and notes the answer."""

    def ask() -> None:
        answers.append(commit.run(time.monotonic() + seconds))

    return ask


def test_alone() -> None:
    """Who asks alone gets a run of his own, and its outcome."""
    work = Work([True, False])
    work.let_all_go()
    commit = GroupCommit(work)
    assert commit.run(5.0) is True
    assert commit.run(6.0) is False
    assert work.deadlines == [5.0, 6.0]


def test_one_run_serves_all_who_wait() -> None:
    """Sixteen who ask while a run is on wait for that one and one more, and no two runs are on at once."""
    work, answers = Work(), list[bool]()
    commit = GroupCommit(work)
    first = in_threads(asker(commit, answers))
    assert eventually(lambda: work.begun == 1)
    others = in_threads(*[asker(commit, answers)] * 16)
    assert eventually(lambda: waiters(commit) == 16)
    work.let_go(0)
    assert eventually(lambda: work.begun == 2)
    assert answers in ([True], [])  # the run that was on when they asked is not theirs
    work.let_go(1)
    join_all([*first, *others])
    assert answers == [True] * 17
    assert (work.begun, work.most_at_once) == (2, 1)


def test_a_run_that_is_on_does_not_count() -> None:
    """A run that began before somebody asked does not serve him, even if it succeeds."""
    work, answers = Work([True, False]), list[bool]()
    commit = GroupCommit(work)
    first = in_threads(asker(commit, []))
    assert eventually(lambda: work.begun == 1)
    second = in_threads(asker(commit, answers))
    assert eventually(lambda: waiters(commit) == 1)
    work.let_all_go()
    join_all([*first, *second])
    assert answers == [False]
    assert work.begun == 2


def test_deadline() -> None:
    """Who has no more time gets ``False`` though the run goes on."""
    work = Work()
    commit = GroupCommit(work)
    first = in_threads(asker(commit, []))
    assert eventually(lambda: work.begun == 1)
    begun = time.monotonic()
    assert commit.run(begun + 0.05) is False
    assert 0.05 <= time.monotonic() - begun < PATIENCE_SECONDS / 2
    assert commit.run(begun) is False
    work.let_all_go()
    join_all(first)
    assert work.begun == 1


@pytest.mark.parametrize("outcome", [False, RuntimeError("no")], ids=["fails", "raises"])
def test_a_failing_leader_hands_over(outcome: bool | Exception) -> None:  # noqa: FBT001 - what the work does
    """If the run of one fails, or raises, the next tries with a deadline of its own; success then serves the rest."""
    work, answers, raised = Work([outcome, True]), list[bool](), list[str]()
    commit = GroupCommit(work)

    def lead() -> None:
        try:
            answers.append(commit.run(time.monotonic() + PATIENCE_SECONDS))
        except RuntimeError as error:
            raised.append(str(error))

    first = in_threads(lead)
    assert eventually(lambda: work.begun == 1)
    others = in_threads(*[asker(commit, answers)] * 4)
    assert eventually(lambda: waiters(commit) == 4)
    work.let_all_go()
    join_all([*first, *others])
    assert work.begun == 2
    assert sorted([*answers, *map(bool, raised)]) == ([False] * (outcome is False) + [True] * (4 + len(raised)))
    assert len(set(work.deadlines)) == 2


def test_an_exception_gives_the_turn_back() -> None:
    """An exception reaches the one whose run it was, and the next run is possible."""
    work = Work([RuntimeError("no"), True])
    work.let_all_go()
    commit = GroupCommit(work)
    with pytest.raises(RuntimeError, match="no"):
        commit.run(1.0)
    assert commit.run(1.0) is True


def test_waiting_without_a_deadline() -> None:
    """Whoever has all the time there is waits for the run that is on, and then has his own."""
    work = Work()
    commit = GroupCommit(work)
    answers: list[bool] = []
    threads = in_threads(asker(commit, answers), asker(commit, answers, math.inf))
    assert eventually(lambda: work.begun == 1 and waiters(commit) == 1)
    work.let_all_go()
    join_all(threads)
    assert answers == [True, True]
