"""Record validated ``add_metric`` calls in OpenTelemetry histograms."""

import logging
import re
import weakref
from collections import deque
from collections.abc import Callable, Hashable
from hashlib import blake2s
from typing import Final

from opentelemetry.context import Context, get_current
from opentelemetry.metrics import Histogram, MeterProvider

from otel_cloudwatch_flask.delivery.stats import LossReason
from otel_cloudwatch_flask.facade.call_cache import FacadeSeries
from otel_cloudwatch_flask.mapping.cardinality import OVERFLOW_NAME
from otel_cloudwatch_flask.model.datum import OVERFLOW_DIMENSIONS
from otel_cloudwatch_flask.model.scope import NEGATIVE_KEY, FacadeMetric
from otel_cloudwatch_flask.model.units import UCUM_OF
from otel_cloudwatch_flask.runtime.process import call_after_fork, no_fork
from otel_cloudwatch_flask.runtime.rate_limited_log import RateLimitedLog
from otel_cloudwatch_flask.version import __version__

_each_minute = RateLimitedLog(logging.getLogger(__name__), interval_seconds=60.0)
_once = RateLimitedLog(logging.getLogger(__name__))

# https://opentelemetry.io/docs/specs/otel/metrics/api/#instrument-name-syntax
MAX_INSTRUMENT_NAME_LENGTH: Final = 255
_NOT_IN_INSTRUMENT_NAMES: Final = re.compile(r"[^-_./a-z0-9]+")

_MAX_BUFFERED_MEASUREMENTS: Final = 1000
_NO_CONTEXT: Final = Context({"otel_cloudwatch_flask.context": None})
"""Replaces an empty context, for which OpenTelemetry would substitute the context of the recording thread."""

_claims: "weakref.WeakKeyDictionary[MeterProvider, dict[str, dict[str, tuple[str, str]]]]" = weakref.WeakKeyDictionary()
"""Maps each provider and reporter ID to the metric name and unit of each instrument name.

Entries are not evicted while the provider exists, because the SDK never evicts instruments.
"""


def instrument_name(metric_name: str) -> str:
    """Return a valid instrument name for a CloudWatch metric name. Other exporters show the instrument name.

    >>> instrument_name("Request Count"), instrument_name("2xx")
    ('request_count', 'm_2xx')
    """
    name = _NOT_IN_INSTRUMENT_NAMES.sub("_", metric_name.lower())
    return (name if name[:1].isalpha() else "m_" + name)[:MAX_INSTRUMENT_NAME_LENGTH]


def suffixed_name(name: str, *identity: str, length: int = 6) -> str:
    """Append a hash of ``identity`` to ``name``, truncated if necessary. The hash is the same in every process."""
    suffix = "_" + blake2s("\0".join(identity).encode()).hexdigest()[:length]
    return name[: MAX_INSTRUMENT_NAME_LENGTH - len(suffix)] + suffix


