"""Arguments of ``add_metric``: their validation, and the measurements that they become in the real SDK."""

import logging
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import attach, detach
from opentelemetry.metrics import Histogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, Metric

from otel_cloudwatch_flask.delivery.stats import LossReason
from otel_cloudwatch_flask.errors import InvalidMetricError
from otel_cloudwatch_flask.facade.arguments import parse_arguments
from otel_cloudwatch_flask.facade.call_cache import FacadeSeries
from otel_cloudwatch_flask.facade.recorder import Recorder, RequestBuffer, instrument_name, suffixed_name
from otel_cloudwatch_flask.model.scope import NEGATIVE_KEY, FacadeMetric, facade_metric
from otel_cloudwatch_flask.model.units import CLOUDWATCH_UNITS, from_ucum
from otel_cloudwatch_flask.runtime.process import no_fork

# Entries.


class Number:
    """A number type of another library."""

    def __float__(self) -> float:
        return 2.5


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1.0),
        (-2.5, -2.5),
        (0, 0.0),
        (-0.0, 0.0),
        (1e-300, 1e-300),
        (2**360, 2.0**360),
        (-(2**360), -(2.0**360)),
        (Decimal("0.25"), 0.25),
        (Fraction(1, 4), 0.25),
        (Number(), 2.5),
    ],
)
def test_value(value: Any, number: float) -> None:
    """Any finite number of any type is accepted; negative zero becomes zero."""
    _, parsed = parse_arguments("Orders", value, "None", (), {})
    assert parsed == number
    assert math.copysign(1, parsed) == math.copysign(1, number)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, "the value True is a bool; pass a number"),
        ("1", "the value '1' is a str; pass a number"),
        (None, "the value None is a NoneType; pass a number"),
        (1j, "the value 1j is a complex; pass a number"),
        ([1], "the value [1] is a list; pass a number"),
        (math.nan, "the value nan is not a finite number; skip the call"),
        (-math.inf, "the value -inf is not a finite number"),
        (Decimal("NaN"), "is not a finite number"),
        (2.0**361, "is beyond ±2**360, the largest value that CloudWatch accepts"),
        (10**400, "is not a number that CloudWatch can store"),
    ],
)
def test_bad_value(value: Any, message: str) -> None:
    """A value that is not a finite number within CloudWatch's range is rejected with the reason."""
    with pytest.raises(InvalidMetricError) as caught:
        parse_arguments("Orders", value, "None", (), {})
    assert str(caught.value).startswith("metric 'Orders': ")
    assert message in str(caught.value)
    assert caught.value.metric_name == "Orders"
    assert caught.value.value is value


class Raising(str):
    """A string subclass that raises when it is read."""

    __slots__ = ()

    def _raise(self, *_: object) -> Any:
        raise RuntimeError("no")

    __float__ = __str__ = __repr__ = __bool__ = strip = upper = lower = _raise


class RaisingNumber:
    """A number that raises when it is converted."""

    def __float__(self) -> float:
        raise RuntimeError("no")

    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("arguments", "at_fault"),
    [
        ((Raising("Orders"), 1, "None", ()), 0),
        (("Orders", RaisingNumber(), "None", ()), 1),
        (("Orders", 1, Raising("Furlong"), ()), 2),
        (("Orders", 1, "None", Raising("a")), 3),
        (("Orders", 1, "None", {"Route": Raising("/")}), 3),
        (("Orders", 1, "None", [{"Name": Raising("Route"), "Value": "/"}]), 3),
    ],
    ids=["name", "value", "unit", "dimensions", "value of a dimension", "name of a dimension"],
)
def test_objects_that_raise(arguments: tuple[Any, Any, Any, Any], at_fault: int) -> None:
    """If reading an argument raises, the caller gets this package's error with that exception as its cause."""
    with pytest.raises(InvalidMetricError, match=r"metric .* raises RuntimeError when it is read") as caught:
        parse_arguments(*arguments, {})
    assert caught.value.value is arguments[at_fault]
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize("name", ["RequestCount", "Request Count", "2xx", "Größe", "a/b:c", "x" * 255])
def test_name(name: str) -> None:
    """A name that CloudWatch accepts is kept unchanged."""
    series, _ = parse_arguments(name, 1, "None", (), {})
    assert series.metric_name == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "the name must be a string with a visible character"),
        ("  ", "the name must be a string with a visible character"),
        (7, "the name must be a string with a visible character"),
        ("x" * 256, "the name has 256 characters; use at most 255"),
        ("a\nb", "the name has control characters; remove them"),
        ("a\ud800", "the name has control characters; remove them"),
    ],
)
def test_bad_name(name: Any, message: str) -> None:
    """A name that CloudWatch rejects raises an error before it is recorded."""
    with pytest.raises(InvalidMetricError, match=message):
        parse_arguments(name, 1, "None", (), {})


