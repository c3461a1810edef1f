"""Facade entries become measurements of OpenTelemetry histograms. Knows the SDK's meters, and no Flask."""

import logging
import re
import threading
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from hashlib import blake2s
from typing import Final

from opentelemetry.context import Context
from opentelemetry.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics import MeterProvider as SdkMeterProvider

from otel_cloudwatch_flask.cardinality import OVERFLOW_NAME
from otel_cloudwatch_flask.datum import OVERFLOW_DIMENSIONS
from otel_cloudwatch_flask.deferral import MOST_MEASUREMENTS_OF_A_REQUEST, Deferral
from otel_cloudwatch_flask.facade_scope import NEGATIVE_KEY, FacadeMetric
from otel_cloudwatch_flask.known_series import FacadeSeries, KnownSeries, Measurement
from otel_cloudwatch_flask.ledger import LossReason
from otel_cloudwatch_flask.process_lifecycle import call_after_fork
from otel_cloudwatch_flask.quiet_log import QuietLog
from otel_cloudwatch_flask.units import to_ucum
from otel_cloudwatch_flask.version import __version__

_quiet_log = QuietLog(logging.getLogger(__name__), interval_seconds=60.0)
_once = QuietLog(logging.getLogger(__name__))

# https://opentelemetry.io/docs/specs/otel/metrics/api/#instrument-name-syntax
MAX_INSTRUMENT_NAME_LENGTH: Final = 255
_NOT_IN_INSTRUMENT_NAMES: Final = re.compile(r"[^-_./a-z0-9]+")

_MAX_BUFFERED_ENTRIES: Final = 1000

DEFAULT_MAX_SERIES: Final = 10_000


def instrument_name(metric_name: str) -> str:
    """The valid instrument name that resembles a CloudWatch name most; other exporters show it.

    >>> instrument_name("Request Count"), instrument_name("2xx")
    ('request_count', 'm_2xx')
    """
    name = _NOT_IN_INSTRUMENT_NAMES.sub("_", metric_name.lower())
    return (name if name[:1].isalpha() else "m_" + name)[:MAX_INSTRUMENT_NAME_LENGTH]


def suffixed_name(name: str, *identity: str, length: int = 6) -> str:
    """The name with an ending that belongs to the identity: the same in every process."""
    ending = "_" + blake2s("\0".join(identity).encode()).hexdigest()[:length]
    return name[: MAX_INSTRUMENT_NAME_LENGTH - len(ending)] + ending