class Recorder:
    """Records the measurements of one reporter to OpenTelemetry. Thread-safe.

    :param lost: called for each measurement that is lost because the SDK raises an error or the recorder is closed.
    :param count: called for each measurement that the SDK accepts.
    :param max_series: maximum number of series. Beyond that, a new series is recorded as the overflow series of its
        metric or, if that metric is also new, as :data:`~otel_cloudwatch_flask.mapping.cardinality.OVERFLOW_NAME`.
    """

    def __init__(
        self,
        provider: MeterProvider,
        reporter_id: str,
        lost: Callable[[LossReason], None],
        *,
        count: Callable[[], object] | None = None,
        max_series: int = 10_000,
    ) -> None:
        self._provider = provider
        self._reporter_id = reporter_id
        self._lost = lost
        self._count = count or (lambda: None)
        self._max_series = max_series
        self._series: set[Hashable] = set()
        # Never evicted, because the SDK also keeps instruments for the life of the provider.
        self._histograms: dict[tuple[str, str], Histogram] = {}
        self._claims = _claims.setdefault(provider, {}).setdefault(reporter_id, {})
        self._is_closed = False
        self._start()
        call_after_fork(self._start)

    def _start(self) -> None:
        """Create the state that a forked child must not share with its parent."""
        self.process = object()

    def close(self) -> None:
        """Stop recording. From now on, measurements count as lost, because no reader will publish them."""
        self._is_closed = True

    def record(self, series: FacadeSeries, value: float, context: Context | None = None) -> None:
        """Record a finite value in ``context`` (default: the current context). If this fails, the value is lost."""
        if self._is_closed:
            self._lost(LossReason.SHUTDOWN)
            return
        try:
            histogram = series.histogram or self._resolved(series)
            # OpenTelemetry's histograms drop negative values, so these are recorded with a marker attribute.
            if value < 0:
                histogram.record(-value, {**series.attributes, NEGATIVE_KEY: True}, context)
            else:
                histogram.record(value, series.attributes, context)
            self._count()
        except Exception:  # noqa: BLE001  # the boundary to the SDK, whose record() raises for some finite numbers
            self._lost(LossReason.INVALID)
            _each_minute.warning(
                series.metric_name,
                "Lost a measurement of %s (counted as invalid): OpenTelemetry did not accept %r. Fix the problem that "
                "the traceback shows.",
                series.metric_name,
                value,
                exc_info=True,
            )

    def _resolved(self, series: FacadeSeries) -> Histogram:
        """Set the attributes and the histogram of a new series. Returns the histogram."""
        key = (series.metric_name, series.unit)
        attributes = series.attributes
        if not self.admit((key, frozenset(attributes.items()))):
            attributes = dict(OVERFLOW_DIMENSIONS)
            key = self._overflow_key(*key)
        histogram = self._histograms.get(key) or self._created(key)
        series.attributes = attributes
        series.histogram = histogram  # last, because other threads use the series as soon as it has one
        return histogram

    def admit(self, series: Hashable) -> bool:
        """Return whether ``series`` is within the limit, and count it if it is new.

        Known series are never forgotten, because the SDK does not evict series either.
        """
        if series not in self._series:
            if len(self._series) >= self._max_series:
                return False
            self._series.add(series)
        return True

    def _overflow_key(self, metric_name: str, unit: str) -> tuple[str, str]:
        """Return the name and unit of the metric that receives the measurements of a series beyond the limit."""
        if (metric_name, unit) in self._histograms:
            _once.warning(
                metric_name,
                "add_metric has reached its limit of %d dimension combinations: new combinations of %s are recorded as "
                "that metric's overflow series (otel.metric.overflow=true). Remove IDs and other variable parts from "
                "dimensions, or raise max_metrics.",
                self._max_series,
                metric_name,
            )
            return metric_name, unit
        _once.warning(
            OVERFLOW_NAME,
            "add_metric has reached its limit of %d dimension combinations: %s and other new metrics are recorded "
            "together as the metric otel.metric.overflow. Remove IDs and other variable parts from metric names and "
            "dimensions, or raise max_metrics.",
            self._max_series,
            metric_name,
        )
        return OVERFLOW_NAME, unit

    def _created(self, key: tuple[str, str]) -> Histogram:
        """Return the histogram for a name and unit, creating it unless another thread already has."""
        # Delays forks, because the child would inherit the lock that the SDK holds while it creates an instrument.
        with no_fork("new metric"):
            if key not in self._histograms:
                metric = FacadeMetric(key[0], self._reporter_id)
                meter = self._provider.get_meter(metric.scope_name, __version__, attributes=metric.scope_attributes())
                self._histograms[key] = meter.create_histogram(self._claim_name(*key), unit=UCUM_OF[key[1]])
            return self._histograms[key]

    def _claim_name(self, metric_name: str, unit: str) -> str:
        """Choose an instrument name that no other metric of this reporter uses."""
        name = plain_name = instrument_name(metric_name)
        length = 6
        while self._claims.setdefault(name, (metric_name, unit)) != (metric_name, unit):
            name = suffixed_name(plain_name, metric_name, unit, length=length)
            length += 1
        return name


class RequestBuffer:
    """The buffered measurements of one request, which are recorded in order, exactly once, when its response starts.

    A measurement is recorded in the OpenTelemetry context in which it was added, because exemplars refer to that
    context. A full buffer is recorded early. Measurements added after :meth:`end`, by a streamed body or by a thread
    that outlives the request, are recorded immediately. A forked child leaves the buffered measurements to its parent,
    and records new ones immediately.
    """

    __slots__ = ("_has_ended", "_measurements", "_process", "_recorder")

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._measurements: deque[tuple[FacadeSeries, float, Context]] = deque()
        self._has_ended = False
        self._process = recorder.process

    def add(self, series: FacadeSeries, value: float) -> None:
        """Buffer a measurement until :meth:`end` is called.

        If :meth:`end` has already been called, or in a forked child, record the measurement immediately.
        """
        if self._process is not self._recorder.process:
            self._recorder.record(series, value)
            return
        self._measurements.append((series, value, get_current() or _NO_CONTEXT))
        # Checked after appending, because another thread may have called end() just before.
        if self._has_ended or len(self._measurements) >= _MAX_BUFFERED_MEASUREMENTS:
            self.drain()

    def end(self) -> None:
        """Record the buffered measurements. Later ones are recorded immediately."""
        self._has_ended = True
        if self._measurements:
            self.drain()

    def drain(self) -> None:
        """Record the measurements buffered so far. Does nothing in a forked child, because they are the parent's."""
        if self._process is not self._recorder.process:
            return
        measurements, record = self._measurements, self._recorder.record
        while measurements:
            try:
                series, value, context = measurements.popleft()
            except IndexError:  # another thread has taken the last measurement
                return
            record(series, value, context)
