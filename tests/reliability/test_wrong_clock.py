"""A wall clock is off by a day: CloudWatch rejects signatures until the clock is corrected, and no data is lost."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.reliability.cloudwatch import FailingCloudWatch
from tests.reliability.processes import Program

DAY = 24 * 3600


@pytest.fixture
def judging_cloudwatch() -> Iterator[FailingCloudWatch]:
    """A CloudWatch emulator that checks the time of signatures, as AWS does."""
    with FailingCloudWatch(judges_signatures=True) as failing:
        yield failing


@pytest.mark.parametrize("jump", [DAY, -DAY], ids=["forward", "back"])
def test_a_jump_and_back(
    judging_cloudwatch: FailingCloudWatch, tmp_path: Path, jump: int, figures: Callable[..., None]
) -> None:
    """No flush hangs, no datum is rejected, and pending data arrives after the clock is corrected."""
    cloudwatch = judging_cloudwatch
    with Program(cloudwatch, tmp_path / "log", WRONG_CLOCK="1") as program:
        program.do("add", 1)
        assert program.do("flush", 30)
        program.do("set_clock", jump)
        program.do("add", 20)
        is_flushed, seconds = program.do("timed_flush", 1.0)
        assert not is_flushed
        assert seconds < 2.0
        program.do("set_clock", 0)
        program.do("add", 300)
        assert program.do("flush", 60)
        stats = program.do("stats")
    assert cloudwatch.published.sum("Orders") == 321
    assert cloudwatch.validation_errors == []
    assert stats["datums_lost"] == {}
    times = [each.unix_time - time.time() for each in cloudwatch.published.accepted]
    assert max(times) < 2 * 3600, "future timestamps are corrected when they are sent"
    figures(flush=f"{seconds:.2f} s of 1 s", published=321, oldest=f"{min(times) / 3600:.0f} h")


@pytest.mark.parametrize("jump", [DAY, -DAY], ids=["forward", "back"])
def test_a_clock_that_is_put_right(
    judging_cloudwatch: FailingCloudWatch, tmp_path: Path, jump: int, figures: Callable[..., None]
) -> None:
    """Data recorded on a machine that starts with a wrong clock is delivered after the clock is corrected."""
    cloudwatch = judging_cloudwatch
    with Program(cloudwatch, tmp_path / "log", WRONG_CLOCK="1", CLOCK_AHEAD=str(jump)) as program:
        program.do("add", 20)
        assert program.do("flush", 1.0) is False
        program.do("set_clock", 0)
        program.do("add", 1)
        assert program.do("flush", 60)
        stats = program.do("stats")
    assert cloudwatch.published.sum("Orders") == 21
    assert (cloudwatch.validation_errors, stats["datums_lost"]) == ([], {})
    figures(published=21)
