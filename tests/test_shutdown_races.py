"""The end of an exporter while somebody else delivers: whatever comes back then is counted, too."""

import threading
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_cloudwatch_flask import CloudWatchMetricExporter
from otel_cloudwatch_flask.testing import client_error
from tests.fakes import PATIENCE_SECONDS, in_threads, join_all


class Throttling:
    """A CloudWatch that takes nothing now."""

    def put_metric_data(self, **_: Any) -> None:
        """Say so."""
        raise client_error("ThrottlingException")


def test_an_answer_that_is_looked_at_while_the_exporter_ends() -> None:
    """What goes back to the backlog after that was closed is lost as ``shutdown``, and does not wait for ever."""
    exporter = CloudWatchMetricExporter("Shop", client=Throttling())
    reader = InMemoryMetricReader()
    MeterProvider([reader], shutdown_on_exit=False).get_meter("tests").create_counter("orders").add(1)
    collected = reader.get_metrics_data()
    assert collected is not None
    exporter.accept(collected)
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
