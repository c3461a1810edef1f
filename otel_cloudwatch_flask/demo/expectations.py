"""What ought to be in CloudWatch, by the shop's own books and by what its visitors saw. No OpenTelemetry here."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from otel_cloudwatch_flask.demo.comparison import Between, Expectation, Occurrences, Samples, Series, Total
from otel_cloudwatch_flask.demo.traffic import Answer

_ROUNDED_TO_MILLISECONDS: Final = 0.5
"""``http.server.duration`` is, and may so be longer than it took."""

# https://opentelemetry.io/docs/specs/semconv/http/http-metrics/ and what it was before: the names of the metric and its
# unit, milliseconds in that unit, then those of the attributes for method, route and status.
_DURATIONS: Final = {
    "http.server.duration": ("Milliseconds", 1.0, "http.method", "http.target", "http.status_code"),
    "http.server.request.duration": (
        "Seconds",
        0.001,
        "http.request.method",
        "http.route",
        "http.response.status_code",
    ),
}
_ACTIVE_REQUESTS: Final = "http.server.active_requests"


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
    samples: defaultdict[Series, list[float]] = defaultdict(list)
    for payment, total in books["orders"]:
        samples[Series.of("Orders", "Count", Payment=payment)].append(1)
        samples[Series.of("Order Value", Kind="sale")].append(total)
    for amount in books["refunds"]:
        samples[Series.of("Order Value", Kind="refund")].append(-amount)
    samples[Series.of("Basket Size", "Count")] += books["baskets"]
    samples[Series.of("shop.search.results", "Count")] += books["searches"]
    views = Counter(books["views"])
    return {
        **{series: Samples(tuple(values)) for series, values in samples.items() if values},
        **{Series.of("shop.product.views", "Count", category=name): Total(count) for name, count in views.items()},
    }


def _of_decorators(answers: Iterable[Answer]) -> dict[Series, Expectation]:
    """What the two decorated views must have counted, by the statuses that visitors got."""
    resources = {"/": "Index", "/checkout": "Checkout"}
    counts: Counter[Series] = Counter()
    for answer in answers:
        resource = resources.get(answer.visit.route or "")
        if resource:
            counts[Series.of("RequestCount", "Count", ResourceName=resource, StatusCode=answer.status)] += 1
        if resource == "Checkout" and answer.status >= 400:
            name = "Failure" if answer.status == 500 else "Error"
            counts[Series.of(name, "Count", ResourceName=resource)] += 1
    return {series: Samples((1,) * count, counted_by="visitors") for series, count in counts.items()}


def _of_timers(answers: Iterable[Answer]) -> dict[Series, Expectation]:
    times = [answer.milliseconds for answer in answers if answer.visit.route == "/slow"]
    return {Series.of("Report Time", "Milliseconds"): Occurrences(len(times), max(times))} if times else {}


def _of_open_things(books: Mapping[str, Any], found: Iterable[Series], visitors: int) -> dict[Series, Expectation]:
    """What goes up and down: no more can be open than there are visitors."""
    everyone = Between(0, visitors, counted_by="visitors")
    series = {each for each in found if each.name == _ACTIVE_REQUESTS}
    if books["orders"]:
        series.add(Series.of("shop.checkouts.open", "Count"))
    return dict.fromkeys(series, everyone)


def _of_http(answers: Iterable[Answer], found: list[Series]) -> dict[Series, Expectation]:
    """The durations of requests: how many there were of each method, route and status, and how long they took."""
    times: defaultdict[tuple[str, str | None, str], list[float]] = defaultdict(list)
    for answer in answers:
        times[answer.visit.method, answer.visit.route, str(answer.status)].append(answer.milliseconds)
    names = {series.name for series in found} & _DURATIONS.keys() or {"http.server.duration"}
    return {
        _http_series(name, request, found): _occurrences(name, milliseconds)
        for name in names
        for request, milliseconds in times.items()
    }


def _occurrences(name: str, milliseconds: list[float]) -> Occurrences:
    scale = _DURATIONS[name][1]
    return Occurrences(len(milliseconds), (max(milliseconds) + _ROUNDED_TO_MILLISECONDS) * scale)


def _http_series(name: str, request: tuple[str, str | None, str], found: Iterable[Series]) -> Series:
    """The series in CloudWatch that is of such requests, whatever other dimensions it has; made up if there is none."""
    unit, _, *attributes = _DURATIONS[name]
    for series in found:
        dimensions = dict(series.dimensions)
        if series.name == name and tuple(map(dimensions.get, attributes)) == request:
            return series
    known = {key: value for key, value in zip(attributes, request, strict=True) if value is not None}
    return Series(name, tuple(sorted(known.items())), unit)
