"""Which of an app's series are about HTTP requests. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from otel_cloudwatch_flask.commands.shared.document import SeenSeries
from otel_cloudwatch_flask.model.http_metrics import COUNTS, DURATIONS, RequestMetric


@dataclass(frozen=True, slots=True)
class RequestSeries:
    """A series with one sample for each request."""

    series: SeenSeries
    metric: RequestMetric

    @property
    def route(self) -> str | None:
        """Their route, if the series tells it."""
        return dict(self.series.dimensions).get(self.metric.route)

    @property
    def status(self) -> str:
        """Their status; empty if the series does not tell it."""
        return dict(self.series.dimensions).get(self.metric.status, "")

    @property
    def is_duration(self) -> bool:
        """Whether samples are how long requests took."""
        return self.series.name in DURATIONS

    @property
    def is_error(self) -> bool:
        """Whether the requests were answered with a 4xx or 5xx."""
        return self.status.startswith(("4", "5"))

    @property
    def is_failure(self) -> bool:
        """Whether the requests were answered with a 5xx."""
        return self.status.startswith("5")

    def label(self, *, with_status: bool = True) -> str:
        """What the requests are, as far as it is known."""
        dimensions = dict(self.series.dimensions)
        names = (self.metric.method, self.metric.route, *([self.metric.status] if with_status else []))
        return " ".join(dimensions[name] for name in names if name in dimensions) or "all requests"


def request_series(every: Iterable[SeenSeries]) -> list[RequestSeries]:
    """The series that count requests; the durations if there are any, because they know all requests."""
    known = DURATIONS | COUNTS
    found = [RequestSeries(series, known[series.name]) for series in every if series.name in known]
    return [each for each in found if each.is_duration] or found
