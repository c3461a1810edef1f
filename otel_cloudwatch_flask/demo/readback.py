"""Read the published series and their figures back from CloudWatch with boto3."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from otel_cloudwatch_flask.demo.comparison import PERCENTILES, Figure, Figures
from otel_cloudwatch_flask.model.datum import Series
from otel_cloudwatch_flask.testing.published import dimensions_of

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_cloudwatch.literals import StatisticType

_FIGURE_NAMES: "Final[dict[StatisticType, Figure]]" = {
    "SampleCount": "samples",
    "Sum": "sum",
    "Minimum": "min",
    "Maximum": "max",
}
_DAY: Final = 24 * 3600


def published_series(
    client: "CloudWatchClient", namespace: str, *, start: datetime, end: datetime
) -> dict[Series, Figures]:
    """Return the figures of every series in ``namespace``, over the whole time range, which must be under a day."""
    found: dict[Series, Figures] = {}
    for page in client.get_paginator("list_metrics").paginate(Namespace=namespace):
        for metric in page["Metrics"]:
            found.update(_figures_by_series(client, cast("dict[str, Any]", metric), start, end))
    return found


def _figures_by_series(
    client: "CloudWatchClient", metric: Mapping[str, Any], start: datetime, end: datetime
) -> Iterator[tuple[Series, Figures]]:
    """Yield the figures of one metric, separately for each unit in which it was published."""
    query = {
        **metric,
        "StartTime": start,
        # EndTime is exclusive.
        "EndTime": end + timedelta(minutes=1),
        # A single period is necessary because percentiles cannot be merged. The first period begins at StartTime.
        "Period": _DAY,
    }
    # GetMetricStatistics does not accept both kinds of statistics in one call.
    statistics = client.get_metric_statistics(**query, Statistics=[*_FIGURE_NAMES])["Datapoints"]
    percentiles = client.get_metric_statistics(**query, ExtendedStatistics=[*PERCENTILES])["Datapoints"]
    by_unit = {point["Unit"]: point["ExtendedStatistics"] for point in percentiles}
    for point in cast("list[dict[str, Any]]", statistics):
        figures: dict[Figure, float | None] = {figure: point[name] for name, figure in _FIGURE_NAMES.items()}
        figures.update(cast("dict[Figure, float | None]", by_unit.get(point["Unit"], {})))
        yield Series(metric["MetricName"], dimensions_of(metric["Dimensions"]), point["Unit"]), figures
