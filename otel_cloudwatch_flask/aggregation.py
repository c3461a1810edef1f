"""The SDK's exponential histogram, starting each interval at the finest scale again."""

import logging
from collections.abc import Callable
from typing import Any, Final

from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation

from otel_cloudwatch_flask.quiet_log import QuietLog

_quiet_log = QuietLog(logging.getLogger(__name__))

_NEEDED: Final = ("_lock", "_mapping", "_new_mapping", "_max_scale", "_value_positive", "_value_negative")


class FreshScaleHistogramAggregation(ExponentialBucketHistogramAggregation):
    """Forget the scale at each collection of deltas.

    The SDK's own aggregation widens its buckets when values lie far apart, and never narrows them again: after one
    outlier, 1e9 beside 1e-9, a series keeps buckets 41 % wide for the life of the process. Deltas have nothing in
    common with what was collected before, so each interval may start afresh.

    This reaches into the SDK, which offers no other way. Where a future SDK has changed, its own behaviour is what is
    left, and one warning says so.
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
            aggregation.collect = _afresh(aggregation, aggregation.collect)
        return aggregation


def _afresh(aggregation: Any, collect: Callable[..., Any]) -> Callable[..., Any]:
    def collect_and_forget_scale(*args: Any, **kwargs: Any) -> Any:
        point = collect(*args, **kwargs)
        with aggregation._lock:  # noqa: SLF001 - see above
            # A sample that came in between has filled a bucket of the old scale; then the next collection will do.
            if aggregation._value_positive is None and aggregation._value_negative is None:  # noqa: SLF001 - see above
                aggregation._mapping = aggregation._new_mapping(aggregation._max_scale)  # noqa: SLF001 - see above
        return point

    return collect_and_forget_scale
