"""A cache of ``add_metric`` calls. A call that differs from an earlier call only in its value skips validation.

Only arguments of the exact types ``str``, ``int``, ``float``, ``dict``, ``list`` and ``tuple`` are looked up. All other
calls go to :func:`otel_cloudwatch_flask.facade.arguments.parse_arguments`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from opentelemetry.metrics import Histogram

from otel_cloudwatch_flask.limits import MAX_MAGNITUDE

MAX_CACHED_CALLS: Final = 4096
"""The maximum number of cached calls. A full cache takes about 3 MB if the calls have few dimensions."""


@dataclass(slots=True, eq=False)
class FacadeSeries:
    """A validated name, unit and set of dimensions.

    ``attributes`` are the recorded attributes: ``dimensions`` and the default dimensions. The first measurement sets
    ``histogram``, which is ``None`` until then, and may replace ``attributes`` with an overflow series' attributes.
    """

    metric_name: str
    unit: str
    dimensions: Mapping[str, str]
    attributes: Mapping[str, str | bool] = field(repr=False)
    histogram: Histogram | None = field(default=None, init=False, repr=False)


Measurement: TypeAlias = tuple[FacadeSeries, float]
"""A series and a finite value."""

_Key: TypeAlias = tuple[str, str, tuple[tuple[str, str | int], ...]]
"""The name, the unit, and the names and values of the dimensions."""


class CallCache:
    """Maps the arguments of earlier calls to their series. Cleared when it is full, which is cheaper than eviction."""

    def __init__(self, max_calls: int = MAX_CACHED_CALLS) -> None:
        self._max_calls = max_calls
        self._series: dict[_Key, FacadeSeries] = {}

    def measurement(self, metric_name: object, value: Any, unit: object, dimensions: object) -> Measurement | None:
        """Return the series and the value of a call, or ``None`` if the call has to be validated first."""
        # Exact types only, because a subclass may override __eq__ or __hash__.
        if (
            (type(value) is float or type(value) is int)
            and -MAX_MAGNITUDE <= value <= MAX_MAGNITUDE
            and (key := _key(metric_name, unit, dimensions)) is not None
            and (series := self._series.get(key)) is not None
        ):
            return series, value + 0.0  # -0.0 becomes 0.0
        return None

    def add(self, metric_name: object, unit: object, dimensions: object, series: FacadeSeries) -> None:
        """Store the series of a validated call, unless its arguments cannot be cached."""
        key = _key(metric_name, unit, dimensions)
        # Another thread may have changed the caller's dictionary since it was validated.
        if key is None or {name: str(value) for name, value in key[2]} != series.dimensions:
            return
        if len(self._series) >= self._max_calls:
            self._series.clear()
        self._series[key] = series


def _key(metric_name: object, unit: object, dimensions: Any) -> _Key | None:
    """Return the key of a call, or ``None`` if the call cannot be cached.

    All names must be strings, and all values strings or integers. These are safe as cache keys, because equal keys also
    have the same text. This is not true for other types: ``True == 1 == 1.0``, ``0.0 == -0.0``, and other objects may
    be equal to anything.
    """
    if type(metric_name) is not str or type(unit) is not str:
        return None
    if type(dimensions) is dict:
        items = tuple(dimensions.items())
    elif type(dimensions) is list or type(dimensions) is tuple:
        items = tuple(map(_pair, dimensions))
    else:
        return None
    for name, value in items:
        if type(name) is not str or (type(value) is not str and type(value) is not int):
            return None
    return metric_name, unit, items


def _pair(item: Any) -> tuple[Any, Any]:
    """Return the name and value of a pair in CloudWatch's form, or ``None`` twice for anything else."""
    try:
        return (item["Name"], item["Value"]) if type(item) is dict and len(item) == 2 else (None, None)
    except Exception:  # noqa: BLE001 - boundary: keys whose class overrides __eq__
        return None, None
