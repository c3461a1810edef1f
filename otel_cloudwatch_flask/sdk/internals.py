"""The only module that uses private names of the OpenTelemetry SDK.

The docstrings say how the package behaves if an SDK release lacks the private names. ``tests/sdk/test_internals.py``
checks for these names, and quotes the docstring if one is missing.
"""

import copy
import logging
import math
import threading
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any, Final

from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from opentelemetry.sdk.resources import SERVICE_NAME

from otel_cloudwatch_flask.model.scope import NEGATIVE_KEY
from otel_cloudwatch_flask.runtime.rate_limited_log import RateLimitedLog

_once = RateLimitedLog(logging.getLogger(__name__))

_NEEDED: Final = ("_lock", "_mapping", "_new_mapping", "_max_scale", "_value_positive", "_value_negative")
"""The private attributes of an aggregation that are needed to reset its scale."""


def consumer_of(provider_or_reader: object) -> object | None:
    """Return the SDK's consumer, which receives a provider's measurements and passes them to its readers.

    A reader is registered with a provider if both have the same consumer. A reader without a provider has none.

    If the SDK lacks the private names that this relies on, this returns ``None``. A reporter then creates a reader
    instead of sharing the program's, and does not recognize the program's reader until that reader has collected. The
    reporter also publishes metrics that belong to no reporter, even if another reporter already does.
    """
    if isinstance(provider_or_reader, MetricReader):
        return getattr(getattr(provider_or_reader, "_collect", None), "__self__", None)
    return getattr(provider_or_reader, "_measurement_consumer", None)


def service_name_of(reader: MetricReader) -> str | None:
    """Return the service name in the resource of the reader's provider, or ``None`` if the reader has no provider.

    If the SDK lacks the private names that this relies on, this returns ``None``. A reporter that was given the service
    name as its namespace then creates a reader, instead of sharing the program's.
    """
    resource = getattr(getattr(consumer_of(reader), "_sdk_config", None), "resource", None)
    return resource and str(resource.attributes.get(SERVICE_NAME, ""))


def is_registered(reader: MetricReader) -> bool:
    """Return whether ``reader`` is registered with a provider.

    If the SDK lacks the private name that this relies on, this returns ``True``, which may make the SDK log a warning.
    """
    return getattr(reader, "_collect", reader) is not None


EVERY_ATTRIBUTE: Final[Container[str]] = frozenset()
"""A marker that :meth:`SelectiveReader.kept_attributes` returns to store all attributes. It is compared by identity, so
it does not matter that it is empty.
"""


class SelectiveReader(MetricReader):
    """A reader for which the SDK stores only the instruments and attributes that :meth:`kept_attributes` selects.

    The SDK keeps every attribute set of every instrument in every reader, and before version 1.45.2 never removes it. A
    view is not an alternative, because it would drop attributes for all readers of the provider, and cause a warning
    for each pair of instruments with the same name.

    Since 1.45.2, the SDK merges all attribute sets of an instrument beyond the first 2,000. This class removes that
    limit unless a view sets it, because ``max_metrics`` limits the series that remain after rules have merged attribute
    sets.

    If the SDK lacks the private names that this class relies on, everything is stored, so memory use grows with
    client-controlled attributes, and with the square of the number of reporters on one provider.
    """

    def kept_attributes(self, instrument: Any, name: str) -> Container[str] | None:
        """Return the attribute names to store, or :data:`EVERY_ATTRIBUTE`, or ``None`` to ignore the instrument.

        :param name: name of the instrument's metric, which a view may have changed.
        """
        raise NotImplementedError

    def _set_collect_callback(self, func: Any) -> None:  # type: ignore[misc]  # final in the SDK, and its only hook
        super()._set_collect_callback(func)
        self._select_instruments()

    def forget_measurements(self, *, is_shut_down: bool = False) -> None:
        """Drop the uncollected measurements in a forked child, because the parent exports them.

        Another thread of the parent may have held the SDK's locks during the fork, so this also replaces the consumer's
        lock, and the reader's storage together with its locks.

        A reader whose shutdown has begun leaves its provider, because only the parent can end the shutdown.

        If the SDK lacks the private names that this relies on, the child exports the measurements a second time.
        """
        consumer: Any = consumer_of(self)
        if hasattr(consumer, "add_metric_reader") and hasattr(consumer, "_lock"):
            consumer._lock = threading.Lock()  # noqa: SLF001 - see above
            consumer.add_metric_reader(self)
            self._select_instruments()
            if is_shut_down:
                self._set_collect_callback(None)

    def _select_instruments(self) -> None:
        """Limit the SDK's storage for this reader to what :meth:`kept_attributes` selects."""
        storage = getattr(consumer_of(self), "_reader_storages", {}).get(self)
        find = getattr(storage, "_get_or_init_view_instrument_match", None)
        if storage is None or find is None:
            return
        selected: dict[Any, Sequence[Any]] = {}
        lock = threading.RLock()  # reentrant, because a signal handler may record a measurement

        def find_selected(instrument: Any) -> Sequence[Any]:
            found = selected.get(instrument)
            if found is not None:
                return found
            kept = self.kept_attributes(instrument, instrument.name)
            if kept is None:
                return ()
            with lock:  # several threads may record the first measurement of an instrument at the same time
                if instrument not in selected:
                    matches = find(instrument)
                    for match in matches:
                        name = getattr(match, "_name", instrument.name)
                        _limit(match, kept if name == instrument.name else self.kept_attributes(instrument, name))
                    selected[instrument] = matches
            return selected[instrument]

        storage._get_or_init_view_instrument_match = find_selected  # noqa: SLF001 - see above


