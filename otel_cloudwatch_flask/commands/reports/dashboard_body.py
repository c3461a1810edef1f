"""Generate the body of a CloudWatch dashboard for an app's metrics.

The format is described at
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import groupby, islice
from typing import Any, Final

from otel_cloudwatch_flask.commands.reports.alarm_template import literal
from otel_cloudwatch_flask.commands.reports.request_series import RequestSeries, request_series
from otel_cloudwatch_flask.commands.shared.document import SeriesSummary
from otel_cloudwatch_flask.model.http_metrics import ACTIVE_REQUESTS, PER_SECOND, RequestMetric

# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_limits.html
MAX_WIDGETS: Final = 500
MAX_METRICS_PER_DASHBOARD: Final = 2500
GRID_COLUMNS: Final = 24

LATENCY_PERCENTILES: Final = ("p50", "p90", "p99")
_PERIOD_SECONDS: Final = 60
MAX_METRICS_PER_CHART: Final = 500
_LINES_PER_CHART: Final = 100
"""The maximum number of series in a chart, unless a single metric name has more."""
_MAX_SEARCH_LENGTH: Final = 1024
_MAX_DIMENSIONS_PER_LABEL: Final = 5
_ESCAPED_IN_SEARCHES: Final = str.maketrans({character: f"\\{character}" for character in '"\\()'})
_CHART_HEIGHT: Final = 6
_TEXT_HEIGHT: Final = 2
_MARKDOWN: Final = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]()<>#+!|"})
_REPEAT_MARKERS: Final = {".", "..."}
"""In a dashboard body, these mean "same as in the previous metric".

A metric that a search cannot find is omitted if its namespace or name, or the name or value of one of its dimensions,
is a marker.
"""
_ERROR_STATUSES: Final = " OR ".join(f'"{status.value}"' for status in HTTPStatus if status >= HTTPStatus.BAD_REQUEST)
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]+")
_STATISTIC_NAMES: Final = {"Sum": "total", "Average": "average", "p90": "p90"}


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard body, the series that it omits because of CloudWatch's restrictions, and a name for the dashboard."""

    body: dict[str, Any]
    omitted: tuple[SeriesSummary, ...]
    name: str

    def template(self) -> dict[str, Any]:
        """Return a CloudFormation template that creates the dashboard."""
        properties = {"DashboardName": self.name, "DashboardBody": literal(json.dumps(self.body))}
        return {
            "AWSTemplateFormatVersion": "2010-09-09",
            "Description": "Dashboard of metrics published by otel_cloudwatch_flask",
            "Resources": {"Dashboard": {"Type": "AWS::CloudWatch::Dashboard", "Properties": properties}},
        }


@dataclass(frozen=True, slots=True)
class _Chart:
    """A chart of one statistic, whose ``lines`` are series or search expressions, each with a label.

    ``series`` has all the series that the chart shows now. A search also shows series that are published later.
    """

    title: str
    statistic: str
    series: tuple[SeriesSummary, ...]
    lines: tuple[list[Any], ...]
    width: int = GRID_COLUMNS // 2


@dataclass(frozen=True, slots=True)
class _Line:
    """An entry in a chart's ``metrics``, and the series that it shows now."""

    series: tuple[SeriesSummary, ...]
    metric: list[Any]


def dashboard(series: Sequence[SeriesSummary], *, region: str, title: str) -> Dashboard:
    """Generate a dashboard that shows requests, errors and latency first, then other metrics grouped by unit.

    Most metrics are found by search expressions, so that the charts include routes, statuses and other dimension values
    that are published later.
    """
    charts = _fitting(_charts(series))
    shown = {each.metric for chart in charts for each in chart.series[:MAX_METRICS_PER_CHART]}
    widgets = [_text_widget(title), *_placed(charts, region)]
    omitted = tuple(each for each in series if each.metric not in shown)
    return Dashboard({"widgets": widgets}, omitted, _NOT_IN_NAMES.sub("-", title)[:255])


