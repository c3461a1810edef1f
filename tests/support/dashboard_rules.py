"""Validate a dashboard body like CloudWatch, which rejects the whole body if one widget is invalid.

The rules are those of
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html,
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutDashboard.html and
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_limits.html, read strictly where
the pages are ambiguous. Metric and text widgets are fully validated, others only by their position and properties.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from otel_cloudwatch_flask.limits import MAX_DIMENSIONS

MAX_WIDGETS: Final = 500
MAX_METRICS_PER_WIDGET: Final = 500
MAX_METRICS_PER_DASHBOARD: Final = 2500
GRID_COLUMNS: Final = 24
MAX_HEIGHT: Final = 1000

_MAX_PERIOD_SECONDS: Final = 86_400
_SHORT_PERIODS: Final = (1, 5, 10, 20, 30)
_MAX_ROW: Final = 2**31 - 1
_WIDGET_TYPES: Final = ("metric", "text", "log", "alarm", "explorer", "custom")
_BODY_MEMBERS: Final = frozenset({"start", "end", "periodOverride", "widgets", "variables"})
_WIDGET_MEMBERS: Final = frozenset({"type", "x", "y", "width", "height", "properties"})
_STATISTIC: Final = re.compile(
    r"SampleCount|Average|Sum|Minimum|Maximum|IQM"
    r"|(p|tm|tc|ts|wm)(\d{1,2}(\.\d{1,10})?|100)"
    r"|(TM|TC|TS|WM|PR)\([\d.]*%?:[\d.]*%?\)"
)
_COLOR: Final = re.compile(r"#[0-9a-fA-F]{3}([0-9a-fA-F]{3})?")
_ID: Final = re.compile(r"[a-z][A-Za-z0-9_]{0,254}")


class Fault(NamedTuple):
    """An error, and its path in the body: names, and indices from 0."""

    path: str
    message: str


def body_faults(text: object) -> Iterator[Fault]:
    """Yield the errors of a ``DashboardBody``."""
    body = _from_json(text)
    if not isinstance(body, dict):
        yield Fault("", "The body must be a string with a JSON object.")
        return
    yield from _unknown("", body, _BODY_MEMBERS)
    yield from _choice_faults("", body, "periodOverride", ("auto", "inherit"))
    widgets = body.get("widgets")
    if not isinstance(widgets, list):
        yield Fault("", 'The field "widgets" is required, a list.')
        return
    if len(widgets) > MAX_WIDGETS:
        yield Fault("/widgets", f"Should NOT have more than {MAX_WIDGETS} items.")
    for number, widget in enumerate(widgets):
        yield from _widget_faults(f"/widgets/{number}", widget)
    if sum(map(_number_of_metrics, widgets)) > MAX_METRICS_PER_DASHBOARD:
        yield Fault("/widgets", f"Should NOT have more than {MAX_METRICS_PER_DASHBOARD} metrics in all widgets.")


def _from_json(text: object) -> object:
    try:
        return json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _number_of_metrics(widget: object) -> int:
    properties = widget.get("properties") if isinstance(widget, dict) else None
    metrics = properties.get("metrics") if isinstance(properties, dict) else None
    return len(metrics) if isinstance(metrics, list) else 0


def _unknown(path: str, value: Mapping[str, Any], known: frozenset[str]) -> Iterator[Fault]:
    """Check for unknown fields. The service ignores some of them, but a misspelled field is always a mistake."""
    for member in value:
        if member not in known:
            yield Fault(path, f'The field "{member}" is unknown.')


# A widget.


def _widget_faults(path: str, widget: object) -> Iterator[Fault]:
    if not isinstance(widget, dict):
        yield Fault(path, "Should be an object.")
        return
    yield from _unknown(path, widget, _WIDGET_MEMBERS)
    yield from _place_faults(path, widget)
    if widget.get("type") not in _WIDGET_TYPES:
        yield Fault(path, f'The field "type" is required, one of {", ".join(_WIDGET_TYPES)}.')
    properties = widget.get("properties")
    if not isinstance(properties, dict):
        yield Fault(path, 'The field "properties" is required.')
    elif rule := _PROPERTY_RULES.get(str(widget.get("type"))):
        yield from rule(f"{path}/properties", properties)


def _place_faults(path: str, widget: Mapping[str, Any]) -> Iterator[Fault]:
    ranges = {
        "x": (0, GRID_COLUMNS - 1),
        "y": (0, _MAX_ROW),
        "width": (1, GRID_COLUMNS),
        "height": (1, MAX_HEIGHT),
    }
    for member, (least, most) in ranges.items():
        value = widget.get(member, least)
        if type(value) is not int or not least <= value <= most:
            yield Fault(path, f'The field "{member}" should be a whole number from {least} to {most}.')
            return
    if widget.get("x", 0) + widget.get("width", 6) > GRID_COLUMNS:
        yield Fault(path, f"The widget reaches beyond the grid, which is {GRID_COLUMNS} columns wide.")


def _text_faults(path: str, properties: Mapping[str, Any]) -> Iterator[Fault]:
    yield from _unknown(path, properties, frozenset({"markdown", "background"}))
    yield from _choice_faults(path, properties, "background", ("solid", "transparent"))
    if not isinstance(properties.get("markdown"), str):
        yield Fault(path, 'The field "markdown" is required, a text.')


def _metric_widget_faults(path: str, properties: Mapping[str, Any]) -> Iterator[Fault]:
    yield from _unknown(path, properties, frozenset(_METRIC_MEMBERS))
    for member, (is_right, should_be) in _METRIC_MEMBERS.items():
        if member in properties and not is_right(properties[member]):
            yield Fault(path, f'The field "{member}" should be {should_be}.')
    if "region" not in properties:
        yield Fault(path, 'The field "region" is required.')
    metrics = properties.get("metrics")
    if isinstance(metrics, list):
        yield from _metrics_faults(f"{path}/metrics", metrics)
    elif not (properties.get("annotations") or {}).get("alarms"):
        yield Fault(path, 'The field "metrics" is required, or an alarm annotation.')


# A widget's metrics.


def _metrics_faults(path: str, metrics: list[Any]) -> Iterator[Fault]:
    if len(metrics) > MAX_METRICS_PER_WIDGET:
        yield Fault(path, f"Should NOT have more than {MAX_METRICS_PER_WIDGET} items.")
    ids: set[str] = set()
    for number, metric in enumerate(metrics):
        yield from _metric_faults(f"{path}/{number}", metric, is_first=number == 0)
        rendering = metric[-1] if isinstance(metric, list) and metric and isinstance(metric[-1], dict) else {}
        identity = rendering.get("id")
        if identity is not None and identity in ids:
            yield Fault(f"{path}/{number}", f'The id "{identity}" is used twice.')
        ids.add(str(identity))


def _metric_faults(path: str, metric: object, *, is_first: bool) -> Iterator[Fault]:
    if not isinstance(metric, list) or not metric:
        yield Fault(path, "Should be a list that is not empty.")
        return
    rendering = metric[-1] if isinstance(metric[-1], dict) else {}
    texts = metric[:-1] if isinstance(metric[-1], dict) else metric
    yield from _rendering_faults(path, rendering)
    if "expression" in rendering:
        if texts:
            yield Fault(path, "Should be an expression or a metric, not both.")
    else:
        yield from _identity_faults(path, texts, is_first=is_first)


def _identity_faults(path: str, texts: list[Any], *, is_first: bool) -> Iterator[Fault]:
    """Expand namespace, name and dimensions, and yield their errors; "." repeats the value above, "..." all others."""
    if not all(isinstance(text, str) and text for text in texts):
        yield Fault(path, "Should be texts that are not empty, and at most one object at the end.")
    elif is_first and {".", "..."} & set(texts):
        yield Fault(path, "There is nothing above to repeat.")
    elif "..." not in texts and (len(texts) < 2 or len(texts) % 2):
        yield Fault(path, "Should be a namespace, a name, and pairs of a dimension's name and its value.")
    elif len(texts) > 2 + 2 * MAX_DIMENSIONS:
        yield Fault(path, f"Should NOT have more than {MAX_DIMENSIONS} dimensions.")


def _rendering_faults(path: str, rendering: Mapping[str, Any]) -> Iterator[Fault]:
    yield from _unknown(path, rendering, frozenset(_RENDERING_MEMBERS))
    for member, (is_right, should_be) in _RENDERING_MEMBERS.items():
        if member in rendering and not is_right(rendering[member]):
            yield Fault(path, f'The field "{member}" should be {should_be}.')


def _choice_faults(path: str, value: Mapping[str, Any], member: str, choices: tuple[str, ...]) -> Iterator[Fault]:
    if member in value and value[member] not in choices:
        yield Fault(path, f'The field "{member}" should be one of {", ".join(choices)}.')


# Field types.


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_boolean(value: object) -> bool:
    return isinstance(value, bool)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _is_period(value: object) -> bool:
    if type(value) is not int:
        return False
    return value in _SHORT_PERIODS or (0 < value <= _MAX_PERIOD_SECONDS and value % 60 == 0)


def _is_statistic(value: object) -> bool:
    return isinstance(value, str) and _STATISTIC.fullmatch(value) is not None


def _matching(pattern: re.Pattern[str]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _one_of(*choices: str) -> "_Rule":
    return lambda value: value in choices, f"one of {', '.join(choices)}"


_Rule = tuple[Callable[[object], bool], str]
_TEXT: Final[_Rule] = (_is_text, "a text that is not empty")
_BOOLEAN: Final[_Rule] = (_is_boolean, "true or false")
_OBJECT: Final[_Rule] = (_is_object, "an object")
_PERIOD: Final[_Rule] = (_is_period, "1, 5, 10, 20, 30 or a multiple of 60, at most 86400")
_STATISTIC_NAME: Final[_Rule] = (_is_statistic, "a statistic such as Sum, Average or p99")

_METRIC_MEMBERS: Final[Mapping[str, _Rule]] = {
    "accountId": _TEXT,
    "annotations": _OBJECT,
    "end": _TEXT,
    "legend": _OBJECT,
    "liveData": _BOOLEAN,
    "metrics": (lambda value: isinstance(value, list), "a list"),
    "period": _PERIOD,
    "region": _TEXT,
    "setPeriodToTimeRange": _BOOLEAN,
    "singleValueFullPrecision": _BOOLEAN,
    "sparkline": _BOOLEAN,
    "stacked": _BOOLEAN,
    "start": _TEXT,
    "stat": _STATISTIC_NAME,
    "table": _OBJECT,
    "timezone": _TEXT,
    "title": (lambda value: isinstance(value, str), "a text"),
    "trend": _BOOLEAN,
    "view": _one_of("timeSeries", "singleValue", "gauge", "bar", "pie", "table"),
    "yAxis": _OBJECT,
}
_RENDERING_MEMBERS: Final[Mapping[str, _Rule]] = {
    "accountId": _TEXT,
    "color": (_matching(_COLOR), "a colour such as #1f77b4"),
    "expression": _TEXT,
    "id": (_matching(_ID), "letters, digits and '_', the first a small letter"),
    "label": (lambda value: isinstance(value, str), "a text"),
    "period": _PERIOD,
    "region": _TEXT,
    "stat": _STATISTIC_NAME,
    "visible": _BOOLEAN,
    "yAxis": _one_of("left", "right"),
}
_PROPERTY_RULES: Final[Mapping[str, Callable[[str, Mapping[str, Any]], Iterator[Fault]]]] = {
    "metric": _metric_widget_faults,
    "text": _text_faults,
}
