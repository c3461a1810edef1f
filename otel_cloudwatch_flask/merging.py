"""Points that become the same CloudWatch metric are one datum."""

import logging
import math
from dataclasses import dataclass, field

from otel_cloudwatch_flask.datum import Datum, Series, Statistics
from otel_cloudwatch_flask.distribution import Distribution, combined, distribution
from otel_cloudwatch_flask.histogram import ExponentialHistogram, Histogram
from otel_cloudwatch_flask.limits import MAX_VALUES_PER_DATUM
from otel_cloudwatch_flask.magnitudes import sendable
from otel_cloudwatch_flask.points import Additive, Amount, Sample
from otel_cloudwatch_flask.quiet_log import QuietLog
from otel_cloudwatch_flask.wire import series_head

_each_minute = QuietLog(logging.getLogger(__name__), interval_seconds=60.0)


@dataclass(slots=True)
class Merged:
    """What one series has received in one collection."""

    unix_seconds: int = 0
    additive: float | None = None
    samples: list[float] = field(default_factory=list)
    histograms: list[Histogram] = field(default_factory=list)
    as_statistics: bool = False

    def add(self, amount: Amount) -> None:
        """Add an amount to those of its kind."""
        if isinstance(amount, Additive):
            self.additive = amount.value if self.additive is None else self.additive + amount.value
        elif isinstance(amount, Sample):
            self.samples.append(amount.value)
        else:
            self.histograms.append(amount)
            if len(self.histograms) > 1 and not _fit_in_one_datum(self.histograms):
                self.histograms = _added_by_layout(self.histograms)

    def content(self) -> float | Distribution | Statistics | None:
        """The datum's numbers, or ``None`` if CloudWatch takes no such numbers."""
        numbers = [*self.samples] if self.additive is None else [self.additive, *self.samples]
        if not self.histograms and len(numbers) == 1:
            return sendable(numbers[0])
        parts = [distribution(histogram) for histogram in self.histograms]
        if numbers:
            parts.append(_distribution_of_numbers(numbers))
        sent = [part for part in parts if part is not None]
        if len(sent) < len(parts):
            return None
        whole = sent[0] if len(sent) == 1 else combined(sent)
        return _statistics(whole, self.histograms) if self.as_statistics else whole


def _distribution_of_numbers(numbers: list[float]) -> Distribution | None:
    sent = [(number, 1) for value in numbers if (number := sendable(value)) is not None]
    return combined([Distribution.of(sent)]) if len(sent) == len(numbers) else None


def _fit_in_one_datum(histograms: list[Histogram]) -> bool:
    """Whether each may keep its own values, which are finer than those of common buckets."""
    exponential = [each for each in histograms if isinstance(each, ExponentialHistogram)]
    values = sum(each.filled_buckets + 2 for each in exponential)
    return len(exponential) == len(histograms) and values <= MAX_VALUES_PER_DATUM


def _added_by_layout(histograms: list[Histogram]) -> list[Histogram]:
    added: dict[object, Histogram] = {}
    for each in histograms:
        present = added.get(each.layout)
        # Equal layouts are of one kind, which type checkers cannot see.
        added[each.layout] = each if present is None else present.plus(each)  # type: ignore[arg-type]
    return list(added.values())


def _statistics(whole: Distribution, histograms: list[Histogram]) -> Statistics | None:
    if sum(histogram.count for histogram in histograms) == whole.count:
        total = sendable(math.fsum(histogram.sum * histogram.factor for histogram in histograms))
    else:
        total = sendable(whole.sum)
    return None if total is None else Statistics(whole.count, total, whole.values[0], whole.values[-1])


class Place:
    """Where the points of one series meet in a collection."""

    __slots__ = ("head", "merged", "series")

    def __init__(self, series: Series) -> None:
        self.series = series
        self.head = series_head(series)
        self.merged: Merged | None = None

    def add(self, amount: Amount, unix_seconds: int, *, as_statistics: bool) -> None:
        """Add what a point says."""
        if self.merged is None:
            self.merged = Merged(as_statistics=as_statistics)
        self.merged.unix_seconds = max(self.merged.unix_seconds, unix_seconds)
        self.merged.add(amount)

    def take_datum(self) -> Datum | None:
        """All that was added, as one datum; ``None`` if CloudWatch takes no such numbers."""
        merged, self.merged = self.merged, None
        content = None if merged is None else _content(self.series, merged)
        return None if merged is None or content is None else Datum(self.series, merged.unix_seconds, content)


def _content(series: Series, merged: Merged) -> float | Distribution | Statistics | None:
    try:
        return merged.content()
    except Exception:  # noqa: BLE001 - the boundary to numbers that nobody has thought of: they cost their own datum only
        _each_minute.log(
            logging.ERROR,
            series.name,
            "A datum of %s could not be made, and is lost; others are not. What made its data points, or this package, "
            "has a fault: the traceback says where.",
            series.name,
            exc_info=True,
        )
        return None
