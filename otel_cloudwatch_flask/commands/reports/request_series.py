"""Find the series that count or time an app's HTTP requests."""

from collections.abc import Iterable
from dataclasses import dataclass

from otel_cloudwatch_flask.commands.shared.document import SeriesSummary
from otel_cloudwatch_flask.model.http_metrics import COUNTS, DURATIONS, RequestMetric


@dataclass(frozen=True, slots=True)
class RequestSeries:
    """A series of a route with one sample per request, and the names of its method, route and status dimensions."""

    series: SeriesSummary
    metric: RequestMetric

    @property
    def route(self) -> str:
        """The route of the requests, or an empty string if the series has no route dimension."""
        return dict(self.series.dimensions).get(self.metric.route, "")

    @property
    def status(self) -> str:
        """The status of the responses, or an empty string if the series has no status dimension."""
        return dict(self.series.dimensions).get(self.metric.status, "")

    @property
    def is_duration(self) -> bool:
        """Whether the samples are durations."""
        return self.series.name in DURATIONS

    @property
    def is_error(self) -> bool:
        """Whether the responses have a 4xx or 5xx status."""
        return self.status.startswith(("4", "5"))

    @property
    def is_failure(self) -> bool:
        """Whether the responses have a 5xx status."""
        return self.status.startswith("5")

    def label(self, *, with_status: bool = True) -> str:
        """Return the method, route and status as a label such as ``GET /cart 200``."""
        dimensions = dict(self.series.dimensions)
        names = (self.metric.method, self.metric.route, *([self.metric.status] if with_status else []))
        return " ".join(dimensions[name] for name in names if name in dimensions)


def request_series(every: Iterable[SeriesSummary]) -> list[RequestSeries]:
    """Return the series of routes' request durations or, if there are none, of their request counts.

    Durations are preferred because they are recorded for every request, whereas counts are recorded only for decorated
    views.
    """
    known = DURATIONS | COUNTS
    requests = [RequestSeries(series, known[series.name]) for series in every if series.name in known]
    of_routes = [each for each in requests if each.route]
    return [each for each in of_routes if each.is_duration] or of_routes