@pytest.mark.parametrize("unit", CLOUDWATCH_UNITS)
def test_unit(unit: str) -> None:
    """All CloudWatch units are accepted in any case and normalized to CloudWatch's spelling."""
    parsed = [parse_arguments("Orders", 1, each, (), {}) for each in (unit, unit.lower(), unit.upper())]
    assert {series.unit for series, _ in parsed} == {unit}


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        ("Millisecond", "did you mean 'Milliseconds'?"),
        ("ms", "use 'Milliseconds'"),
        ("{request}", "use 'Count'"),
        (None, "pass the string 'None', or omit the argument"),
        ("furlong", "use one of Seconds, Microseconds, Milliseconds, Bytes,"),
        (5, "5 is not a CloudWatch unit"),
    ],
)
def test_bad_unit(unit: Any, message: str) -> None:
    """The error for an unknown unit suggests a valid one."""
    with pytest.raises(InvalidMetricError) as caught:
        parse_arguments("Orders", 1, unit, (), {})
    assert message in str(caught.value)
    assert caught.value.value is unit


@pytest.mark.parametrize(
    ("dimensions", "texts"),
    [
        ((), {}),
        (None, {}),
        ({"Route": "/", "Status": 200, "Cached": True, "Share": 0.5}, None),
        ([{"Name": "Route", "Value": "/"}, {"Value": 200, "Name": "Status"}], {"Route": "/", "Status": "200"}),
        (({"Name": name, "Value": "1"} for name in "ab"), {"a": "1", "b": "1"}),
        ({"Empty": ""}, {"Empty": ""}),
        ({str(number): "x" for number in range(30)}, {str(number): "x" for number in range(30)}),
    ],
)
def test_dimensions(dimensions: Any, texts: dict[str, str] | None) -> None:
    """A mapping and CloudWatch's list of pairs are accepted, and scalar values become strings."""
    expected = {"Route": "/", "Status": "200", "Cached": "true", "Share": "0.5"} if texts is None else texts
    series, _ = parse_arguments("Orders", 1, "None", dimensions, {})
    assert series.dimensions == expected


@pytest.mark.parametrize(
    ("dimensions", "message"),
    [
        ("Route=/", "dimensions 'Route=/' are neither a mapping nor a list of pairs"),
        (7, "dimensions 7 are neither a mapping nor a list of pairs"),
        ([("Route", "/")], "dimension ('Route', '/') is not a name-value pair"),
        ([{"Name": "Route"}], "dimension {'Name': 'Route'} is not a name-value pair"),
        ({1: "x"}, "dimension name 1 is blank or not a string"),
        ({" ": "x"}, "dimension name ' ' is blank or not a string"),
        ({"x" * 256: "x"}, "has 256 characters; use at most 255"),
        ({"Route": None}, "dimension 'Route' has the value None: pass a string, a number or a boolean"),
        ({"Route": ["/"]}, "dimension 'Route' has the value ['/']"),
        (
            [{"Name": "Route", "Value": "/"}, {"Name": "Shop", "Value": "1"}, {"Name": "Route", "Value": "/cart"}],
            "dimension 'Route' is given more than once; remove the duplicate",
        ),
        (
            {str(number): "x" for number in range(31)},
            "31 dimensions are given; use at most 30",
        ),
    ],
)
def test_bad_dimensions(dimensions: Any, message: str) -> None:
    """The error for invalid dimensions contains the invalid item and the correct form."""
    with pytest.raises(InvalidMetricError) as caught:
        parse_arguments("Orders", 1, "None", dimensions, {})
    assert message in str(caught.value)


