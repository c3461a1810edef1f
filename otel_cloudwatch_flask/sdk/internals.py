"""What this package uses of the OpenTelemetry SDK beyond its public interface, all in this module.

Each docstring says what happens with a release of the SDK that has a name no longer; ``tests/sdk/test_internals.py``
then fails and repeats it.
"""

import logging
import threading
from collections.abc import Callable, Container
from typing import Any, Final, cast

from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View

from otel_cloudwatch_flask.runtime.rate_limited_log import QuietLog

_quiet_log = QuietLog(logging.getLogger(__name__))

_NEEDED: Final = ("_lock", "_mapping", "_new_mapping", "_max_scale", "_value_positive", "_value_negative")
"""What an aggregation must have to reset its scale."""


def consumer_of(provider_or_reader: object) -> object | None:
    """The object that a provider passes measurements to, and that its readers collect from.

    A reader is on a provider if both have the same one. Without it: ``None``. Then a reporter makes a reader of its own
    where it would have shared one, it does not know the program's reader before that has collected, and several
    reporters on one provider all publish the metrics of no reporter.
    """
    if isinstance(provider_or_reader, MetricReader):
        return getattr(getattr(provider_or_reader, "_collect", None), "__self__", None)
    return getattr(provider_or_reader, "_measurement_consumer", None)


def is_registered(reader: MetricReader) -> bool:
    """Whether a reader is on a provider. Without it: ``True``, and the SDK warns when one that is not collects."""
    return getattr(reader, "_collect", reader) is not None


def forget_measurements(reader: MetricReader) -> None:
    """Drop the measurements that this reader has not collected yet: in a forked child, they are the parent's.

    The SDK would export them a second time. Another thread of the parent may have held its locks, so the lock on the
    way is replaced, and the storage with all its locks is made anew. Without it: nothing is dropped.
    """
    consumer: Any = consumer_of(reader)
    if hasattr(consumer, "add_metric_reader") and hasattr(consumer, "_lock"):
        consumer._lock = threading.Lock()  # noqa: SLF001 - see above
        consumer.add_metric_reader(reader)


class SelectiveView(View):
    """A view for the instruments that ``selects`` is true of, which keeps the attributes whose names are in ``kept``.

    Public views select by globs. Without ``_match``: see :func:`can_select`.
    """

    def __init__(self, selects: Callable[[Any], bool], kept: Container[str]) -> None:
        super().__init__(instrument_name="*", attribute_keys=cast("set[str]", kept))
        self._selects = selects

    def _match(self, instrument: Any) -> bool:
        return self._selects(instrument)


def can_select() -> bool:
    """Whether :class:`SelectiveView` works. Without it there must be none, because each would match everything."""
    return hasattr(View, "_match")


class FreshScaleHistogramAggregation(ExponentialBucketHistogramAggregation):
    """The SDK's exponential histogram, but each interval of deltas starts at the finest scale again.

    The SDK's own widens its buckets when values lie far apart, and never narrows them again: after one outlier, 1e9
    beside 1e-9, a series keeps buckets 41 % wide for the life of the process. Without it: that, and one warning.
    """

    def _create_aggregation(self, *args: Any, **kwargs: Any) -> Any:
        aggregation: Any = super()._create_aggregation(*args, **kwargs)
        missing = [name for name in _NEEDED if not hasattr(aggregation, name)]
        if missing:
            _quiet_log.warning(
                "sdk",
                "This opentelemetry-sdk keeps histograms otherwise than known (no %s): after an outlier, percentiles "
                "of that series stay as coarse as it made them; counts and sums stay exact. Use a release that this "
                "package is tested with.",
                ", ".join(missing),
            )
        else:
            aggregation.collect = _with_fresh_scale(aggregation, aggregation.collect)
        return aggregation


def _with_fresh_scale(aggregation: Any, collect: Callable[..., Any]) -> Callable[..., Any]:
    def collect_and_reset_scale(*args: Any, **kwargs: Any) -> Any:
        point = collect(*args, **kwargs)
        with aggregation._lock:  # noqa: SLF001 - see above
            # A sample that came in between has filled a bucket of the old scale; the next collection resets it.
            if aggregation._value_positive is None and aggregation._value_negative is None:  # noqa: SLF001 - see above
                aggregation._mapping = aggregation._new_mapping(aggregation._max_scale)  # noqa: SLF001 - see above
        return point

    return collect_and_reset_scale
