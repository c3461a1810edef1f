"""Convert between CloudWatch's 27 units and OpenTelemetry's UCUM units.

CloudWatch's units: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html.
CloudWatch's metric streams use the same mapping:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch-metric-streams-formats-opentelemetry-translation.html.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, TypeAlias, get_args

_Time: TypeAlias = Literal["Seconds", "Microseconds", "Milliseconds"]
_Bytes: TypeAlias = Literal["Bytes", "Kilobytes", "Megabytes", "Gigabytes", "Terabytes"]
_Bits: TypeAlias = Literal["Bits", "Kilobits", "Megabits", "Gigabits", "Terabits"]
_ByteRate: TypeAlias = Literal[
    "Bytes/Second", "Kilobytes/Second", "Megabytes/Second", "Gigabytes/Second", "Terabytes/Second"
]
_BitRate: TypeAlias = Literal["Bits/Second", "Kilobits/Second", "Megabits/Second", "Gigabits/Second", "Terabits/Second"]
Unit: TypeAlias = Literal[_Time, _Bytes, _Bits, "Percent", "Count", _ByteRate, _BitRate, "Count/Second", "None"]
"""The name of a CloudWatch unit."""

CLOUDWATCH_UNITS: Final[tuple[str, ...]] = get_args(Unit)

_UCUM_UNITS: Final = (
    "s us ms By kBy MBy GBy TBy bit kbit Mbit Gbit Tbit % {Count} "
    "By/s kBy/s MBy/s GBy/s TBy/s bit/s kbit/s Mbit/s Gbit/s Tbit/s {Count}/s 1"
)
"""The UCUM equivalents of CloudWatch's units, in the same order."""

UCUM_OF: Final = dict(zip(CLOUDWATCH_UNITS, _UCUM_UNITS.split(), strict=True))
"""Maps the name of each CloudWatch unit to its UCUM equivalent."""

_BY_CASEFOLDED_NAME: Final = {name.casefold(): name for name in CLOUDWATCH_UNITS}


@dataclass(frozen=True, slots=True)
class ScaledUnit:
    """A CloudWatch unit, and the factor that converts values from an instrument's unit to this unit."""

    name: str
    factor: float = 1.0


NO_UNIT: Final = ScaledUnit("None")

_BINARY_PREFIXES: Final = {
    "Ki": ("Kilo", 1.024),
    "Mi": ("Mega", 1.024**2),
    "Gi": ("Giga", 1.024**3),
    "Ti": ("Tera", 1.024**4),
}

_SECONDS_PER: Final = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}

_BY_UCUM: Final[dict[str, ScaledUnit]] = {
    **{ucum: ScaledUnit(name) for name, ucum in UCUM_OF.items()},
    "": NO_UNIT,
    "ns": ScaledUnit("Microseconds", 0.001),
    **{period: ScaledUnit("Seconds", seconds) for period, seconds in _SECONDS_PER.items()},
    **{prefix + "By": ScaledUnit(big + "bytes", factor) for prefix, (big, factor) in _BINARY_PREFIXES.items()},
    **{prefix + "bit": ScaledUnit(big + "bits", factor) for prefix, (big, factor) in _BINARY_PREFIXES.items()},
    # Some older instrumentations use this word instead of the annotation {request}.
    "requests": ScaledUnit("Count"),
}

_ANNOTATION: Final = re.compile(r"\{[^{}]*\}")


def canonical_unit(name: str) -> str | None:
    """Look up a unit, ignoring case, and return CloudWatch's spelling, or ``None`` if CloudWatch has no such unit.

    >>> canonical_unit("milliseconds")
    'Milliseconds'
    """
    return _BY_CASEFOLDED_NAME.get(name.casefold())


@lru_cache(maxsize=1024)
def from_ucum(unit: str) -> ScaledUnit | None:
    """Return the CloudWatch unit for an instrument's unit, or ``None`` if CloudWatch has no equivalent.

    An annotation alone, such as ``{request}``, is a count. An annotation after a unit is ignored. The names of
    CloudWatch's units are accepted, too.

    >>> from_ucum("GiBy")
    ScaledUnit(name='Gigabytes', factor=1.073741824)
    >>> from_ucum("{request}")
    ScaledUnit(name='Count', factor=1.0)
    """
    if own_name := canonical_unit(unit):
        return ScaledUnit(own_name)
    return _atom(unit) or _rate(unit)


def _atom(unit: str) -> ScaledUnit | None:
    bare = _ANNOTATION.sub("", unit)
    if not bare and unit:
        return ScaledUnit("Count")
    return _BY_UCUM.get(bare)


def _rate(unit: str) -> ScaledUnit | None:
    amount, slash, period = unit.rpartition("/")
    per_second = _atom(amount) if slash and amount else None
    if per_second is None or period not in _SECONDS_PER:
        return None
    # "1/s" becomes "Count/Second", because CloudWatch has no "None/Second".
    name = canonical_unit(("Count" if per_second == NO_UNIT else per_second.name) + "/Second")
    return ScaledUnit(name, per_second.factor / _SECONDS_PER[period]) if name else None
