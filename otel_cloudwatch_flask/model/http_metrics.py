"""What HTTP metrics are called, and where they have a request's route, method and status."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class RequestMetric:
    """A metric with samples for each request; the dimensions that have the route, the method and the status of it."""

    unit: str
    route: str
    method: str
    status: str


# https://opentelemetry.io/docs/specs/semconv/http/http-metrics/, and what it was before.
DURATIONS: Final = {
    "http.server.duration": RequestMetric("Milliseconds", "http.target", "http.method", "http.status_code"),
    "http.server.request.duration": RequestMetric(
        "Seconds", "http.route", "http.request.method", "http.response.status_code"
    ),
}
COUNTS: Final = {"RequestCount": RequestMetric("Count", "ResourceName", "", "StatusCode")}
"""What the decorators of the facade count; they know no method."""
ACTIVE_REQUESTS: Final = "http.server.active_requests"
"""How many there are at a time: it goes up and down, so that its sum says nothing."""

PER_SECOND: Final = {"Seconds": 1.0, "Milliseconds": 1e3, "Microseconds": 1e6}
"""CloudWatch's units of time."""
