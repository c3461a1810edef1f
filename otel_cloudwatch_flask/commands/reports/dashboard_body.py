"""Generate the body of a CloudWatch dashboard for an app's metrics.

The format is described at
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import accumulate, groupby
from typing import Any, Final

from otel_cloudwatch_flask.commands.reports.request_series import RequestSeries, request_series
from otel_cloudwatch_flask.commands.reports.template_formats import template_of
from otel_cloudwatch_flask.commands.shared.document import SeriesSummary
from otel_cloudwatch_flask.model.http_metrics import ACTIVE_REQUESTS, PER_SECOND

# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_limits.html
_MAX_METRICS_PER_DASHBOARD: Final = 2500
_MAX_METRICS_PER_CHART: Final = 500
_MAX_CHARTS: Final = 500
_GRID_COLUMNS: Final = 24

LATENCY_PERCENTILES: Final = ("p50", "p90", "p99")
_PERIOD_SECONDS: Final = 60
_LINES_PER_CHART: Final = 100
"""The maximum number of series in a chart, unless a single metric name has more."""
_MAX_DIMENSIONS_PER_LABEL: Final = 5
_ESCAPED_IN_SEARCHES: Final = str.maketrans({character: f"\\{character}" for character in '"\\()'})
_CHART_WIDTH: Final = 12
_CHART_HEIGHT: Final = 6
_ERROR_STATUSES: Final = " OR ".join(f'"{status.value}"' for status in HTTPStatus if status >= HTTPStatus.BAD_REQUEST)
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard body, the series that it omits because of CloudWatch's restrictions, and a name for the dashboard."""

    body: dict[str, Any]
    omitted: tuple[SeriesSummary, ...]
    name: str

    def template(self) -> dict[str, Any]:
        """Return a CloudFormation template that creates the dashboard."""
        properties = {"DashboardName": self.name, "DashboardBody": json.dumps(self.body)}
        resources = {"Dashboard": {"Type": "AWS::CloudWatch::Dashboard", "Properties": properties}}
        return template_of(resources, "Dashboard of metrics published by otel_cloudwatch_flask")


@dataclass(frozen=True, slots=True)
class _Line:
    """An entry in a chart's ``metrics``, and the series that it shows now.

    The entry is a series or a search expression, with a label. A search also shows series that are published later.
    """

    metric: list[Any]
    series: Sequence[SeriesSummary]


@dataclass(frozen=True, slots=True)
class _Chart:
    """A chart of one statistic."""

    title: str
    statistic: str
    lines: Sequence[_Line]

    @property
    def series(self) -> list[SeriesSummary]:
        """All series that the chart shows now."""
        return [series for line in self.lines for series in line.series]


def dashboard(series: Sequence[SeriesSummary], *, region: str, name: str) -> Dashboard:
    """Generate a dashboard that shows requests, errors and latency first, then other metrics grouped by unit.

    Most metrics are found by search expressions, so that the charts include routes, statuses and other dimension values
    that are published later.
    """
    charts = _fitting([*_charts(series)])
    shown = {each.metric for chart in charts for each in chart.series[:_MAX_METRICS_PER_CHART]}
    widgets = [_widget(number, chart, region) for number, chart in enumerate(charts)]
    omitted = tuple(each for each in series if each.metric not in shown)
    return Dashboard({"widgets": widgets}, omitted, _NOT_IN_NAMES.sub("-", name)[:255])


def _charts(every: Sequence[SeriesSummary]) -> Iterator[_Chart]:
    requests = request_series(filter(_is_searchable, every))
    if requests:
        yield from _request_charts(requests)
    of_requests = {each.series.metric for each in requests}
    routes = {each.series.name: each.metric.route for each in requests}
    yield from _charts_by_unit((each for each in every if each.metric not in of_requests), routes)


def _request_charts(requests: Sequence[RequestSeries]) -> Iterator[_Chart]:
    is_timed = requests[0].is_duration
    counting = "SampleCount" if is_timed else "Sum"
    yield _request_chart("Requests per minute", counting, requests)
    yield _request_chart("Errors per minute", counting, requests, are_errors=True)
    for percentile in LATENCY_PERCENTILES if is_timed else ():
        yield _request_chart(f"Latency by route, {percentile}", percentile, requests)


def _request_chart(
    title: str, statistic: str, requests: Sequence[RequestSeries], *, are_errors: bool = False
) -> _Chart:
    """Return a chart of the series with a route and, for errors, a standard 4xx or 5xx status.

    The searches require a route, so that they do not show totals over all routes as another line.
    """
    lines = []
    for names, metric in {each.series.metric[:2]: each.metric for each in requests}.items():
        errors = f' "{metric.status}"=({_ERROR_STATUSES})' if are_errors else ""
        label = _values_of(name for name in (metric.method, metric.route, metric.status) if name)
        search = _search(*names, f'"{metric.route}"{errors}', statistic, label)
        lines.append(_Line(search, [each.series for each in requests if each.series.metric[:2] == names]))
    return _Chart(title, statistic, lines)


