"""``add_metric`` with arguments of any type: an invalid call affects only itself, and raises nothing in production."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Any

import pytest
from flask import Flask
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider

from otel_cloudwatch_flask import CloudWatchMetricsReporter
from otel_cloudwatch_flask.errors import InvalidMetricError
from otel_cloudwatch_flask.facade.arguments import parse_arguments
from otel_cloudwatch_flask.facade.call_cache import Measurement
from otel_cloudwatch_flask.limits import MAX_MAGNITUDE
from otel_cloudwatch_flask.model.units import CLOUDWATCH_UNITS
from otel_cloudwatch_flask.runtime.safe_text import safe_repr
from otel_cloudwatch_flask.testing.fake import FakeCloudWatch
from tests.support.fuzzing import effort


class Colour(Enum):
    """An application's enum."""

    RED = 1
    NAMED = "red"
    LIST = ("r", "e", "d")


class Hostile:
    """An object whose special methods raise."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def _raise(self, *_: object) -> Any:
        raise self._error

    __repr__ = __str__ = __float__ = __bool__ = __len__ = __iter__ = __eq__ = __hash__ = __getitem__ = keys = _raise


class HostileText(str):
    """A string that raises when it is compared."""

    __slots__ = ()

    def __eq__(self, _: object) -> bool:
        raise RuntimeError("no")

    __hash__ = str.__hash__


class UnhashableText(str):
    """A string that raises when it is hashed."""

    __slots__ = ()

    def __hash__(self) -> int:
        raise RuntimeError("no")


HOSTILE = st.one_of(
    st.builds(Hostile, st.sampled_from([ValueError("no"), TypeError("no"), RuntimeError("no"), RecursionError()])),
    st.builds(HostileText, st.sampled_from(["Orders", "Count", "Name"])),
    st.builds(UnhashableText, st.sampled_from(["Orders", "Count", "Name"])),
)

NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.decimals(),
    st.fractions(),
    st.sampled_from([10**400, -(10**4000), MAX_MAGNITUDE, math.nextafter(MAX_MAGNITUDE, math.inf), 5e-324, True, 1j]),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    st.text(),
    st.binary(),
    st.just(datetime.now(timezone.utc)),
    st.sampled_from(Colour),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner), st.tuples(inner, inner)),
    max_leaves=8,
)
PAIRS = st.fixed_dictionaries({"Name": st.one_of(st.text(), ANYTHING), "Value": ANYTHING})


@dataclass(frozen=True)
class Call:
    """The arguments of a call."""

    metric_name: Any
    value: Any
    unit: Any
    dimensions: Any


def calls(anything: st.SearchStrategy[Any]) -> st.SearchStrategy[Call]:
    """Return a strategy for calls with arguments of any type, many of them nearly valid."""
    return st.builds(
        Call,
        metric_name=st.one_of(st.just("Orders"), st.text(max_size=300), anything),
        value=st.one_of(st.just(1.5), NUMBERS, anything),
        unit=st.one_of(st.sampled_from(CLOUDWATCH_UNITS), st.text(), anything),
        dimensions=st.one_of(
            st.just(()),
            st.dictionaries(st.text(max_size=260), anything, max_size=32),
            st.lists(PAIRS, max_size=3),
            anything,
        ),
    )


def parsed(call: Call) -> Measurement | InvalidMetricError:
    """Return the measurement of a call, or the error that the call raises."""
    try:
        return parse_arguments(call.metric_name, call.value, call.unit, call.dimensions, {})
    except InvalidMetricError as error:
        return error


@given(calls(ANYTHING))
@example(Call("Orders", Decimal("sNaN"), "Count", {}))
@example(Call(10**5000, 1, "Count", {}))
@effort(200)
def test_an_entry_or_an_error_that_says_why(call: Call) -> None:
    """Plain data results in a measurement that CloudWatch can store, or in this package's error with a reason."""
    result = parsed(call)
    if isinstance(result, InvalidMetricError):
        assert result.metric_name is call.metric_name
        assert any(result.value is each for each in (call.metric_name, call.value, call.unit, call.dimensions))
        assert str(result).startswith(f"metric {safe_repr(call.metric_name)}: ")
    else:
        series, value = result
        assert 0 < len(series.metric_name) <= 255
        assert math.isfinite(value)
        assert abs(value) <= MAX_MAGNITUDE
        assert series.unit in CLOUDWATCH_UNITS
        assert len(series.dimensions) <= 30
        assert all(isinstance(text, str) for item in series.dimensions.items() for text in item)


@pytest.fixture(autouse=True)
def _silent() -> Iterator[None]:
    """Disable logging, because random input logs a lot."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@given(st.lists(calls(st.one_of(ANYTHING, HOSTILE)), max_size=6))
@example([Call(HostileText("Orders"), 1, HostileText("Count"), {HostileText("n"): HostileText("v")})] * 3)
@example([Call(UnhashableText("Orders"), 1, UnhashableText("Count"), {"n": UnhashableText("v")})] * 3)
@example([Call("Orders", 1, "Count", [{HostileText("Name"): HostileText("n"), "Value": 1}])] * 3)
@example([Call("Orders", 1, "Count", {"n": [1]}), Call("Orders", 1, "Count", [{"Name": "n", "Value": Fraction(1, 3)}])])
@effort(60)
def test_in_production_it_costs_itself(made: list[Call]) -> None:
    """In production, no error is raised, each call is recorded or counted as lost, and published data is valid."""
    cloudwatch = FakeCloudWatch()
    provider = MeterProvider(shutdown_on_exit=False)
    reporter = CloudWatchMetricsReporter(
        Flask("shop"), "Shop", cloudwatch, meter_provider=provider, flush="interval", strict=False
    )
    for call in made:
        reporter.add_metric("Healthy", 1)
        reporter.add_metric(call.metric_name, call.value, call.unit, call.dimensions)
    reporter.add_metric("Healthy", 1)
    assert reporter.flush() or reporter.stats().datums_lost
    arrived = sum(cloudwatch.count(name) for name in {metric.name for metric in cloudwatch.metrics()})
    assert cloudwatch.validation_errors == []
    assert cloudwatch.count("Healthy") >= len(made) + 1
    assert arrived + sum(reporter.stats().measurements_lost.values()) == 2 * len(made) + 1
    assert set(reporter.stats().measurements_lost) <= {"invalid"}
    reporter.shutdown()
