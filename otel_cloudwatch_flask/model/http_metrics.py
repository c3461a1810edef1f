"""Names of HTTP server metrics, and of their dimensions for route, method and status."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class RequestMetric:
    """A metric with a sample for each request: its unit, and its dimensions for route, method and status."""

    unit: str
    route: str
    method: str
    status: str


# The stable name is the second: https://opentelemetry.io/docs/specs/semconv/http/http-metrics/
DURATIONS: Final = {
    "http.server.duration": RequestMetric("Milliseconds", "http.target", "http.method", "http.status_code"),
    "http.server.request.duration": RequestMetric(
        "Seconds", "http.route", "http.request.method", "http.response.status_code"
    ),
}
COUNTS: Final = {"RequestCount": RequestMetric("Count", "ResourceName", "", "StatusCode")}
"""The metric of the facade's decorators, which have no dimension for the method."""
ACTIVE_REQUESTS: Final = "http.server.active_requests"
"""The number of requests in progress: an up-down counter, whose ``Sum`` is meaningless."""

PER_SECOND: Final = {"Seconds": 1.0, "Milliseconds": 1e3, "Microseconds": 1e6}
"""CloudWatch's units of time, as fractions of a second."""
