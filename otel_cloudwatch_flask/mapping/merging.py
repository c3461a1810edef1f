"""Merge the data points that belong to the same series into one datum.

Data points belong to the same series if their published names, units and dimensions are equal. For example, they may
differ in attributes that are not published, in their scopes, or in the types of attribute values, such as ``1`` and
``"1"``.
"""

import math
from dataclasses import dataclass, field

from otel_cloudwatch_flask.histograms.buckets import ExponentialHistogram, Histogram
from otel_cloudwatch_flask.histograms.values_counts import Distribution, combined, distribution
from otel_cloudwatch_flask.limits import MAX_VALUES_PER_DATUM, sendable
from otel_cloudwatch_flask.mapping.data_points import (
    ChangeValue,
    GaugeValue,
    PointValue,
    SumValue,
    statistics,
)
from otel_cloudwatch_flask.model.datum import Content, Datum, Series


@dataclass(slots=True)
class Accumulator:
    """Merges the values that one series receives in one collection."""

    series: Series
    as_statistics: bool
    unix_seconds: int = 0
    sum: float | None = None
    change: float | None = None
    gauge_values: list[float] = field(default_factory=list)
    histograms: list[Histogram] = field(default_factory=list)

    def add(self, value: PointValue, unix_seconds: int) -> None:
        """Add the value of one data point. The datum gets the latest ``unix_seconds``."""
        self.unix_seconds = max(self.unix_seconds, unix_seconds)
        if isinstance(value, SumValue):
            self.sum = value.value if self.sum is None else self.sum + value.value
        elif isinstance(value, ChangeValue):
            self.change = value.value if self.change is None else self.change + value.value
        elif isinstance(value, GaugeValue):
            self.gauge_values.append(value.value)
        else:
            self.histograms.append(value)
            # Adding histograms early bounds the memory, however many data points the series receives.
            if len(self.histograms) > 1 and not _fit_in_one_datum(self.histograms):
                self.histograms = _added_by_layout(self.histograms)

    def datum(self) -> Datum:
        """Return the merged datum. Raises :class:`InvalidPointError` if CloudWatch does not accept its numbers."""
        return Datum(self.series, self.unix_seconds, self._content())

    def _content(self) -> Content:
        numbers = [*self.gauge_values] if self.sum is None else [self.sum, *self.gauge_values]
        if not self.histograms and len(numbers) == 1:
            return sendable(numbers[0])
        parts = [distribution(histogram) for histogram in self.histograms]
        if numbers:
            parts.append(combined([Distribution.of((sendable(number), 1) for number in numbers)]))
        whole = parts[0] if len(parts) == 1 else combined(parts)
        if not self.as_statistics:
            return whole
        # The recorded sums are more precise than the sum of rounded values.
        return statistics(whole, math.fsum([*numbers, *(each.sum * each.factor for each in self.histograms)]))


def _fit_in_one_datum(histograms: list[Histogram]) -> bool:
    """Return whether all ``histograms`` are exponential and fit into one datum without being added together."""
    exponential = [each for each in histograms if isinstance(each, ExponentialHistogram)]
    values = sum(each.filled_buckets + 2 for each in exponential)
    return len(exponential) == len(histograms) and values <= MAX_VALUES_PER_DATUM


def _added_by_layout(histograms: list[Histogram]) -> list[Histogram]:
    added: dict[object, Histogram] = {}
    for each in histograms:
        present = added.get(each.layout)
        added[each.layout] = each if present is None else present.plus(each)
    return list(added.values())
