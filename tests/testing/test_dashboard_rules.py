import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.dashboard_rules import Fault, body_faults

METRIC: dict[str, Any] = {
    "type": "metric",
    "x": 12,
    "y": 0,
    "width": 12,
    "height": 6,
    "properties": {
        "title": "Orders",
        "region": "us-east-1",
        "view": "timeSeries",
        "stat": "Sum",
        "period": 60,
        "metrics": [
            ["Shop", "Orders", "Payment", "card", {"label": "card", "id": "m1", "stat": "p99.9"}],
            [".", ".", ".", "invoice"],
            ["..."],
            [{"expression": "m1 * 2", "id": "e1"}],
        ],
    },
}
GOOD: dict[str, Any] = {
    "start": "-PT6H",
    "periodOverride": "inherit",
    "widgets": [METRIC, {"type": "text", "width": 12, "height": 2, "properties": {"markdown": "# Shop"}}],
}


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    """Return the valid body with this change."""
    body = copy.deepcopy(GOOD)
    change(body)
    return json.dumps(body)


def widget(**members: Any) -> Callable[[dict[str, Any]], object]:
    """Return a function that changes the first widget of a body."""
    return lambda body: body["widgets"][0].update(members)


def properties(**members: Any) -> Callable[[dict[str, Any]], object]:
    """Return a function that changes the properties of a body's first widget."""
    return lambda body: body["widgets"][0]["properties"].update(members)


def metrics(*lines: Any) -> Callable[[dict[str, Any]], object]:
    """Return a function that replaces the metrics of a body's first widget."""
    return properties(metrics=list(lines))


LINE = ["Shop", "Orders"]
HERE, PROPERTIES, FIRST = "/widgets/0", "/widgets/0/properties", "/widgets/0/properties/metrics/0"


def test_what_the_documentation_shows_is_accepted() -> None:
    """Shorthands, expressions and percentiles are accepted; in widgets of other kinds, only the position is checked."""
    assert list(body_faults(json.dumps(GOOD))) == []
    assert list(body_faults('{"widgets": []}')) == []
    assert list(body_faults(changed(lambda body: body["widgets"].append({"type": "log", "properties": {}})))) == []
    for period in (1, 5, 10, 20, 30, 60, 86_400):
        assert list(body_faults(changed(properties(period=period)))) == []
    for statistic in ("Sum", "IQM", "p0", "p100", "tm99", "TM(10%:90%)", "PR(:300)", "wm98.5"):
        assert list(body_faults(changed(properties(stat=statistic)))) == []


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        (lambda body: body.pop("widgets"), "", '"widgets" is required'),
        (lambda body: body.update(widget=[]), "", '"widget" is unknown'),
        (lambda body: body.update(periodOverride="never"), "", "auto, inherit"),
        (lambda body: body.update(widgets=[METRIC] * 501), "/widgets", "more than 500 items"),
        (lambda body: body.update(widgets=[3]), HERE, "an object"),
        (widget(type="graph"), HERE, '"type" is required, one of metric'),
        (widget(x=24), HERE, '"x" should be a whole number from 0 to 23'),
        (widget(x=13), HERE, "beyond the grid, which is 24 columns wide"),
        (widget(y=-1), HERE, '"y" should be'),
        (widget(width=25), HERE, '"width" should be a whole number from 1 to 24'),
        (widget(height=0), HERE, '"height" should be'),
        (widget(height=True), HERE, '"height" should be'),
        (widget(propertys={}), HERE, '"propertys" is unknown'),
        (widget(properties=None), HERE, '"properties" is required'),
        (properties(titel="x"), PROPERTIES, '"titel" is unknown'),
        (properties(view="graph"), PROPERTIES, "one of timeSeries"),
        (properties(stat="p101"), PROPERTIES, "a statistic such as"),
        (properties(stat="sum"), PROPERTIES, "a statistic such as"),
        (properties(period=90), PROPERTIES, "multiple of 60"),
        (properties(period=86_460), PROPERTIES, "multiple of 60"),
        (properties(stacked="no"), PROPERTIES, "true or false"),
        (properties(region=""), PROPERTIES, "a text that is not empty"),
        (lambda body: body["widgets"][0]["properties"].pop("region"), PROPERTIES, '"region" is required'),
        (lambda body: body["widgets"][0]["properties"].pop("metrics"), PROPERTIES, '"metrics" is required'),
        (metrics(*[LINE] * 501), f"{PROPERTIES}/metrics", "more than 500 items"),
        (metrics([]), FIRST, "not empty"),
        (metrics(["Shop"]), FIRST, "a namespace, a name, and pairs"),
        (metrics([*LINE, "Payment"]), FIRST, "pairs"),
        (metrics([*LINE, "Payment", ""]), FIRST, "not empty"),
        (metrics([*LINE, 1, 2]), FIRST, "texts"),
        (metrics([".", "Orders"]), FIRST, "nothing above"),
        (metrics([*LINE, *[f"d{number}" for number in range(62)]]), FIRST, "more than 30 dimensions"),
        (metrics([*LINE, {"colour": "red"}]), FIRST, '"colour" is unknown'),
        (metrics([*LINE, {"color": "red"}]), FIRST, "a colour such as"),
        (metrics([*LINE, {"id": "M1"}]), FIRST, "the first a small letter"),
        (metrics([*LINE, {"expression": "1"}]), FIRST, "not both"),
        (metrics([*LINE, {"id": "a"}], [*LINE, {"id": "a"}]), f"{PROPERTIES}/metrics/1", "used twice"),
        (lambda body: body["widgets"][1].update(properties={}), "/widgets/1/properties", '"markdown" is required'),
    ],
)
def test_what_is_wrong_is_found(change: Callable[[dict[str, Any]], object], path: str, words: str) -> None:
    """Each error is reported with its path and the expected value."""
    fault = next(body_faults(changed(change)))
    assert fault.path == path
    assert words in fault.message


def test_all_widgets_together_have_no_more_than_2500_metrics() -> None:
    """Each widget can have 500 metrics, but all together at most 2,500."""
    chart = {**METRIC, "properties": {**METRIC["properties"], "metrics": [LINE] * 500}}
    assert list(body_faults(json.dumps({"widgets": [chart] * 5}))) == []
    (fault,) = body_faults(json.dumps({"widgets": [chart] * 5 + [METRIC]}))
    assert fault == Fault("/widgets", "Should NOT have more than 2500 metrics in all widgets.")


@pytest.mark.parametrize("body", [None, 3, "", "{", "[]", '"widgets"'])
def test_the_body_is_a_json_object(body: object) -> None:
    """Any JSON value other than an object is reported as a single error."""
    assert [fault.message for fault in body_faults(body)] == ["The body must be a string with a JSON object."]