def _search(namespace: str, name: str, terms: str, statistic: str, label: str) -> list[Any]:
    """Return an entry that shows the series which have this namespace and name, and match ``terms``.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/search-expression-syntax.html
    """
    namespace, name = (text.translate(_ESCAPED_IN_SEARCHES) for text in (namespace, name))
    search = f'Namespace="{namespace}" MetricName="{name}" {terms}'.rstrip()
    return [{"expression": f"SEARCH('{search}', '{statistic}', {_PERIOD_SECONDS})", "label": label}]


def _is_searchable(series: SeriesSummary) -> bool:
    """Return whether a search can name the series. The search syntax has no escape sequence for single quotes."""
    return "'" not in series.namespace + series.name


def _values_of(dimensions: Iterable[str]) -> str:
    """Return a label that CloudWatch fills with the values that each series has for these dimensions."""
    return " ".join(f"${{PROP('Dim.{name}')}}" for name in dimensions)


def _charts_by_unit(every: Iterable[SeriesSummary], routes: Mapping[str, str]) -> Iterator[_Chart]:
    ordered = sorted(every, key=lambda each: (each.name != ACTIVE_REQUESTS, each.unit, each.name, each.namespace))
    for (title, statistic), group in groupby(ordered, _title_and_statistic):
        parts = _divided(_lines(group, statistic, routes))
        for number, part in enumerate(parts, start=1):
            numbered = f"{title} ({number})" if len(parts) > 1 else title
            yield _Chart(numbered, statistic, part)


def _title_and_statistic(series: SeriesSummary) -> tuple[str, str]:
    if series.name == ACTIVE_REQUESTS:
        return "Active requests, maximum", "Maximum"
    if series.unit in PER_SECOND:
        return f"{series.unit}, p90", "p90"
    if series.unit == "None":
        return "No unit, average", "Average"
    if series.unit == "Percent" or series.unit.endswith("/Second"):
        return f"{series.unit}, average", "Average"
    return f"{series.unit}, total", "Sum"


def _divided(lines: Iterable[_Line]) -> list[list[_Line]]:
    """Return the lines of one chart, or of several if one chart would have too many series."""
    parts: list[list[_Line]] = [[]]
    size = 0
    for line in lines:
        size += len(line.series)
        if parts[-1] and size > _LINES_PER_CHART:
            parts.append([])
            size = len(line.series)
        parts[-1].append(line)
    return parts


def _lines(every: Iterable[SeriesSummary], statistic: str, routes: Mapping[str, str]) -> Iterator[_Line]:
    """Yield, for each metric name, a search for its series or, if it cannot be searched for, a line for each series.

    ``every`` is sorted by name and namespace. ``routes`` maps metric names to their route dimension. The searches for
    these names exclude series with a route, which the request charts show.
    """
    for (namespace, name), group in groupby(every, lambda each: each.metric[:2]):
        series = list(group)
        if _is_searchable(series[0]):
            terms = f'NOT "{routes[name]}"' if name in routes else ""
            yield _Line(_search(namespace, name, terms, statistic, _label_of(series)), series)
        else:
            yield from (_Line(_metric(each), [each]) for each in series)


def _label_of(group: Sequence[SeriesSummary]) -> str:
    """Return a label with the name, which CloudWatch completes with up to five dimension values of each series."""
    dimensions = list(dict.fromkeys(key for each in group for key, _ in each.dimensions))
    return f"{_plain(group[0].name)} {_values_of(dimensions[:_MAX_DIMENSIONS_PER_LABEL])}".rstrip()


def _fitting(charts: Sequence[_Chart]) -> list[_Chart]:
    """Return the leading charts that together stay within CloudWatch's limits for a dashboard."""
    # The most important charts come first, so a smaller chart must not take the place of one that does not fit.
    totals = accumulate(len(chart.lines) for chart in charts)
    fitting = [chart for chart, total in zip(charts, totals, strict=True) if total <= _MAX_METRICS_PER_DASHBOARD]
    return fitting[:_MAX_CHARTS]


def _widget(number: int, chart: _Chart, region: str) -> dict[str, Any]:
    """Return the widget of the chart that follows ``number`` others, from left to right and from top to bottom."""
    row, column = divmod(number, _GRID_COLUMNS // _CHART_WIDTH)
    properties = {
        "title": chart.title,
        "view": "timeSeries",
        "stacked": False,
        "region": region,
        "stat": chart.statistic,
        "period": _PERIOD_SECONDS,
        "metrics": [line.metric for line in chart.lines],
    }
    return {
        "type": "metric",
        "x": column * _CHART_WIDTH,
        "y": row * _CHART_HEIGHT,
        "width": _CHART_WIDTH,
        "height": _CHART_HEIGHT,
        "properties": properties,
    }


def _metric(series: SeriesSummary) -> list[Any]:
    label = _plain(" ".join([series.name, *(value for _, value in series.dimensions)]))
    return [series.namespace, series.name, *sum(series.dimensions, ()), {"label": label}]


def _plain(text: str) -> str:
    # CloudWatch would interpret "${" as the start of a dynamic label.
    return text.replace("${", "$ {")
