"""Derive the expected series from the events that the shop counted and the responses that the visitors received.

The figures are computed without OpenTelemetry, so they are independent of the published metrics.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from otel_cloudwatch_flask.demo.comparison import Expectation, between, occurrences, samples, series_of, total
from otel_cloudwatch_flask.demo.load_generator import ShopResponse
from otel_cloudwatch_flask.model.datum import Series
from otel_cloudwatch_flask.model.http_metrics import ACTIVE_REQUESTS, DURATIONS, PER_SECOND

_ROUNDED_TO_MILLISECONDS: Final = 0.5
"""``http.server.duration`` is rounded to milliseconds, so it may exceed the measured time by half a millisecond."""
_RESOURCES: Final = {"/": "Index", "/checkout": "Checkout"}
"""The resource name of each decorated view, by route."""


def expected_series(
    books: Mapping[str, Any], responses: Iterable[ShopResponse], found: Iterable[Series], *, visitors: int
) -> dict[Series, Expectation]:
    """Map each series that should be in CloudWatch to its expected figures.

    :param books: the orders, refunds, searches and so on that the shop counted.
    :param responses: the responses that the visitors received.
    :param found: the series in CloudWatch. The HTTP dimensions that depend on the instrumentation are copied from them.
    :param visitors: number of visitors, and hence the highest possible number of concurrent requests.
    """
    every = list(responses)
    return {
        **_of_books(books),
        **_of_decorators(every),
        **_of_timers(every),
        **_of_up_down_counters(books, found, visitors),
        **_of_http(every, list(found)),
    }


def _of_books(books: Mapping[str, Any]) -> dict[Series, Expectation]:
    """Return what ``add_metric``, the counter and the histogram should have published, according to ``books``."""
    values: defaultdict[Series, list[float]] = defaultdict(list)
    for payment, amount in books["orders"]:
        values[series_of("Orders", "Count", Payment=payment)].append(1)
        values[series_of("Order Value", Kind="sale")].append(amount)
    for amount in books["refunds"]:
        values[series_of("Order Value", Kind="refund")].append(-amount)
    values[series_of("Basket Size", "Count")] += books["baskets"]
    values[series_of("shop.search.results", "Count")] += books["searches"]
    views = Counter(books["views"])
    return {
        **{series: samples(recorded) for series, recorded in values.items() if recorded},
        **{series_of("shop.product.views", "Count", category=name): total(count) for name, count in views.items()},
    }


def _of_decorators(responses: Iterable[ShopResponse]) -> dict[Series, Expectation]:
    """Return what the two decorated views should have published, according to the statuses of the responses."""
    counts: Counter[Series] = Counter()
    for response in responses:
        if resource := _RESOURCES.get(response.request.route or ""):
            counts[series_of("RequestCount", "Count", ResourceName=resource, StatusCode=response.status)] += 1
        if resource == "Checkout" and response.status >= 400:
            name = "Failure" if response.status == 500 else "Error"
            counts[series_of(name, "Count", ResourceName=resource)] += 1
    return {series: samples([1] * count, counted_by="visitors") for series, count in counts.items()}


def _of_timers(responses: Iterable[ShopResponse]) -> dict[Series, Expectation]:
    times = [response.milliseconds for response in responses if response.request.route == "/slow"]
    return {series_of("Report Time", "Milliseconds"): occurrences(len(times), max(times))} if times else {}


def _of_up_down_counters(books: Mapping[str, Any], found: Iterable[Series], visitors: int) -> dict[Series, Expectation]:
    """Map the series of up-down counters to limits: their values cannot exceed the number of visitors."""
    series = {each for each in found if each.name == ACTIVE_REQUESTS}
    if books["orders"]:
        series.add(series_of("shop.checkouts.open", "Count"))
    return dict.fromkeys(series, between(0, visitors))


def _of_http(responses: Iterable[ShopResponse], found: list[Series]) -> dict[Series, Expectation]:
    """Map each series of request durations, by method, route and status, to its expected figures."""
    times: defaultdict[tuple[str, str | None, str], list[float]] = defaultdict(list)
    for response in responses:
        key = response.request.method, response.request.route, str(response.status)
        times[key].append(response.milliseconds)
    # OTEL_SEMCONV_STABILITY_OPT_IN determines whether the old name, the new name or both are in use.
    names = {series.name for series in found} & DURATIONS.keys() or {"http.server.duration"}
    return {
        _http_series(name, request, found): _durations(DURATIONS[name].unit, milliseconds)
        for name in names
        for request, milliseconds in times.items()
    }


def _durations(unit: str, milliseconds: list[float]) -> Expectation:
    return occurrences(len(milliseconds), (max(milliseconds) + _ROUNDED_TO_MILLISECONDS) * PER_SECOND[unit] / 1000)


def _http_series(name: str, request: tuple[str, str | None, str], found: Iterable[Series]) -> Series:
    """Return the series in ``found`` that has the method, route and status in ``request``.

    If there is none, return a series that has only those dimensions.
    """
    metric = DURATIONS[name]
    attributes = dict(zip((metric.method, metric.route, metric.status), request, strict=True))
    of_request = (each for each in found if each.name == name and _has(each, attributes))
    known = {key: value for key, value in attributes.items() if value is not None}
    return next(of_request, series_of(name, metric.unit, **known))


def _has(series: Series, attributes: Mapping[str, str | None]) -> bool:
    dimensions = dict(series.dimensions)
    return all(dimensions.get(name) == value for name, value in attributes.items())
