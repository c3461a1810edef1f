import math
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_cloudwatch_flask.limits import InvalidPointError, are_plain, sendable
from otel_cloudwatch_flask.testing.request_rules import is_acceptable_number

MOST, LEAST = 2.0**360, 2.0**-360


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (0, 0.0),
        (1, 1.0),
        (-2.5, -2.5),
        (MOST, MOST),
        (-MOST, -MOST),
        (2**360, MOST),
        (LEAST, LEAST),
        (-LEAST, -LEAST),
        (math.nextafter(LEAST, 0), 0.0),
        (-math.nextafter(LEAST, 0), 0.0),
        (5e-324, 0.0),
    ],
)
def test_sendable(value: float, sent: float) -> None:
    """A number is sent unchanged up to 2^360, and as 0 below 2^-360."""
    assert sendable(value) == sent


@pytest.mark.parametrize(
    "value",
    [math.nextafter(MOST, inf), -math.nextafter(MOST, inf), 2**361, 10**400, -(10**400), inf, -inf, nan],
)
def test_unsendable(value: float) -> None:
    """A number beyond 2^360 raises an error."""
    with pytest.raises(InvalidPointError):
        sendable(value)


@pytest.mark.parametrize("value", [10**15, -(10**15), 10**400, -(10**400), 1e15, inf, -inf, nan, True, 5e-324])
def test_not_plain(value: float) -> None:
    """A number that may have to be converted or dropped is not plain, wherever it is in a sequence."""
    assert are_plain([1, 2.5])
    assert not any(map(are_plain, ([value], [value, 1], [1, value], [1, value, 2])))


def test_no_negative_zero() -> None:
    """Negative zero and negative numbers that are too small are sent as 0."""
    for value in (-0.0, -5e-324):
        sent = sendable(value)
        assert sent == 0
        assert math.copysign(1, sent) == 1


@given(st.one_of(st.floats(), st.integers(), st.integers(-(2**1100), 2**1100)))
def test_the_gate_takes_what_is_sendable(value: float) -> None:
    """Numbers that CloudWatch accepts are unchanged. Any other number becomes an accepted one, or raises an error."""
    try:
        sent = sendable(value)
    except InvalidPointError:
        assert not is_acceptable_number(value)
        return
    assert is_acceptable_number(sent)
    if is_acceptable_number(value):
        assert sent == float(value)