# Instruments.


class Recording:
    """A recorder on a real provider, with a reader for its measurements."""

    def __init__(self, reporter_id: str = "Shop", default_dimensions: dict[str, str] | None = None) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)
        self.lost: list[LossReason] = []
        self.default_dimensions = default_dimensions or {}
        self.recorder = Recorder(self.provider, reporter_id, self.lost.append)

    def record(self, name: str, value: float = 1, unit: str = "None", **dimensions: str) -> None:
        """Record one entry."""
        self.recorder.record(FacadeSeries(name, unit, dimensions, {**self.default_dimensions, **dimensions}), value)

    def metrics(self) -> list[tuple[FacadeMetric | None, Metric]]:
        """Return each metric as another exporter sees it, with the facade metric from its scope."""
        data = self.reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        return [(facade_metric(scope.scope), metric) for scope in scopes for metric in scope.metrics]

    def points(self) -> list[HistogramDataPoint]:
        """Return all data points."""
        points = [point for _, metric in self.metrics() for point in metric.data.data_points]
        return [point for point in points if isinstance(point, HistogramDataPoint)]


@pytest.mark.parametrize(
    ("metric_name", "name"),
    [
        ("RequestCount", "requestcount"),
        ("Request Count", "request_count"),
        ("2xx", "m_2xx"),
        ("http.server/a-b_c", "http.server/a-b_c"),
        ("Größe (kg)", "gr_e_kg_"),
        ("заказы", "m__"),
        ("_x", "m__x"),
        ("X" * 300, "x" * 255),
        ("2" * 255, "m_" + "2" * 253),
        ("İ", "i_"),
    ],
)
def test_instrument_name(metric_name: str, name: str) -> None:
    """Other exporters see a valid OpenTelemetry name that resembles the original."""
    assert instrument_name(metric_name) == name
    MeterProvider(shutdown_on_exit=False).get_meter("any").create_histogram(name)


def test_suffixed_name() -> None:
    """A suffixed name is stable, depends only on the identity, and has at most the maximum length."""
    assert suffixed_name("orders", "orders", "Count") == "orders_8bae93"
    assert suffixed_name("orders", "a", "Count") != suffixed_name("orders", "a", "Bytes")
    assert len(suffixed_name("x" * 255, "a", "Count")) == 255


def test_names_arrive_as_written() -> None:
    """Names that OpenTelemetry rejects or treats as equal become instruments with distinct names."""
    names = ["RequestCount", "Request Count", "2xx", "orders", "Orders", "ORDERS", "заказы", "订单", "orders_8bd847"]
    recording = Recording()
    for name in names:
        recording.record(name)
    metrics = recording.metrics()
    assert [facade for facade, _ in metrics] == [FacadeMetric(name, "Shop") for name in names]
    instrument_names = [metric.name for _, metric in metrics]
    assert instrument_names[:4] == ["requestcount", "request_count", "m_2xx", "orders"]
    assert len(set(instrument_names)) == len(names)
    assert all(name.startswith("orders_") for name in instrument_names[4:6])


def test_one_name_with_two_units() -> None:
    """A name with two units has one instrument per unit, with that unit's samples."""
    recording = Recording()
    for unit, value in [("Bytes", 10), ("Count", 2), ("Bytes", 30)]:
        recording.record("Size", value, unit)
    found = {metric.unit: (metric.name, point.sum) for (_, metric), point in points_of(recording)}
    assert {unit: total for unit, (_, total) in found.items()} == {"By": 40, "{Count}": 2}
    assert len({name for name, _ in found.values()}) == 2


