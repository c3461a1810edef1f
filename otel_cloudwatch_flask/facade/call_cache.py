"""A cache of earlier ``add_metric`` calls: a call that differs from one of them in its value only is not checked again.

Anything but plain texts and plain numbers, and any new call, goes to
:func:`otel_cloudwatch_flask.facade.arguments.parse_arguments`.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from opentelemetry.metrics import Histogram

from otel_cloudwatch_flask.limits import MAX_MAGNITUDE

MAX_CACHED_CALLS: Final = 4096
"""About 3 MB, if the calls have few dimensions."""

_PAIR_KEYS: Final = {"Name", "Value"}


@dataclass(slots=True, eq=False)
class FacadeSeries:
    """A checked name and unit with dimensions as text; from its first measurement on, also its histogram's attributes.

    ``histogram`` is ``None`` until then.
    """

    metric_name: str
    unit: str
    dimensions: Mapping[str, str]
    histogram: Histogram | None = field(default=None, init=False, repr=False)
    attributes: Mapping[str, str | bool] = field(default_factory=dict, init=False, repr=False)


Measurement: TypeAlias = tuple[FacadeSeries, float]
"""A series and a finite number."""


class CallCache:
    """The series of earlier calls. A full cache is emptied."""

    def __init__(self, max_calls: int = MAX_CACHED_CALLS) -> None:
        self._max_calls = max_calls
        self._series: dict[Hashable, FacadeSeries] = {}

    def measurement(self, metric_name: object, value: Any, unit: object, dimensions: object) -> Measurement | None:
        """The measurement that a call means; ``None`` if the call has to be checked."""
        if (
            (type(value) is float or type(value) is int)
            and -MAX_MAGNITUDE <= value <= MAX_MAGNITUDE
            and type(metric_name) is str
            and type(unit) is str
            and (items := _plain_items(dimensions)) is not None
            and (series := self._series.get((metric_name, unit, items))) is not None
        ):
            return series, value + 0.0  # -0.0 becomes 0.0
        return None

    def add(self, metric_name: object, unit: object, dimensions: object, series: FacadeSeries) -> None:
        """Remember the series of a checked call."""
        items = _plain_items(dimensions)
        # Not if another thread has changed the dimensions since the check.
        if items is None or {name: str(value) for name, value in items} != series.dimensions:
            return
        if len(self._series) >= self._max_calls:
            self._series.clear()
        self._series[metric_name, unit, items] = series


def _plain_items(dimensions: Any) -> tuple[tuple[str, str | int], ...] | None:
    """Names and values, if all are texts and integers: of those, two that differ as text are never equal.

    That excludes ``True == 1 == 1.0``, ``0.0 == -0.0``, and objects of other types, which may be equal to anything.
    """
    if type(dimensions) is not dict:
        dimensions = _named(dimensions)
    items = tuple(dimensions.items())
    for name, value in items:
        if type(name) is not str or (type(value) is not str and type(value) is not int):
            return None
    return items


def _named(pairs: Any) -> dict[object, object]:
    """CloudWatch's list of pairs as a dictionary; one that is not plain if it is anything else, or repeats a name."""
    named: dict[object, object] = {}
    for pair in pairs if type(pairs) is list or type(pairs) is tuple else (None,):
        if type(pair) is not dict or pair.keys() != _PAIR_KEYS or type(pair["Name"]) is not str:
            return {None: None}
        if pair["Name"] in named:
            return {None: None}
        named[pair["Name"]] = pair["Value"]
    return named
