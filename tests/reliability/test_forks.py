"""Forked children of a parent that records and flushes continuously."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.cloudwatch import FailingCloudWatch
from tests.reliability.processes import Program

FORKS = 50

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="this system has no fork")


def test_children(cloudwatch: FailingCloudWatch, tmp_path: Path, scale: float, figures: Callable[..., None]) -> None:
    """Each child sends only its own counts and exits, and the parent's counts stay exact.

    The first forks happen while the parent's thread still imports boto3. Children of multiprocessing do not flush
    explicitly: their metrics are flushed when they exit.
    """
    forks, started = round(FORKS * scale), round(3 * scale)
    with Program(cloudwatch, tmp_path / "log", "fork") as program:
        assert program.do("fork", forks) == [0] * forks
        assert program.do("start", "fork", started) == [0] * started
        assert program.do("start", "spawn", 1) == [0]
        recorded, is_in = program.do("stop")
        assert is_in
        assert program.end() == 0
    found = cloudwatch.published
    assert found.sum("Child") == forks
    assert found.sum("Child by fork") == started
    assert found.sum("Child by spawn") == 1
    assert (found.sum("Parent"), found.sum("instrument")) == (recorded, recorded)
    figures(forks=forks, multiprocessing=started + 1, of_the_parent=recorded, published=found.sum("Parent"))
