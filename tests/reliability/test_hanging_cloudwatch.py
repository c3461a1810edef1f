"""CloudWatch hangs forever: every shutdown ends in time, and logs the undelivered data."""

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from otel_cloudwatch_flask.sdk.reader import EXIT_TIMEOUT_SECONDS
from tests.reliability.cloudwatch import FailingCloudWatch
from tests.reliability.processes import GUNICORN, Load, Program, serving

ITS_OWN_END_SECONDS = 3.0
"""Allowance in seconds for the rest of an interpreter's or a server's exit, on a busy machine."""


@pytest.mark.parametrize("is_spooled", [False, True], ids=["memory", "spool"])
def test_shutdown(
    cloudwatch: FailingCloudWatch,
    tmp_path: Path,
    is_spooled: bool,  # noqa: FBT001 - a column of the table
    figures: Callable[..., None],
) -> None:
    """Shutdown returns within its timeout plus one second, and reports unanswered and unsent data."""
    spool = tmp_path / "spool"
    variables = {"OTEL_EXPORTER_CLOUDWATCH_SPOOL_DIRECTORY": str(spool)} if is_spooled else {}
    with cloudwatch.hanging(), Program(cloudwatch, tmp_path / "log", **variables) as program:
        program.do("add", 1)
        assert program.do("flush", 0.5) is False
        program.do("add", 10)
        seconds = program.do("shutdown", 2.0)
        stats, said = program.do("stats"), program.said()
        assert program.end() == 0
    assert 2.0 <= seconds < 3.0
    assert "1 data point(s) were being sent at shutdown, but CloudWatch has not responded" in said
    if is_spooled:
        assert stats["datums_lost"] == {}
        assert "1 data point(s) could not be sent, and remain in the spool" in said
        with Program(cloudwatch, tmp_path / "next", **variables) as program:
            program.do("add", 0)
            assert program.do("flush", 30)
        assert cloudwatch.published.sum("Orders") == 11
    else:
        assert stats["datums_lost"] == {"shutdown": 1}
        assert "1 data point(s) could not be sent before the exporter was shut down, and are lost" in said
    figures(shutdown=f"{seconds:.2f} s of 2 s", lost=stats["datums_lost"])


def end_both(directory: Path) -> list[tuple[float, str]]:
    """End a program and a gunicorn server whose CloudWatch hangs; return the duration and the log of each."""
    command = [*GUNICORN, "--workers", "1", "--threads", "2", "--worker-class", "gthread"]
    with (
        FailingCloudWatch() as cloudwatch,
        cloudwatch.hanging(),
        Program(cloudwatch, directory / "program") as program,
        serving(cloudwatch, directory / "gunicorn", command, ["tests.reliability.app:create_app()"]) as server,
    ):
        load = Load(server.url, clients=1).start()
        load.wait_for(10)
        load.stop()
        program.do("add", 1)
        with ThreadPoolExecutor(1) as pool:
            ending = pool.submit(seconds_to_end, program)
            of_gunicorn = server.terminate()
        return [(ending.result(), program.said()), (of_gunicorn, server.log.read_text())]


def seconds_to_end(program: Program) -> float:
    """End a program, and return the seconds it took."""
    begun = time.monotonic()
    assert program.end() == 0
    return time.monotonic() - begun


@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork")
def test_exit_and_sigterm(tmp_path: Path, figures: Callable[..., None]) -> None:
    """A program's exit and gunicorn's reaction to SIGTERM take no longer than the exit timeout."""
    result = end_both(tmp_path)
    for seconds, said in result:
        assert seconds < EXIT_TIMEOUT_SECONDS + 1 + ITS_OWN_END_SECONDS, said
        # The second message appears if the client gave up on the hanging call before the exit timeout.
        in_progress = "but CloudWatch has not responded. If it does not accept them, they are lost" in said
        assert in_progress or "could not be sent before the exporter was shut down, and are lost" in said
    of_interpreter, of_gunicorn = (f"{seconds:.1f} s" for seconds, _ in result)
    figures(interpreter=of_interpreter, gunicorn=of_gunicorn, timeout=EXIT_TIMEOUT_SECONDS)
