"""Which of an app's series are about HTTP requests: their routes, methods and statuses. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from otel_cloudwatch_flask.commands.document import SeenSeries


@dataclass(frozen=True, slots=True)
class _Names:
    """How a metric calls the dimensions that have a request's route, method and status."""

    route: str
    method: str | None
    status: str


# https://opentelemetry.io/docs/specs/semconv/http/http-metrics/, what it was before, and the facade's decorator.
_DURATIONS: Final = {
    "http.server.duration": _Names("http.target", "http.method", "http.status_code"),
    "http.server.request.duration": _Names("http.route", "http.request.method", "http.response.status_code"),
}
_COUNTS: Final = {"RequestCount": _Names("ResourceName", None, "StatusCode")}
LEVELS: Final = frozenset({"http.server.active_requests"})
"""What goes up and down, so that its sum says nothing."""


@dataclass(frozen=True, slots=True)
class RequestSeries:
    """A series with one sample for each request; ``route`` and ``status`` are ``None`` where it does not tell them."""

    series: SeenSeries
    route: str | None
    method: str | None
    status: str | None
    is_duration: bool

    @property
    def label(self) -> str:
        """What the requests are, as far as it is known."""
        return " ".join(filter(None, (self.method, self.route, self.status))) or "all requests"

    @property
    def is_error(self) -> bool:
        """Whether the requests were answered with a 4xx or 5xx."""
        return (self.status or "")[:1] in {"4", "5"}

    @property
    def is_failure(self) -> bool:
        """Whether the requests were answered with a 5xx."""
        return (self.status or "").startswith("5")

    @property
    def status_dimension(self) -> str:
        """The name of the dimension that has the status."""
        return (_DURATIONS | _COUNTS)[self.series.name].status


def request_series(every: Iterable[SeenSeries]) -> list[RequestSeries]:
    """The series that count requests; the durations if there are any, because they know all requests."""
    found = list(_found(every))
    durations = [each for each in found if each.is_duration]
    return durations or found


def _found(every: Iterable[SeenSeries]) -> Iterator[RequestSeries]:
    for series in every:
        names = _DURATIONS.get(series.name) or _COUNTS.get(series.name)
        if names is not None:
            dimensions = dict(series.dimensions)
            yield RequestSeries(
                series,
                route=dimensions.get(names.route),
                method=dimensions.get(names.method or ""),
                status=dimensions.get(names.status),
                is_duration=series.name in _DURATIONS,
            )