def _charts(every: Sequence[SeriesSummary]) -> Iterator[_Chart]:
    # The searches require a route, so that they do not show totals over all routes as another line.
    requests = [each for each in request_series(every) if each.route is not None]
    if requests:
        yield from _request_charts(requests)
    of_requests = {each.series.metric for each in requests}
    routes = {each.series.name: each.metric.route for each in requests}
    yield from _charts_by_unit((each for each in every if each.metric not in of_requests), routes)


def _request_charts(requests: Sequence[RequestSeries]) -> Iterator[_Chart]:
    is_timed = requests[0].is_duration
    counting = "SampleCount" if is_timed else "Sum"
    yield _search_chart("Requests per minute", counting, requests)
    yield _search_chart("Errors per minute", counting, requests, are_errors=True)
    for percentile in LATENCY_PERCENTILES if is_timed else ():
        yield _search_chart(f"Latency by route, {percentile}", percentile, requests, width=8)


def _search_chart(
    title: str, statistic: str, requests: Sequence[RequestSeries], *, are_errors: bool = False, width: int = 12
) -> _Chart:
    metrics = {(each.series.namespace, each.series.name): each.metric for each in requests}
    lines = tuple(
        [
            {
                "expression": _search(*names, metric, statistic, are_errors=are_errors),
                "label": _label(metric),
                "id": f"e{number}",
            }
        ]
        for number, (names, metric) in enumerate(metrics.items(), start=1)
    )
    shown = tuple(each.series for each in requests if each.is_error or not are_errors)
    return _Chart(title, statistic, shown, lines, width)


def _label(metric: RequestMetric) -> str:
    """Return a label that CloudWatch fills with the method, route and status of each series."""
    return " ".join(f"${{PROP('Dim.{name}')}}" for name in (metric.method, metric.route, metric.status) if name)


def _search(namespace: str, name: str, metric: RequestMetric, statistic: str, *, are_errors: bool) -> str:
    """Return a search expression for the metric's series with a route and, for errors, a standard 4xx or 5xx status.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/search-expression-syntax.html
    """
    errors = f' "{metric.status}"=({_ERROR_STATUSES})' if are_errors else ""
    return _search_of(namespace, name, f'"{metric.route}"{errors}', statistic)


def _search_of(namespace: str, name: str, terms: str, statistic: str) -> str:
    names = f'Namespace="{_quoted(namespace)}" MetricName="{_quoted(name)}"'
    return f"SEARCH('{f'{names} {terms}'.rstrip()}', '{statistic}', {_PERIOD_SECONDS})"


def _quoted(text: str) -> str:
    return text.translate(_ESCAPED_IN_SEARCHES)


def _charts_by_unit(every: Iterable[SeriesSummary], routes: Mapping[str, str]) -> Iterator[_Chart]:
    ordered = sorted(every, key=lambda each: (each.name != ACTIVE_REQUESTS, each.unit, each.name))
    for (title, statistic), group in groupby(ordered, _title_and_statistic):
        yield from _numbered_charts(title, statistic, list(_lines(group, statistic, routes)))


def _title_and_statistic(series: SeriesSummary) -> tuple[str, str]:
    if series.name == ACTIVE_REQUESTS:
        return "Active requests, maximum", "Maximum"
    statistic = _statistic(series.unit)
    unit = "No unit" if series.unit == "None" else series.unit
    return f"{unit}, {_STATISTIC_NAMES[statistic]}", statistic


def _numbered_charts(title: str, statistic: str, lines: Sequence[_Line]) -> Iterator[_Chart]:
    """Yield one chart of all lines, or several numbered charts if one chart would have too many series."""
    charts: list[list[_Line]] = []
    for line in lines:
        if not charts or sum(len(each.series) for each in [*charts[-1], line]) > _LINES_PER_CHART:
            charts.append([])
        charts[-1].append(line)
    for number, chart in enumerate(charts, start=1):
        shown = tuple(series for line in chart for series in line.series)
        yield _Chart(
            f"{title} ({number})" if len(charts) > 1 else title, statistic, shown, tuple(line.metric for line in chart)
        )


