"""Forked children of a parent that records and flushes continuously."""

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.cloudwatch import SERVER_ERROR, FailingCloudWatch
from tests.reliability.processes import PATIENCE_SECONDS, Program

FORKS = 50
FORKS_LACKING = 5
COMPLAINTS = {
    "threads": "can't start new thread",
    "descriptors": "Too many open files",
    "space": "No space left on device",
}

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="this system has no fork")


def test_children(cloudwatch: FailingCloudWatch, tmp_path: Path, scale: float, figures: Callable[..., None]) -> None:
    """Each child sends only its own counts and exits; the parent's counts stay exact.

    The first forks happen while a thread of the parent still imports boto3. Children of multiprocessing do not flush
    explicitly; their metrics are flushed when they exit.
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


@pytest.mark.parametrize("resource_name", COMPLAINTS)
def test_children_that_lack_a_resource(
    cloudwatch: FailingCloudWatch, tmp_path: Path, scale: float, resource_name: str, figures: Callable[..., None]
) -> None:
    """If forks happen without threads, descriptors or disk space, and CloudWatch fails, all counts are still exact.

    Every third request fails, so the parent usually has pending data.
    """
    forks, requests = round(FORKS_LACKING * scale), itertools.count()
    cloudwatch.fault = lambda _: None if next(requests) % 3 else SERVER_ERROR
    spool = str(tmp_path / "spool")
    with Program(cloudwatch, tmp_path / "log", "fork", OTEL_EXPORTER_CLOUDWATCH_SPOOL_DIRECTORY=spool) as program:
        statuses = program.do("fork_lacking", resource_name, forks, within_seconds=PATIENCE_SECONDS * (1 + scale))
        assert statuses == [0] * forks, program.said()[-5000:]
        recorded, is_in = program.do("stop")
        assert is_in
        assert program.end() == 0
        assert COMPLAINTS[resource_name] in program.said()
    found = cloudwatch.published
    assert found.sum("Child") == 2 * forks
    assert (found.sum("Parent"), found.sum("instrument")) == (recorded, recorded)
    figures(forks=forks, of_the_parent=recorded, failed_requests=cloudwatch.traffic.faulted)
