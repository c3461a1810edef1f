"""Calls of ``add_metric`` that came before, so that what was checked then is looked up and not checked again.

Only the value is looked at each time. What is no plain text and no plain number goes to
:func:`otel_cloudwatch_flask.entry.parse_entry`, and so does whatever was not seen before.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from opentelemetry.metrics import Histogram

from otel_cloudwatch_flask.limits import MAX_MAGNITUDE

MAX_KNOWN_SERIES: Final = 4096
"""How many are known at a time: 3 MB or so, if they have few dimensions."""

_PAIR_KEYS: Final = {"Name", "Value"}


@dataclass(slots=True, eq=False)
class FacadeSeries:
    """A checked name and unit with dimensions as text; once it is recorded to, also what that is in OpenTelemetry."""

    metric_name: str
    unit: str
    dimensions: Mapping[str, str]
    histogram: Histogram | None = field(default=None, init=False, repr=False)
    attributes: Mapping[str, str | bool] = field(default_factory=dict, init=False, repr=False)


Measurement: TypeAlias = tuple[FacadeSeries, float]
"""A finite number of a series."""


class KnownSeries:
    """The series of the calls that came before; when there are too many, none of them."""

    def __init__(self, max_known: int = MAX_KNOWN_SERIES) -> None:
        self._max_known = max_known
        self._series: dict[Hashable, FacadeSeries] = {}

    def measurement(self, metric_name: object, value: Any, unit: object, dimensions: object) -> Measurement | None:
        """What a call means that differs in nothing but the value from one before; ``None`` to look closer."""
        if (
            (type(value) is float or type(value) is int)
            and -MAX_MAGNITUDE <= value <= MAX_MAGNITUDE
            and type(metric_name) is str
            and type(unit) is str
            and (items := _plain_items(dimensions)) is not None
            and (series := self._series.get((metric_name, unit, items))) is not None
        ):
            return series, value + 0.0  # what was -0.0 is 0.0
        return None

    def learn(self, metric_name: object, unit: object, dimensions: object, series: FacadeSeries) -> None:
        """Know what such a call means from now on."""
        items = _plain_items(dimensions)
        # Not if another thread has changed the dimensions since they were checked.
        if items is None or {name: str(value) for name, value in items} != series.dimensions:
            return
        if len(self._series) >= self._max_known:
            self._series.clear()
        self._series[metric_name, unit, items] = series


def _plain_items(dimensions: Any) -> tuple[tuple[str, str | int], ...] | None:
    """Names and values, if they are nothing but texts and integers: then no two are equal that differ as text.

    That ``True == 1 == 1.0``, ``0.0 == -0.0``, and objects of other types may be equal to anything, is left out so.
    """
    if type(dimensions) is not dict:
        dimensions = _named(dimensions)
    items = tuple(dimensions.items())
    for name, value in items:
        if type(name) is not str or (type(value) is not str and type(value) is not int):
            return None
    return items


def _named(pairs: Any) -> dict[object, object]:
    """CloudWatch's list of pairs as a dictionary; one that is not plain, for anything else and a name given twice."""
    named: dict[object, object] = {}
    for pair in pairs if type(pairs) is list or type(pairs) is tuple else (None,):
        if type(pair) is not dict or pair.keys() != _PAIR_KEYS or type(pair["Name"]) is not str:
            return {None: None}
        if pair["Name"] in named:
            return {None: None}
        named[pair["Name"]] = pair["Value"]
    return named