def points_of(recording: Recording) -> list[tuple[tuple[FacadeMetric | None, Metric], HistogramDataPoint]]:
    """Return each metric with its only point."""
    every = recording.metrics()
    return [(each, point) for each in every for point in each[1].data.data_points]  # type: ignore[misc]


@pytest.mark.parametrize("unit", CLOUDWATCH_UNITS)
def test_units_come_back(unit: str) -> None:
    """Other exporters see UCUM units, which convert back to the original CloudWatch unit without scaling."""
    recording = Recording()
    recording.record("Size", 1, unit)
    [(_, metric)] = recording.metrics()
    scaled = from_ucum(metric.unit)
    assert scaled is not None
    assert (scaled.name, scaled.factor) == (unit, 1.0)


def test_negative_values() -> None:
    """A negative value is recorded as its magnitude with a marker, separate from positive values."""
    recording = Recording()
    for value in (-5, 3, -7, 0.0):
        recording.record("Balance", value, Account="a")
    sums = {bool((point.attributes or {}).get(NEGATIVE_KEY)): (point.count, point.sum) for point in recording.points()}
    assert sums == {True: (2, 12), False: (2, 3)}


def test_default_dimensions() -> None:
    """Default dimensions are added to every measurement; a call's own dimensions take precedence."""
    recording = Recording(default_dimensions={"Stage": "prod", "Zone": "a"})
    recording.record("Orders", Stage="test")
    [point] = recording.points()
    assert point.attributes == {"Stage": "test", "Zone": "a"}


def test_reporters_are_told_apart() -> None:
    """The same metric of two reporters on one provider has two scopes, each with its reporter's ID."""
    recording = Recording("Shop")
    other = Recorder(recording.provider, "Shop#2", recording.lost.append)
    recording.record("Orders")
    other.record(FacadeSeries("Orders", "None", {}, {}), 1)
    assert [facade for facade, _ in recording.metrics()] == [
        FacadeMetric("Orders", "Shop"),
        FacadeMetric("Orders", "Shop#2"),
    ]


def test_threads_share_instruments() -> None:
    """Concurrent first uses of a name create one instrument, and no sample is lost."""
    recording = Recording()
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait()
        for number in range(200):
            recording.record(f"Metric {number % 20}")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = {facade: point.count for (facade, _), point in points_of(recording)}
    assert counts == {FacadeMetric(f"Metric {number}", "Shop"): 80 for number in range(20)}


class BrokenSdk(MeterProvider):
    """A provider whose histograms raise, as the SDK's exponential histograms do for some numbers."""

    def get_meter(self, *args: Any, **kwargs: Any) -> Any:
        """Return a meter whose histograms raise."""
        meter = super().get_meter(*args, **kwargs)
        meter.create_histogram = self.create_histogram  # type: ignore[method-assign]
        return meter

    def create_histogram(self, *_args: object, **_kwargs: object) -> Histogram:
        """Raise an error, as ``record()`` can."""
        raise IndexError


def test_an_exception_of_the_sdk_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """A value for which the SDK raises is lost as invalid, and logged once."""
    lost: list[LossReason] = []
    recorder = Recorder(BrokenSdk(shutdown_on_exit=False), "Shop", lost.append)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            recorder.record(FacadeSeries("Broken", "None", {}, {}), 1)
    assert lost == [LossReason.INVALID] * 5
    [record] = caplog.records
    assert record.getMessage().startswith("Lost a measurement of Broken (counted as invalid)")
    assert record.exc_info


# Buffers.


def count(recording: Recording) -> int:
    """Return the number of samples recorded."""
    return sum(point.count for point in recording.points())


def buffer_with(recording: Recording, entries: int) -> RequestBuffer:
    """Return a buffer with this many measurements."""
    buffer = RequestBuffer(recording.recorder)
    for _ in range(entries):
        buffer.add(FacadeSeries("Orders", "None", {}, {}), 1)
    return buffer


