import math
from typing import Any

import pytest
from botocore.session import get_session

from otel_cloudwatch_flask.model.units import CLOUDWATCH_UNITS, UCUM_OF, ScaledUnit, canonical_unit, from_ucum

MODEL: Any = get_session().get_service_model("cloudwatch")
STANDARD_UNITS: tuple[str, ...] = tuple(MODEL.shape_for("StandardUnit").enum)
"""The units in botocore's service model."""


def test_there_are_27() -> None:
    """The table has every unit that CloudWatch accepts, and no other."""
    assert len(CLOUDWATCH_UNITS) == 27
    assert set(CLOUDWATCH_UNITS) == set(STANDARD_UNITS)


@pytest.mark.parametrize("unit", STANDARD_UNITS)
def test_round_trip(unit: str) -> None:
    """Every CloudWatch unit converts to UCUM and back unchanged and unscaled."""
    assert from_ucum(UCUM_OF[unit]) == ScaledUnit(unit, 1.0)


@pytest.mark.parametrize("unit", STANDARD_UNITS)
def test_ucum_is_an_instrument_unit(unit: str) -> None:
    """The UCUM form is a unit that the SDK accepts: printable ASCII without spaces, at most 63 characters."""
    ucum = UCUM_OF[unit]
    assert ucum.isascii()
    assert ucum.isprintable()
    assert " " not in ucum
    assert 0 < len(ucum) <= 63


def test_ucum_units_are_distinct() -> None:
    """No two CloudWatch units share a UCUM unit."""
    assert len({UCUM_OF[unit] for unit in STANDARD_UNITS}) == 27


@pytest.mark.parametrize("unit", STANDARD_UNITS)
@pytest.mark.parametrize("spelt", [str.lower, str.upper, str.title, str])
def test_own_names_in_any_case(unit: str, spelt: type[str]) -> None:
    """CloudWatch's own names are recognized in any case, in both directions."""
    assert canonical_unit(spelt(unit)) == unit
    assert from_ucum(spelt(unit)) == ScaledUnit(unit)


SCALED = {
    "ns": ("Microseconds", 0.001),
    "us": ("Microseconds", 1),
    "ms": ("Milliseconds", 1),
    "s": ("Seconds", 1),
    "min": ("Seconds", 60),
    "h": ("Seconds", 3600),
    "d": ("Seconds", 86400),
    "By": ("Bytes", 1),
    "KiBy": ("Kilobytes", 1024 / 1000),
    "MiBy": ("Megabytes", 1024**2 / 1000**2),
    "GiBy": ("Gigabytes", 1024**3 / 1000**3),
    "TiBy": ("Terabytes", 1024**4 / 1000**4),
    "Kibit": ("Kilobits", 1024 / 1000),
    "Tibit": ("Terabits", 1024**4 / 1000**4),
    "kBy": ("Kilobytes", 1),
    "%": ("Percent", 1),
}
RATES = {
    "By/s": ("Bytes/Second", 1),
    "By/min": ("Bytes/Second", 1 / 60),
    "kBy/h": ("Kilobytes/Second", 1 / 3600),
    "MiBy/s": ("Megabytes/Second", 1024**2 / 1000**2),
    "GiBy/min": ("Gigabytes/Second", 1024**3 / 1000**3 / 60),
    "bit/d": ("Bits/Second", 1 / 86400),
    "{request}/s": ("Count/Second", 1),
    "{request}/min": ("Count/Second", 1 / 60),
    "1/s": ("Count/Second", 1),
    "requests/s": ("Count/Second", 1),
}
ANNOTATED = {
    "{request}": ("Count", 1),
    "{}": ("Count", 1),
    "{a thing}": ("Count", 1),
    "{packet}{received}": ("Count", 1),
    "By{payload}": ("Bytes", 1),
    "min{idle}": ("Seconds", 60),
    "By{payload}/s": ("Bytes/Second", 1),
    "": ("None", 1),
    "1": ("None", 1),
    "requests": ("Count", 1),
}


@pytest.mark.parametrize(("ucum", "expected"), [*SCALED.items(), *RATES.items(), *ANNOTATED.items()])
def test_from_ucum(ucum: str, expected: tuple[str, float]) -> None:
    """A UCUM unit converts to the CloudWatch unit and factor in the table."""
    name, factor = expected
    unit = from_ucum(ucum)
    assert unit is not None
    assert unit.name == name
    assert math.isclose(unit.factor, factor, rel_tol=1e-15)


@pytest.mark.parametrize(
    "unit",
    ["furlong", "S", "MS", "Mi", "m", "by", "KIBY", "s/s", "ms/s", "%/s", "h/s", "By/", "/", "By/furlong", "{", "a}"],
)
def test_unknown(unit: str) -> None:
    """Units unknown to CloudWatch convert to ``None``; UCUM is case-sensitive."""
    assert from_ucum(unit) is None
