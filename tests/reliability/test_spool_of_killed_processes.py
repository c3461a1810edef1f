"""After ``kill -9`` with a spool, the next process sends all data that had left the SDK."""

import random
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.reliability.cloudwatch import SERVER_ERROR, FailingCloudWatch
from tests.reliability.processes import PATIENCE_SECONDS, Program
from tests.support.fakes import eventually

KILLS = 3
SEED = 17
INTERVAL_SECONDS = 1.0

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a spool needs file locks")


def test_killed_in_an_outage(cloudwatch: FailingCloudWatch, tmp_path: Path, figures: Callable[..., None]) -> None:
    """The next process sends the data of killed processes in the shared directory, but not that of running ones."""
    spool = str(tmp_path / "spool")

    def program(name: str) -> Program:
        return Program(cloudwatch, tmp_path / name, OTEL_EXPORTER_CLOUDWATCH_SPOOL_DIRECTORY=spool)

    cloudwatch.always(SERVER_ERROR)
    with program("first") as first, program("second") as second, program("living") as living:
        for each, orders in ((first, 1), (second, 20), (living, 300)):
            each.do("add", orders)
            assert each.do("flush", 0.3) is False
        first.kill()
        second.kill()
        living.process.send_signal(signal.SIGSTOP)  # Otherwise the process might send its own data meanwhile.
        cloudwatch.always(None)
        with program("next") as following:
            following.do("add", 4000)
            assert following.do("flush", 60)
            assert cloudwatch.published.sum("Orders") == 4021
            assert following.do("stats")["datums_lost"] == {}
        living.process.send_signal(signal.SIGCONT)
        assert living.do("flush", 60)
        assert cloudwatch.published.sum("Orders") == 4321
        assert living.end() == 0
    assert [each.name for each in Path(spool).rglob("*.batch")] == []
    figures(killed=2, orders_of_the_dead=21, published=cloudwatch.published.sum("Orders"))


def test_killed_at_any_moment(
    cloudwatch: FailingCloudWatch, tmp_path: Path, scale: float, figures: Callable[..., None]
) -> None:
    """All metrics of processes killed in an outage arrive once, except those recorded in the last interval."""
    variables = {
        "OTEL_EXPORTER_CLOUDWATCH_SPOOL_DIRECTORY": str(tmp_path / "spool"),
        "OTEL_METRIC_EXPORT_INTERVAL": str(round(1000 * INTERVAL_SECONDS)),
    }
    cloudwatch.always(SERVER_ERROR)
    source = random.Random(SEED)

    def count_until_killed(name: str) -> list[tuple[int, float]]:
        with Program(cloudwatch, tmp_path / name, **variables) as program:
            program.tell("count_and_say", name)
            first = program.hear()
            time.sleep(source.uniform(0, 3 * INTERVAL_SECONDS))
            program.kill()
            return [(counted, at) for counted, at in [first, *program.hear_all()]]

    names = [f"Orders {number}" for number in range(round(KILLS * scale))]
    with ThreadPoolExecutor(KILLS) as pool:
        said = dict(zip(names, pool.map(count_until_killed, names), strict=True))
    cloudwatch.always(None)
    with Program(cloudwatch, tmp_path / "following", **variables) as following:
        following.do("add", 1)
        assert following.do("flush", PATIENCE_SECONDS, within_seconds=2 * PATIENCE_SECONDS)
        assert following.do("stats")["datums_lost"] == {}
    ages, lost = [0.0], 0
    for name, counts in said.items():
        arrived = round(cloudwatch.published.sum(name))
        missing = [at for counted, at in counts if counted > arrived]
        ages += [counts[-1][1] - each for each in missing[:1]]
        lost += len(missing)
        assert arrived <= counts[-1][0] + 1, "the last count may not have been reported"
    figures(kills=len(names), recorded=sum(each[-1][0] for each in said.values()), lost=lost, oldest_lost=max(ages))
    assert max(ages) < 2 * INTERVAL_SECONDS + 3  # generous, because the machine may be busy


def test_killed_while_it_sends(cloudwatch: FailingCloudWatch, tmp_path: Path, figures: Callable[..., None]) -> None:
    """All data confirmed by a flush arrives; flushes not reported before the kill add only a few requests."""
    spool = str(tmp_path / "spool")
    vouched_for = 0
    for number in range(3):
        before = cloudwatch.published.sum("Orders")
        log = tmp_path / f"log {number}"
        with Program(cloudwatch, log, OTEL_EXPORTER_CLOUDWATCH_SPOOL_DIRECTORY=spool) as program:
            program.tell("flush_often")
            heard = [program.hear() for _ in range(20 + number)]
        assert cloudwatch.published.sum("Orders") - before >= heard[-1]
        vouched_for += heard[-1]
    with Program(cloudwatch, tmp_path / "last", OTEL_EXPORTER_CLOUDWATCH_SPOOL_DIRECTORY=spool) as program:
        assert program.do("flush", 60)
        program.do("add", 1)
        assert program.do("flush", 60)
    largest = 10
    published = cloudwatch.published.sum("Orders")
    # A process may have completed a few more flushes after the last one it reported.
    arrived = sum(1 for each in cloudwatch.published.accepted if each.metric.name == "Orders")
    assert vouched_for + 1 <= published <= largest * arrived
    assert published - vouched_for == pytest.approx(1, abs=3 * 10 * largest)
    figures(kills=3, vouched_for=vouched_for + 1, published=published)


def test_a_torn_file(cloudwatch: FailingCloudWatch, tmp_path: Path) -> None:
    """A truncated or foreign file is set aside and logged; the other files are sent."""
    spool = tmp_path / "spool"
    cloudwatch.always(SERVER_ERROR)
    with Program(cloudwatch, tmp_path / "log", OTEL_EXPORTER_CLOUDWATCH_SPOOL_DIRECTORY=str(spool)) as program:
        program.do("add", 5)
        assert program.do("flush", 0.3) is False
        (whole,) = spool.rglob("*.batch")
    (whole.parent / "00000000000000000001-000001.batch").write_bytes(whole.read_bytes()[:-20])
    (whole.parent / "00000000000000000002-000001.batch").write_text("not ours")
    cloudwatch.always(None)
    with Program(cloudwatch, tmp_path / "next", OTEL_EXPORTER_CLOUDWATCH_SPOOL_DIRECTORY=str(spool)) as program:
        assert eventually(lambda: program.do("flush", 30))
        said = program.said()
    assert cloudwatch.published.sum("Orders") == 5
    assert said.count("as a batch of metrics") == 2
    assert len(list(spool.glob("*.bad"))) == 2
