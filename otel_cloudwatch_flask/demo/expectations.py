"""What ought to be in CloudWatch, by the shop's own books and by what its visitors saw. No OpenTelemetry here."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from otel_cloudwatch_flask.demo.comparison import Expectation, Series, between, occurrences, samples, total
from otel_cloudwatch_flask.demo.load_generator import Answer
from otel_cloudwatch_flask.model.http_metrics import ACTIVE_REQUESTS, DURATIONS, PER_SECOND

_ROUNDED_TO_MILLISECONDS: Final = 0.5
"""``http.server.duration`` is, and may so be longer than it took."""
_RESOURCES: Final = {"/": "Index", "/checkout": "Checkout"}
"""What the decorated views call themselves."""


def expected_series(
    books: Mapping[str, Any], answers: Iterable[Answer], found: Iterable[Series], *, visitors: int
) -> dict[Series, Expectation]:
    """All of it. ``found`` is what there is in CloudWatch: it tells what else HTTP metrics have for dimensions."""
    every = list(answers)
    return {
        **_of_books(books),
        **_of_decorators(every),
        **_of_timers(every),
        **_of_open_things(books, found, visitors),
        **_of_http(every, list(found)),
    }


def _of_books(books: Mapping[str, Any]) -> dict[Series, Expectation]:
    """What the shop's own books say of ``add_metric``, its counter and its histogram."""
    values: defaultdict[Series, list[float]] = defaultdict(list)
    for payment, amount in books["orders"]:
        values[Series.of("Orders", "Count", Payment=payment)].append(1)
        values[Series.of("Order Value", Kind="sale")].append(amount)
    for amount in books["refunds"]:
        values[Series.of("Order Value", Kind="refund")].append(-amount)
    values[Series.of("Basket Size", "Count")] += books["baskets"]
    values[Series.of("shop.search.results", "Count")] += books["searches"]
    views = Counter(books["views"])
    return {
        **{series: samples(recorded) for series, recorded in values.items() if recorded},
        **{Series.of("shop.product.views", "Count", category=name): total(count) for name, count in views.items()},
    }


def _of_decorators(answers: Iterable[Answer]) -> dict[Series, Expectation]:
    """What the two decorated views must have counted, by the statuses that visitors got."""
    counts: Counter[Series] = Counter()
    for answer in answers:
        if resource := _RESOURCES.get(answer.visit.route or ""):
            counts[Series.of("RequestCount", "Count", ResourceName=resource, StatusCode=answer.status)] += 1
        if resource == "Checkout" and answer.status >= 400:
            name = "Failure" if answer.status == 500 else "Error"
            counts[Series.of(name, "Count", ResourceName=resource)] += 1
    return {series: samples([1] * count, counted_by="visitors") for series, count in counts.items()}


def _of_timers(answers: Iterable[Answer]) -> dict[Series, Expectation]:
    times = [answer.milliseconds for answer in answers if answer.visit.route == "/slow"]
    return {Series.of("Report Time", "Milliseconds"): occurrences(len(times), max(times))} if times else {}


def _of_open_things(books: Mapping[str, Any], found: Iterable[Series], visitors: int) -> dict[Series, Expectation]:
    """What goes up and down: no more can be open than there are visitors."""
    series = {each for each in found if each.name == ACTIVE_REQUESTS}
    if books["orders"]:
        series.add(Series.of("shop.checkouts.open", "Count"))
    return dict.fromkeys(series, between(0, visitors))


def _of_http(answers: Iterable[Answer], found: list[Series]) -> dict[Series, Expectation]:
    """The durations of requests: how many there were of each method, route and status, and how long they took."""
    times: defaultdict[tuple[str, str | None, str], list[float]] = defaultdict(list)
    for answer in answers:
        times[answer.visit.method, answer.visit.route, str(answer.status)].append(answer.milliseconds)
    names = {series.name for series in found} & DURATIONS.keys() or {"http.server.duration"}
    return {
        _http_series(name, request, found): _durations(DURATIONS[name].unit, milliseconds)
        for name in names
        for request, milliseconds in times.items()
    }


def _durations(unit: str, milliseconds: list[float]) -> Expectation:
    return occurrences(len(milliseconds), (max(milliseconds) + _ROUNDED_TO_MILLISECONDS) * PER_SECOND[unit] / 1000)


def _http_series(name: str, request: tuple[str, str | None, str], found: Iterable[Series]) -> Series:
    """The series in CloudWatch that is of such requests, whatever other dimensions it has; made up if there is none."""
    metric = DURATIONS[name]
    attributes = dict(zip((metric.method, metric.route, metric.status), request, strict=True))
    of_request = (each for each in found if each.name == name and _has(each, attributes))
    known = {key: value for key, value in attributes.items() if value is not None}
    return next(of_request, Series.of(name, metric.unit, **known))


def _has(series: Series, attributes: Mapping[str, str | None]) -> bool:
    dimensions = dict(series.dimensions)
    return all(dimensions.get(name) == value for name, value in attributes.items())