def _limit(match: Any, kept: Any) -> None:
    """Limit the storage of an instrument to the ``kept`` attributes, but not the number of attribute sets."""
    match._view = _keeping(match._view, kept)  # noqa: SLF001 - see above
    if getattr(match._view, "_aggregation_cardinality_limit", None) is None:  # noqa: SLF001 - see above
        match._cardinality_limit = math.inf  # noqa: SLF001 - see above


def _keeping(view: Any, kept: Any) -> Any:
    """Return a copy of ``view`` that keeps only the ``kept`` attributes, if the view does not select attributes itself.

    Whatever the view selects, the mark of negative samples is kept: without it, they would count as positive.
    """
    own = getattr(view, "_attribute_keys", None)
    if own is not None:
        kept = {*own, NEGATIVE_KEY} if isinstance(own, Iterable) else own
    elif kept is EVERY_ATTRIBUTE:
        return view
    view = copy.copy(view)
    view._attribute_keys = kept  # noqa: SLF001 - see above
    return view


class FreshScaleHistogramAggregation(ExponentialBucketHistogramAggregation):
    """The SDK's exponential histogram, except that delta collections reset it to the finest scale.

    The SDK widens buckets when values lie far apart, and before 1.45.2 never narrows them again: after one outlier
    (such as 1e9 among values near 1e-9), the buckets of a series would stay 41% wide for the life of the process.

    If the SDK lacks the private names that this class relies on, the buckets stay wide, and a warning is logged once.
    """

    def _create_aggregation(self, *args: Any, **kwargs: Any) -> Any:
        aggregation: Any = super()._create_aggregation(*args, **kwargs)
        missing = [name for name in _NEEDED if not hasattr(aggregation, name)]
        if missing:
            _once.warning(
                "sdk",
                "Unsupported opentelemetry-sdk internals (no %s): after an outlier, percentiles may stay imprecise. "
                "Counts and sums remain exact. Use a release of opentelemetry-sdk that this package is tested with.",
                ", ".join(missing),
            )
        else:
            aggregation.collect = _with_fresh_scale(aggregation, aggregation.collect)
        return aggregation


def _with_fresh_scale(aggregation: Any, collect: Callable[..., Any]) -> Callable[..., Any]:
    def collect_and_reset_scale(*args: Any, **kwargs: Any) -> Any:
        point = collect(*args, **kwargs)
        with aggregation._lock:  # noqa: SLF001 - see above
            # If a sample arrived since the collection, its bucket has the old scale, and resetting the scale is left to
            # the next collection.
            if aggregation._value_positive is None and aggregation._value_negative is None:  # noqa: SLF001 - see above
                aggregation._mapping = aggregation._new_mapping(aggregation._max_scale)  # noqa: SLF001 - see above
        return point

    return collect_and_reset_scale
