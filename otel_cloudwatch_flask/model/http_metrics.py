"""The names and dimensions of the metrics that describe HTTP requests to a server."""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class RequestMetric:
    """The unit and dimension names of a metric that has one sample per request."""

    unit: str
    route: str
    method: str
    status: str


STABLE_DURATION: Final = "http.server.request.duration"
ERROR_TYPE: Final = "error.type"
"""The dimension in which :data:`STABLE_DURATION` repeats the status of a 5xx response. Other responses lack it."""

# Many instrumentations still emit the first name, although the stable conventions replaced it with the second:
# https://opentelemetry.io/docs/specs/semconv/http/http-metrics/
DURATIONS: Final = {
    "http.server.duration": RequestMetric("Milliseconds", "http.target", "http.method", "http.status_code"),
    STABLE_DURATION: RequestMetric("Seconds", "http.route", "http.request.method", "http.response.status_code"),
}
_OLD, _NEW = (astuple(each)[1:] for each in DURATIONS.values())
SYNONYMS: Final[Mapping[str, str]] = dict(zip(_OLD + _NEW, _NEW + _OLD, strict=True))
"""Maps the old names of the route, method and status attributes to the stable names, and vice versa. A rule that lists
one of the two names also applies to the other name.
"""
COUNTS: Final = {"RequestCount": RequestMetric("Count", "ResourceName", "", "StatusCode")}
"""The metric that the decorator ``request_count`` records. It has no dimension for the method."""
ACTIVE_REQUESTS: Final = "http.server.active_requests"
"""The number of requests in progress. It is an up-down counter, so its ``Sum`` in CloudWatch is meaningless."""

PER_SECOND: Final = {"Seconds": 1.0, "Milliseconds": 1e3, "Microseconds": 1e6}
"""The length of a second in each of CloudWatch's units of time."""