class Recorder:
    """Record the entries of one reporter and app; safe to use from several threads.

    ``lost`` is called for each entry that the SDK does not take. Nothing is raised. Beyond ``max_series`` different
    sets of dimensions, new ones are recorded as their metric's overflow series, and new names as that of
    :data:`~otel_cloudwatch_flask.cardinality.OVERFLOW_NAME`.
    """

    def __init__(
        self,
        provider: MeterProvider,
        reporter_id: str,
        default_dimensions: Mapping[str, str],
        lost: Callable[[LossReason], None],
        *,
        max_series: int = DEFAULT_MAX_SERIES,
    ) -> None:
        self._provider = provider
        self._reporter_id = reporter_id
        self._default_dimensions = dict(default_dimensions)
        self._lost = lost
        self._max_series = max_series
        self._series: set[Hashable] = set()
        # The SDK keeps these, too, for ever.
        self._histograms: dict[tuple[str, str], Histogram] = {}
        self._claimed_names: set[str] = set()
        self._is_closed = False
        self.known_series = KnownSeries()
        # Of other providers it is not known when somebody collects from them.
        self._deferral = Deferral(provider, self._record_all) if isinstance(provider, SdkMeterProvider) else None
        self._begin()
        call_after_fork(self._begin)

    def close(self) -> None:
        """Count what still comes as lost: nobody publishes it any more."""
        self.catch_up()
        self._is_closed = True

    def defer(self, measurements: deque[Measurement]) -> None:
        """Take these out and record them, soon: before anybody collects from the provider."""
        if self._deferral is None or len(measurements) > MOST_MEASUREMENTS_OF_A_REQUEST:
            self._record_all(measurements)
        else:
            self._deferral.add(measurements)

    def catch_up(self) -> None:
        """Record now what was deferred."""
        if self._deferral is not None:
            self._deferral.catch_up()

    def record(self, series: FacadeSeries, value: float, context: Context | None = None) -> None:
        """Record one finite number, or count it as lost."""
        if self._is_closed:
            self._lost(LossReason.SHUTDOWN)
            return
        try:
            histogram = series.histogram or self._resolved(series)
            if value < 0:
                histogram.record(-value, {**series.attributes, NEGATIVE_KEY: True}, context)
            else:
                histogram.record(value, series.attributes, context)
        except Exception:  # noqa: BLE001  # the boundary to the SDK, whose record() raises for some finite numbers
            self._not_taken(series, value)

    def _record_all(self, measurements: deque[Measurement], context: Context | None = None) -> None:
        """Take out and record one after the other, most of them without another call for each."""
        while measurements:
            try:
                series, value = measurements.popleft()
            except IndexError:  # another thread was faster
                return
            histogram = series.histogram
            if histogram is None or value < 0 or self._is_closed:
                self.record(series, value, context)
                continue
            try:
                histogram.record(value, series.attributes, context)
            except Exception:  # noqa: BLE001  # as above
                self._not_taken(series, value)

    def _not_taken(self, series: FacadeSeries, value: float) -> None:
        self._lost(LossReason.INVALID)
        _quiet_log.log(
            logging.WARNING,
            series.metric_name,
            "OpenTelemetry did not take %r of %s; it is counted as invalid",
            value,
            series,
            exc_info=True,
        )

    def _begin(self) -> None:
        """Make what belongs to one process."""
        self._creation_lock = threading.Lock()
        self.process = object()

    def _resolved(self, series: FacadeSeries) -> Histogram:
        """The histogram of a series that comes for the first time, which knows it and its attributes from now on."""
        key = (series.metric_name, series.unit)
        attributes: dict[str, str | bool] = {**self._default_dimensions, **series.dimensions}
        if not self._has_place((key, frozenset(attributes.items()))):
            attributes = dict(OVERFLOW_DIMENSIONS)
            key = self._overflow_key(*key)
        histogram = self._histograms.get(key) or self._created(key)
        series.attributes = attributes
        series.histogram = histogram  # the last, because with it the series is ready for other threads
        return histogram

    def _has_place(self, series: Hashable) -> bool:
        """Whether the SDK knows this series already, or may learn it: it never forgets one."""
        if series not in self._series:
            if len(self._series) >= self._max_series:
                return False
            self._series.add(series)
        return True

    def _overflow_key(self, metric_name: str, unit: str) -> tuple[str, str]:
        """What a set of dimensions without a place is recorded as the overflow series of."""
        if (metric_name, unit) in self._histograms:
            _once.warning(
                metric_name,
                "add_metric was given %d sets of dimensions: further ones of %s are recorded as its overflow series "
                "(otel.metric.overflow=true). Leave a dimension out, or raise max_metrics.",
                self._max_series,
                metric_name,
            )
            return metric_name, unit
        _once.warning(
            "names",
            "add_metric was given %d sets of dimensions: %s and whatever other names are new are recorded together, as "
            "otel.metric.overflow. Put what clients send into dimensions and not into names, or raise max_metrics.",
            self._max_series,
            metric_name,
        )
        return OVERFLOW_NAME, unit

    def _created(self, key: tuple[str, str]) -> Histogram:
        """The histogram of a name and unit that come for the first time."""
        with self._creation_lock:
            if key not in self._histograms:
                self._histograms[key] = self._create(*key)
            return self._histograms[key]

    def _create(self, metric_name: str, unit: str) -> Histogram:
        metric = FacadeMetric(metric_name, self._reporter_id)
        meter = self._provider.get_meter(metric.scope_name, __version__, attributes=metric.scope_attributes())
        return meter.create_histogram(self._claim_name(metric_name, unit), unit=to_ucum(unit))

    def _claim_name(self, metric_name: str, unit: str) -> str:
        """An instrument name that no other name or unit of this reporter has."""
        name = plain_name = instrument_name(metric_name)
        length = 6
        while name in self._claimed_names:
            name = suffixed_name(plain_name, metric_name, unit, length=length)
            length += 1
        self._claimed_names.add(name)
        return name


class RequestBuffer:
    """The measurements of one request, handed over at its end: in order, each once, whoever ends it and how often.

    After the end, what still comes (from a streamed body, or a thread that outlives the request) is handed over at
    once. What comes in a forked child is recorded: what is in its copy, and the request's end, are the parent's.
    """

    __slots__ = ("_has_ended", "_measurements", "_process", "recorder")

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._measurements: deque[Measurement] = deque()
        self._has_ended = False
        self._process = recorder.process

    def add(self, measurement: Measurement) -> None:
        """Keep one measurement for the end of the request."""
        if self._process is not self.recorder.process:
            self.recorder.record(*measurement)
            return
        if self._has_ended:
            self.recorder.defer(deque((measurement,)))  # with a context of its own
            return
        self._measurements.append(measurement)
        # Asked again after appending, so that what comes while the request ends is handed over by one of the two.
        if len(self._measurements) >= _MAX_BUFFERED_ENTRIES or self.has_ended:
            self.drain()

    @property
    def has_ended(self) -> bool:
        """Whether nothing is kept any more."""
        return self._has_ended

    def end(self) -> None:
        """Let what was kept be recorded, and keep nothing from now on."""
        self._has_ended = True
        if self._measurements:
            self.drain()

    def drain(self) -> None:
        """Let what was kept so far be recorded."""
        if self._process is not self.recorder.process:
            return
        if self._measurements:
            self.recorder.defer(self._measurements)
