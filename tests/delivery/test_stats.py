from otel_cloudwatch_flask.delivery.stats import DeliveryStats, LossReason, StatsRecorder
from tests.support.fakes import in_threads, join_all


def stats(recorder: StatsRecorder) -> DeliveryStats:
    """Return the current statistics, with no pending datums."""
    return recorder.stats(datums_pending=0, metrics_active=0, metrics_overflowed=0)


def test_new() -> None:
    """A new recorder has only zeros and no events."""
    assert stats(StatsRecorder()) == DeliveryStats()


def test_accounts() -> None:
    """Each event is counted under its name, and each loss under its reason."""
    recorder = StatsRecorder()
    recorder.sent(datums=3, size_bytes=100, unix_time=5.0)
    recorder.sent(datums=2, size_bytes=50, unix_time=6.0)
    recorder.failed("first")
    recorder.failed("second", datums_possibly_stored=5)
    recorder.lost(LossReason.REFUSED)
    recorder.lost(LossReason.INVALID, 4)
    recorder.lost(LossReason.EXPIRED, 0)
    assert recorder.stats(datums_pending=7, metrics_active=8, metrics_overflowed=9) == DeliveryStats(
        datums_sent=5,
        datums_pending=7,
        datums_lost={"refused": 1, "invalid": 4},
        datums_possibly_duplicated=5,
        requests_sent=2,
        requests_failed=2,
        bytes_sent=150,
        metrics_active=8,
        metrics_overflowed=9,
        last_error="second",
        last_success=6.0,
    )
    assert recorder.lost_in_delivery() == 1
    recorder.lost_measurements(LossReason.INVALID)
    recorder.lost_measurements(LossReason.SHUTDOWN)
    assert stats(recorder).measurements_lost == {"invalid": 1, "shutdown": 1}
    assert recorder.lost_in_delivery() == 2


def test_stats_are_a_snapshot() -> None:
    """Later events do not change statistics returned earlier."""
    recorder = StatsRecorder()
    before = stats(recorder)
    recorder.lost(LossReason.SHUTDOWN, 2)
    assert before.datums_lost == {}


def test_threads() -> None:
    """Concurrent counting in several threads loses no increments."""
    recorder = StatsRecorder()

    def count() -> None:
        for _ in range(2000):
            recorder.lost(LossReason.REFUSED)
            recorder.sent(datums=1, size_bytes=2, unix_time=0.0)

    join_all(in_threads(*[count] * 4))
    counted = stats(recorder)
    assert (counted.datums_lost, counted.datums_sent, counted.bytes_sent) == ({"refused": 8000}, 8000, 16000)


def test_recording_in_an_interrupted_thread() -> None:
    """The garbage collector or a signal handler may record in a thread that is already recording."""
    recorder = StatsRecorder()

    def count() -> None:
        with recorder._lock:  # interrupted here
            recorder.lost_measurements(LossReason.INVALID)

    join_all(in_threads(count))
    assert recorder.lost_in_delivery() == 0
    assert stats(recorder).measurements_lost == {"invalid": 1}


def test_recording_in_a_thread_that_reads_the_statistics() -> None:
    """The garbage collector or a signal handler may record the first loss of a reason while the losses are copied."""
    recorder = StatsRecorder()

    class Interrupted(int):
        """A number whose comparison is interrupted."""

        def __gt__(self, other: int) -> bool:
            recorder.lost(LossReason.SHUTDOWN)
            recorder.lost_measurements(LossReason.SHUTDOWN)
            return super().__gt__(other)

    recorder._lost["refused"] = recorder._measurements_lost["invalid"] = Interrupted(1)
    found = stats(recorder)
    assert (found.datums_lost["refused"], found.measurements_lost["invalid"]) == (1, 1)
    assert recorder._lost["shutdown"] > 0
