"""The datum that is sent to CloudWatch, and the series it belongs to."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from otel_cloudwatch_flask.histograms.values_counts import Distribution

Dimensions = tuple[tuple[str, str], ...]
"""Pairs of name and value that CloudWatch accepts, sorted by name."""

OVERFLOW_KEY: Final = "otel.metric.overflow"
"""https://opentelemetry.io/docs/specs/otel/metrics/sdk/#overflow-attribute"""

OVERFLOW_DIMENSIONS: Final[Dimensions] = ((OVERFLOW_KEY, "true"),)
"""Dimensions of the series that collects everything beyond ``max_metrics``."""


class _SeriesFields(NamedTuple):
    name: str
    dimensions: Dimensions
    unit: str
    storage_resolution: int = 60


class Series(_SeriesFields):
    """One CloudWatch metric, which is stored, shown and billed separately.

    The unit and the storage resolution (in seconds) belong to it because each datum has exactly one of each.
    """

    # A named tuple because series are dictionary keys, and tuples are hashed in C.

    @cached_property
    def prefix(self) -> str:
        """The JSON prefix of its datums, up to the value of ``Timestamp``."""
        members: dict[str, object] = {
            "MetricName": self.name,
            "Dimensions": [{"Name": name, "Value": value} for name, value in self.dimensions],
            "Unit": self.unit,
        }
        if self.storage_resolution != 60:
            members["StorageResolution"] = self.storage_resolution
        return f'{json.dumps(members, separators=(",", ":"))[:-1]},"Timestamp":'


@dataclass(frozen=True, slots=True)
class Statistics:
    """A statistic set of several samples. CloudWatch cannot compute percentiles of it."""

    count: int
    sum: float
    minimum: float
    maximum: float


class Datum(NamedTuple):
    """A number, distribution or statistic set of one series at one time, in whole seconds of Unix time."""

    series: Series
    unix_seconds: int
    content: float | Distribution | Statistics
