"""Expected series, from the shop's own books and from the responses that visitors got, without OpenTelemetry."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from otel_cloudwatch_flask.demo.comparison import Expectation, between, occurrences, samples, series_of, total
from otel_cloudwatch_flask.demo.load_generator import ShopResponse
from otel_cloudwatch_flask.model.datum import Series
from otel_cloudwatch_flask.model.http_metrics import ACTIVE_REQUESTS, DURATIONS, PER_SECOND

_ROUNDED_TO_MILLISECONDS: Final = 0.5
"""``http.server.duration`` is rounded to whole milliseconds, so it may exceed the measured time by half of one."""
_RESOURCES: Final = {"/": "Index", "/checkout": "Checkout"}
"""Resource names of the decorated views, by route."""


def expected_series(
    books: Mapping[str, Any], responses: Iterable[ShopResponse], found: Iterable[Series], *, visitors: int
) -> dict[Series, Expectation]:
    """Return the expectation of each series.

    ``found`` are the series in CloudWatch, which supply the remaining dimensions of HTTP metrics: those depend on the
    version of the instrumentation.
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
    """Expectations of ``add_metric``, the counter and the histogram, from the shop's books."""
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
    """Expectations of the two decorated views, from the status codes of responses."""
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
    """Expectations of up-down counters: there cannot be more active requests than visitors."""
    series = {each for each in found if each.name == ACTIVE_REQUESTS}
    if books["orders"]:
        series.add(series_of("shop.checkouts.open", "Count"))
    return dict.fromkeys(series, between(0, visitors))


def _of_http(responses: Iterable[ShopResponse], found: list[Series]) -> dict[Series, Expectation]:
    """Expectations of request durations, by method, route and status."""
    times: defaultdict[tuple[str, str | None, str], list[float]] = defaultdict(list)
    for response in responses:
        key = response.request.method, response.request.route, str(response.status)
        times[key].append(response.milliseconds)
    # One or both names, depending on OTEL_SEMCONV_STABILITY_OPT_IN.
    names = {series.name for series in found} & DURATIONS.keys() or {"http.server.duration"}
    return {
        _http_series(name, request, found): _durations(DURATIONS[name].unit, milliseconds)
        for name in names
        for request, milliseconds in times.items()
    }


def _durations(unit: str, milliseconds: list[float]) -> Expectation:
    return occurrences(len(milliseconds), (max(milliseconds) + _ROUNDED_TO_MILLISECONDS) * PER_SECOND[unit] / 1000)


def _http_series(name: str, request: tuple[str, str | None, str], found: Iterable[Series]) -> Series:
    """Return the series in CloudWatch of such requests, or a series with only the known dimensions."""
    metric = DURATIONS[name]
    attributes = dict(zip((metric.method, metric.route, metric.status), request, strict=True))
    of_request = (each for each in found if each.name == name and _has(each, attributes))
    known = {key: value for key, value in attributes.items() if value is not None}
    return next(of_request, series_of(name, metric.unit, **known))


def _has(series: Series, attributes: Mapping[str, str | None]) -> bool:
    dimensions = dict(series.dimensions)
    return all(dimensions.get(name) == value for name, value in attributes.items())