def _lines(every: Iterable[SeriesSummary], statistic: str, routes: Mapping[str, str]) -> Iterator[_Line]:
    """Yield, for each metric name, a search for its series or, if it cannot be searched for, a line for each series.

    ``routes`` maps metric names to their route dimension. The searches for these names exclude series with a route,
    which the request charts show.
    """
    groups: defaultdict[tuple[str, str], list[SeriesSummary]] = defaultdict(list)
    for each in every:
        groups[each.namespace, each.name].append(each)
    for number, ((namespace, name), group) in enumerate(groups.items(), start=1):
        terms = f'NOT "{routes[name]}"' if name in routes else ""
        search = _search_of(namespace, name, terms, statistic)
        # The search syntax has no escape sequence for single quotes.
        if "'" in namespace + name or len(search) > _MAX_SEARCH_LENGTH:
            yield from (_Line((each,), _metric(each)) for each in group if not _REPEAT_MARKERS & {*_metric(each)[:-1]})
        else:
            metric = {"expression": search, "label": _label_of(name, group), "id": f"e{number}"}
            yield _Line(tuple(group), [metric])


def _label_of(name: str, group: Iterable[SeriesSummary]) -> str:
    """Return a label with ``name``, which CloudWatch completes with up to five dimension values of each series.

    Without usable dimensions, the label is the one that CloudWatch generates.
    """
    dimensions = dict.fromkeys(key for each in group for key, _ in each.dimensions if not {"'", "}"} & {*key})
    values = [f"${{PROP('Dim.{key}')}}" for key in [*dimensions][:_MAX_DIMENSIONS_PER_LABEL]]
    return " ".join([_plain(name), *values]) if values else "${LABEL}"


def _statistic(unit: str) -> str:
    if unit in PER_SECOND:
        return "p90"
    return "Average" if unit in {"None", "Percent"} or unit.endswith("/Second") else "Sum"


def _fitting(charts: Iterable[_Chart]) -> list[_Chart]:
    """Return the leading charts that together stay within CloudWatch's limits for a dashboard."""
    # The most important charts come first, so a smaller chart must not take the place of one that does not fit.
    fitting: list[_Chart] = []
    metrics = 0
    for chart in islice(charts, MAX_WIDGETS - 1):  # one widget is the heading
        metrics += len(chart.lines)
        if metrics > MAX_METRICS_PER_DASHBOARD:
            break
        fitting.append(chart)
    return fitting


def _placed(charts: Iterable[_Chart], region: str) -> Iterator[dict[str, Any]]:
    """Yield the charts as widgets in rows. A new row starts when a row is full or the width changes."""
    x, y, width = 0, _TEXT_HEIGHT, 0
    for chart in charts:
        if x and (x + chart.width > GRID_COLUMNS or chart.width != width):
            x, y = 0, y + _CHART_HEIGHT
        width = chart.width
        position = {"x": x, "y": y, "width": width, "height": _CHART_HEIGHT}
        yield {"type": "metric", **position, "properties": _properties(chart, region)}
        x += width


def _properties(chart: _Chart, region: str) -> dict[str, Any]:
    return {
        "title": chart.title,
        "view": "timeSeries",
        "stacked": False,
        "region": region,
        "stat": chart.statistic,
        "period": _PERIOD_SECONDS,
        "metrics": list(chart.lines),
    }


def _metric(series: SeriesSummary) -> list[Any]:
    label = _plain(" ".join([series.name, *(value for _, value in series.dimensions)]))
    return [series.namespace, series.name, *sum(series.dimensions, ()), {"label": label}]


def _plain(text: str) -> str:
    # CloudWatch would interpret "${" as the start of a dynamic label.
    return text.replace("${", "$ {")


def _text_widget(title: str) -> dict[str, Any]:
    markdown = (
        f"## {title.translate(_MARKDOWN)}\nGenerated by `otel_cloudwatch_flask`; regenerating overwrites manual edits."
    )
    position = {"x": 0, "y": 0, "width": GRID_COLUMNS, "height": _TEXT_HEIGHT}
    return {"type": "text", **position, "properties": {"markdown": markdown}}
