"""Repeated add_metric calls hit the cache, and no other call does."""

import math
from decimal import Decimal
from typing import Any

import pytest

from otel_cloudwatch_flask.facade.call_cache import CallCache, FacadeSeries
from otel_cloudwatch_flask.limits import MAX_MAGNITUDE

ORDERS = FacadeSeries("Orders", "Count", {"Shop": "1"}, {"Shop": "1"})


class Text(str):
    """A string subclass, as some libraries define."""

    __slots__ = ()


def knowing(dimensions: object, series: FacadeSeries = ORDERS) -> CallCache:
    """Return a cache after one call with these dimensions."""
    known = CallCache()
    known.add("Orders", "Count", dimensions, series)
    return known


@pytest.mark.parametrize(
    "dimensions",
    [{"Shop": "1"}, {"Shop": 1}, [{"Name": "Shop", "Value": "1"}], ({"Name": "Shop", "Value": 1},)],
    ids=repr,
)
def test_the_same_again(dimensions: object) -> None:
    """A repeated call returns the cached series and its own value, whatever the form of the dimensions."""
    known = knowing(dimensions)
    assert known.measurement("Orders", 2.5, "Count", dimensions) == (ORDERS, 2.5)
    series, value = known.measurement("Orders", 3, "Count", dimensions) or (None, None)
    assert series is ORDERS
    assert repr(value) == "3.0"


def test_a_name_that_is_given_twice() -> None:
    """A call with duplicate dimensions is validated, even if the last of them matches a cached series."""
    twice = [{"Name": "Shop", "Value": "2"}, {"Name": "Shop", "Value": "1"}]
    assert knowing({"Shop": "1"}).measurement("Orders", 1, "Count", twice) is None


@pytest.mark.parametrize("dimensions", [{}, [], ()], ids=repr)
@pytest.mark.parametrize("again", [{}, [], ()], ids=repr)
def test_no_dimensions(dimensions: object, again: object) -> None:
    """Empty dimensions hit the cache in every form."""
    series = FacadeSeries("Orders", "Count", {}, {})
    assert knowing(dimensions, series).measurement("Orders", 1, "Count", again) == (series, 1.0)


@pytest.mark.parametrize("value", [0, -1.5, MAX_MAGNITUDE, -MAX_MAGNITUDE])
def test_plain_numbers(value: float) -> None:
    """Values up to CloudWatch's limit hit the cache, and negative zero becomes zero."""
    known = knowing({"Shop": "1"})
    assert known.measurement("Orders", value, "Count", {"Shop": "1"}) == (ORDERS, float(value))
    _, zero = known.measurement("Orders", -0.0, "Count", {"Shop": "1"}) or (None, -1.0)
    assert math.copysign(1.0, zero) == 1.0


@pytest.mark.parametrize(
    "value",
    [True, "1", None, Decimal(1), math.nan, math.inf, -math.inf, MAX_MAGNITUDE * 2, -MAX_MAGNITUDE * 2, 10**400],
    ids=str,
)
def test_other_values(value: Any) -> None:
    """A value other than a plain number within CloudWatch's range is validated."""
    assert knowing({"Shop": "1"}).measurement("Orders", value, "Count", {"Shop": "1"}) is None


@pytest.mark.parametrize(
    ("name", "unit", "dimensions"),
    [
        ("Errors", "Count", {"Shop": "1"}),
        (Text("Orders"), "Count", {"Shop": "1"}),
        (None, "Count", {"Shop": "1"}),
        (["Orders"], "Count", {"Shop": "1"}),
        ("Orders", "Bytes", {"Shop": "1"}),
        ("Orders", Text("Count"), {"Shop": "1"}),
        ("Orders", None, {"Shop": "1"}),
        ("Orders", "Count", {}),
        ("Orders", "Count", {"Shop": "2"}),
        ("Orders", "Count", {"Shop": "1", "Till": "1"}),
        ("Orders", "Count", {"Shop": Text("1")}),
        ("Orders", "Count", {Text("Shop"): "1"}),
        ("Orders", "Count", {"Shop": True}),
        ("Orders", "Count", {"Shop": 1.0}),
        ("Orders", "Count", {"Shop": ["1"]}),
        ("Orders", "Count", None),
        ("Orders", "Count", "Shop"),
        ("Orders", "Count", [None]),
        ("Orders", "Count", ["Shop"]),
        ("Orders", "Count", [{"Name": "Shop"}]),
        ("Orders", "Count", [{"Name": "Shop", "Value": "1", "Till": "1"}]),
        ("Orders", "Count", [{"Name": ["Shop"], "Value": "1"}]),
        ("Orders", "Count", [{"Name": Text("Shop"), "Value": "1"}]),
        ("Orders", "Count", [{"Name": "Shop", "Value": ["1"]}]),
    ],
)
def test_other_calls(name: object, unit: object, dimensions: object) -> None:
    """A call that differs, or may differ, from the cached one misses the cache, and no error is raised."""
    assert knowing({"Shop": "1"}).measurement(name, 1, unit, dimensions) is None


@pytest.mark.parametrize(
    "dimensions",
    [{"Shop": True}, {"Shop": 1.0}, {"Shop": Text("1")}, {Text("Shop"): "1"}, [{"Name": Text("Shop"), "Value": "1"}]],
    ids=["truth", "float", "value", "name", "pair"],
)
def test_what_is_not_learnt(dimensions: object) -> None:
    """Dimensions that may equal others of another type are never cached."""
    known = knowing(dimensions)
    for again in (dimensions, {"Shop": "1"}, {"Shop": 1}, {}):
        assert known.measurement("Orders", 1, "Count", again) is None


def test_dimensions_that_changed_meanwhile() -> None:
    """A call is not cached if its dimensions have changed since their validation."""
    assert knowing({"Shop": "2"}).measurement("Orders", 1, "Count", {"Shop": "2"}) is None


def test_no_more_than_so_many() -> None:
    """A full cache is cleared."""
    known = CallCache(2)
    every = [FacadeSeries("Orders", "Count", {"Shop": str(number)}, {}) for number in range(3)]
    for series in every[:2]:
        known.add("Orders", "Count", series.dimensions, series)
    assert all(known.measurement("Orders", 1, "Count", each.dimensions) == (each, 1.0) for each in every[:2])
    known.add("Orders", "Count", every[2].dimensions, every[2])
    assert [known.measurement("Orders", 1, "Count", each.dimensions) for each in every] == [None, None, (every[2], 1.0)]
