"""The end of an exporter, at the very moment when somebody else delivers: whatever comes of that is counted, too."""

import threading
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_cloudwatch_flask import CloudWatchMetricExporter
from otel_cloudwatch_flask.courier import Courier
from otel_cloudwatch_flask.testing import client_error
from tests.fakes import PATIENCE_SECONDS, eventually, in_threads, join_all


class Throttling:
    """A CloudWatch that takes nothing now."""

    def put_metric_data(self, **_: Any) -> None:
        """Say so."""
        raise client_error("ThrottlingException")


class Hanging(Throttling):
    """One that says so after a while."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()

    def put_metric_data(self, **_: Any) -> None:
        """Take no metrics."""
        assert self.may_answer.wait(PATIENCE_SECONDS)
        super().put_metric_data()


def pending(client: Throttling) -> CloudWatchMetricExporter:
    """An exporter that has one datum to send."""
    exporter = CloudWatchMetricExporter("Shop", client=client)
    reader = InMemoryMetricReader()
    MeterProvider([reader], shutdown_on_exit=False).get_meter("tests").create_counter("orders").add(1)
    collected = reader.get_metrics_data()
    assert collected is not None
    exporter.accept(collected)
    return exporter


def test_an_answer_that_is_looked_at_while_the_exporter_ends() -> None:
    """What goes back to the backlog after that was closed is lost as ``shutdown``, and does not wait for ever."""
    exporter = pending(Throttling())
    is_answered, is_closed = threading.Event(), threading.Event()
    settle = exporter._backlog.settle

    def late(left: Any = ()) -> None:
        is_answered.set()
        assert is_closed.wait(PATIENCE_SECONDS)
        settle(left)

    exporter._backlog.settle = late  # type: ignore[method-assign]  # the moment that matters, held
    delivering = in_threads(lambda: exporter.force_flush(100))
    assert is_answered.wait(PATIENCE_SECONDS)
    exporter.shutdown(timeout_millis=0)
    is_closed.set()
    join_all(delivering)
    stats = exporter.stats()
    assert (stats.datums_pending, stats.datums_lost) == (0, {"shutdown": 1})


def test_a_request_that_is_sent_while_the_exporter_ends() -> None:
    """Its answer comes when nobody waits for it any more, and is entered in the accounts all the same."""
    client = Hanging()
    exporter = pending(client)
    is_sent, is_closed = threading.Event(), threading.Event()
    send = exporter._delivery._courier.send

    def late(batch: Any) -> Any:
        errand = send(batch)
        is_sent.set()
        assert is_closed.wait(PATIENCE_SECONDS)
        return errand

    exporter._delivery._courier.send = late  # type: ignore[assignment,method-assign]  # the moment that matters, held
    delivering = in_threads(lambda: exporter.force_flush(100))
    assert is_sent.wait(PATIENCE_SECONDS)
    exporter.shutdown(timeout_millis=0)
    is_closed.set()
    join_all(delivering)
    assert exporter.stats().datums_pending == 1
    client.may_answer.set()
    assert eventually(lambda: not exporter.stats().datums_pending)
    assert exporter.stats().datums_lost == {"shutdown": 1}


def test_an_errand_that_is_sent_while_the_courier_stops() -> None:
    """It is run all the same: by the one who sends it, if the thread takes no more."""
    courier: Courier[int, int] = Courier(lambda number: number + 1)
    queue_of_thread = courier._queue_of_thread

    def late() -> Any:
        calls = queue_of_thread()
        courier.stop()
        return calls

    courier._queue_of_thread = late  # type: ignore[method-assign]  # the moment that matters, held
    errand = courier.send(1)
    assert errand.wait(PATIENCE_SECONDS)
    assert errand.result() == 2
