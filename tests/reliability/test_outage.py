"""Outages of any length reduce the time resolution of metrics, but lose no counts."""

from collections.abc import Callable
from pathlib import Path

from benchmarks.outage import Outage
from tests.reliability.cloudwatch import SERVER_ERROR, FailingCloudWatch
from tests.reliability.processes import Program, rss_bytes

OUTAGE_SECONDS = 12.0
MEGABYTE = 2**20


def test_outage_under_load(tmp_path: Path, scale: float, figures: Callable[..., None]) -> None:
    """Counts stay exact at 50 requests per second while CloudWatch refuses connections, fails and throttles."""
    with FailingCloudWatch() as cloudwatch:
        result = Outage(seconds=OUTAGE_SECONDS * scale).run(cloudwatch, tmp_path / "log")
    assert cloudwatch.validation_errors == []
    assert result.counted == result.answered
    assert result.lost == {}
    assert result.calls <= result.most_calls
    assert result.growth_bytes < 20 * MEGABYTE
    figures(**result.figures())


def test_backlog_of_a_megabyte(cloudwatch: FailingCloudWatch, tmp_path: Path, figures: Callable[..., None]) -> None:
    """With the package's reader, data of 20 times the backlog limit is merged in the SDK, and counts stay exact."""
    with Program(cloudwatch, tmp_path / "log", OTEL_EXPORTER_CLOUDWATCH_MAX_BACKLOG_BYTES=str(MEGABYTE)) as program:
        names = [f"{number} {'x' * 200}" for number in range(900)]
        bytes_a_round = program.do("add_names", names) * 300
        assert program.do("flush", 30)
        before, requests_before = rss_bytes(program.process.pid), len(cloudwatch.published.requests)
        cloudwatch.always(SERVER_ERROR)
        rounds = 20 * MEGABYTE // bytes_a_round + 1
        pending = []
        for _ in range(rounds):
            program.do("add_names", names)
            assert program.do("flush", 0.02) is False
            pending.append(program.do("stats")["datums_pending"])
        growth = rss_bytes(program.process.pid) - before
        cloudwatch.always(None)
        assert program.do("flush", 60)
        stats = program.do("stats")
    assert [cloudwatch.published.sum(name) for name in names] == [1 + rounds] * len(names)
    assert stats["datums_lost"] == {}
    datums = [each for each in cloudwatch.published.accepted if each.metric.name == names[0]]
    assert len(datums) <= 3, "the first, the pending one, and the sum from the SDK"
    assert max(pending) <= 2 * len(names)
    assert growth < 10 * MEGABYTE
    figures(
        rounds=rounds,
        needed=f"{rounds * bytes_a_round / MEGABYTE:.0f} MB",
        rss_growth=f"{growth / MEGABYTE:.1f} MB",
        datums_of_a_series=len(datums),
        requests=len(cloudwatch.published.requests) - requests_before,
    )


def test_backlog_of_a_megabyte_under_the_periodic_reader(
    cloudwatch: FailingCloudWatch, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """With the periodic reader, which keeps collecting, the exporter merges pending data, and counts stay exact."""
    with Program(
        cloudwatch, tmp_path / "log", "periodic", OTEL_EXPORTER_CLOUDWATCH_MAX_BACKLOG_BYTES=str(MEGABYTE)
    ) as program:
        cloudwatch.always(SERVER_ERROR)
        program.do("add", 1)
        program.do("collect")
        before = rss_bytes(program.process.pid)
        growth = []
        for needed in (10 * MEGABYTE, 20 * MEGABYTE):
            handed_over = 0.0
            while handed_over < needed:
                counted = program.do("add", 1)
                program.do("collect")
                handed_over, pending = program.do("accepted_bytes")
            growth.append(rss_bytes(program.process.pid) - before)
        cloudwatch.always(None)
        assert program.do("flush", 60)
        stats = program.do("stats")
    assert cloudwatch.published.sum("orders") == counted
    assert cloudwatch.published.count("sizes") == counted
    assert stats["datums_lost"] == {}
    assert growth[0] < 40 * MEGABYTE
    assert growth[1] - growth[0] < 8 * MEGABYTE, "memory does not keep growing"
    datums = [each for each in cloudwatch.published.accepted if each.metric.name == "orders"]
    figures(
        handed_over=f"{handed_over / MEGABYTE:.0f} MB",
        rss_growth=" then ".join(f"{each / MEGABYTE:.1f} MB" for each in growth),
        counted=counted,
        pending_at_last=pending,
        datums_of_orders=len(datums),
    )