@pytest.mark.parametrize(
    ("ending", "samples"),
    [
        (lambda _buffer: None, 0),
        (RequestBuffer.drain, 3),
        (RequestBuffer.end, 3),
        (lambda buffer: [buffer.end(), buffer.end(), buffer.drain()], 3),
    ],
)
def test_buffered_entries_are_recorded_once(ending: Callable[[RequestBuffer], Any], samples: int) -> None:
    """Buffered measurements are recorded when the buffer is drained, and only once."""
    recording = Recording()
    ending(buffer_with(recording, 3))
    assert count(recording) == samples


def test_entries_after_the_end_are_recorded_at_once() -> None:
    """A measurement added after the end of the request is recorded immediately."""
    recording = Recording()
    buffer = buffer_with(recording, 1)
    buffer.end()
    buffer.add(FacadeSeries("Orders", "None", {}, {}), 1)
    assert count(recording) == 2


def test_entries_are_recorded_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements are recorded in order, in the thread that ends the request."""
    recorded: list[tuple[float, threading.Thread]] = []
    recorder = Recording().recorder
    monkeypatch.setattr(recorder, "record", lambda _, value, *__: recorded.append((value, threading.current_thread())))
    buffer = RequestBuffer(recorder)
    for value in range(5):
        buffer.add(FacadeSeries(f"Metric {value}", "None", {}, {}), value)
    assert recorded == []
    buffer.end()
    assert recorded == [(value, threading.current_thread()) for value in range(5)]


@contextmanager
def span(span_id: int) -> Iterator[None]:
    """A sampled span."""
    context = trace.SpanContext(1, span_id, is_remote=False, trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED))
    token = attach(trace.set_span_in_context(trace.NonRecordingSpan(context)))
    try:
        yield
    finally:
        detach(token)


def test_each_entry_has_the_span_it_was_added_in() -> None:
    """Exemplars refer to the span that was active at the call, if any, whichever is active when the request ends."""
    recording = Recording()
    buffer, series = RequestBuffer(recording.recorder), FacadeSeries("Orders", "None", {}, {})
    with span(10):
        buffer.add(series, 1)
        with span(11):
            buffer.add(series, 20)
    buffer.add(series, 300)
    with span(12):
        buffer.end()
        buffer.add(series, 4000)
    (point,) = recording.points()
    assert point.count == 4
    assert {each.value: each.span_id for each in point.exemplars} == {1: 10, 20: 11, 4000: 12}


def test_a_signal_handler_may_record_a_new_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler that interrupts the first measurement of a metric may record the first one of another metric."""
    recording, claim_name = Recording(), Recorder._claim_name

    def interrupted(recorder: Recorder, metric_name: str, unit: str) -> str:
        if metric_name == "Interrupted":
            recording.record("FromHandler")
        return claim_name(recorder, metric_name, unit)

    monkeypatch.setattr(Recorder, "_claim_name", interrupted)
    thread = threading.Thread(target=recording.record, args=("Interrupted",), daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert count(recording) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child() -> None:
    """A forked child leaves buffered measurements to the parent, and records its own immediately."""
    recording = Recording()
    buffer = buffer_with(recording, 2)
    with no_fork("new metric"):
        child = os.fork()
        if not child:
            signal.alarm(10)
            buffer.end()
            before = count(recording)
            buffer.add(FacadeSeries("FromChild", "None", {}, {}), 1)
            os._exit(0 if (before, count(recording)) == (0, 1) else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    buffer.end()
    assert count(recording) == 2


def test_a_long_request_does_not_fill_memory() -> None:
    """A full buffer is drained before the request ends."""
    recording = Recording()
    buffer = buffer_with(recording, 2500)
    assert count(recording) == 2000
    buffer.end()
    assert count(recording) == 2500


def test_entries_while_the_request_ends() -> None:
    """Measurements added concurrently with the end of a request are recorded exactly once."""
    recording = Recording()
    buffer = RequestBuffer(recording.recorder)
    barrier = threading.Barrier(5)

    def add() -> None:
        barrier.wait()
        for _ in range(500):
            buffer.add(FacadeSeries("Orders", "None", {}, {}), 1)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    barrier.wait()
    buffer.end()
    for thread in threads:
        thread.join()
    assert count(recording) == 2000
