"""The registration of a reporter on one app: the recorder, the flush policy and the handling of invalid metrics."""

import logging
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, TypeAlias

from otel_cloudwatch_flask.config import FlushPolicy, Settings
from otel_cloudwatch_flask.delivery.stats import DeliveryStats, LossReason
from otel_cloudwatch_flask.errors import InvalidMetricError
from otel_cloudwatch_flask.facade.arguments import parse_arguments
from otel_cloudwatch_flask.facade.call_cache import FacadeSeries, Measurement
from otel_cloudwatch_flask.facade.recorder import Recorder
from otel_cloudwatch_flask.flask_extension.provider_setup import ProviderSetup
from otel_cloudwatch_flask.model.dimension_arguments import Dimensions
from otel_cloudwatch_flask.runtime.rate_limited_log import RateLimitedLog
from otel_cloudwatch_flask.sdk.exporter import CloudWatchMetricExporter
from otel_cloudwatch_flask.sdk.reader import CloudWatchMetricReader

_logger = logging.getLogger(__name__)
_once = RateLimitedLog(_logger)

IsStrict: TypeAlias = Callable[[], bool]

_PACKAGE: Final = __name__.partition(".")[0]
SYNC_FLUSH_TIMEOUT_SECONDS: Final = 10.0
SERIES_PER_METRIC: Final = 10
"""How many series ``add_metric`` may record for each of ``max_metrics``. Rules may merge several series into one."""


class Registration:
    """The registration of a reporter on one app.

    ``is_strict`` is called for each invalid metric, because apps may set ``testing`` after ``init_app``.
    """

    def __init__(
        self, setup: ProviderSetup, recorder: Recorder, settings: Settings, app_name: str, is_strict: IsStrict
    ) -> None:
        self.setup = setup
        self.recorder = recorder
        self.settings = settings
        self.is_live = True
        self.cached_measurement = recorder.call_cache.measurement
        self._app_name = app_name
        self._is_strict = is_strict
        self.flush_after_request = _flush_after_request(setup.reader, settings.flush)

    @classmethod
    def first(cls, setup: ProviderSetup, settings: Settings, app_name: str, is_strict: IsStrict) -> "Registration":
        """Create the registration of the first app with these settings."""
        recorder = Recorder(
            setup.provider,
            setup.reporter_id,
            settings.default_dimensions,
            partial(_count_as_lost, setup),
            count=setup.reader.count_measurement if setup.reader else None,
            max_series=SERIES_PER_METRIC * settings.max_metrics,
        )
        return cls(setup, recorder, settings, app_name, is_strict)

    def can_serve(self, settings: Settings, app_name: str) -> bool:
        """Return whether an app with these settings can share this registration.

        Without a namespace, the app's name has to be the same, because it becomes the default namespace.
        """
        return self.is_live and self.settings == settings and (bool(settings.namespace) or self._app_name == app_name)

    def for_another_app(self, is_strict: IsStrict) -> "Registration":
        """Return a registration for another app, which differs from this one only in ``is_strict``."""
        return Registration(self.setup, self.recorder, self.settings, self._app_name, is_strict)

    @property
    def exporter(self) -> CloudWatchMetricExporter | None:
        """The exporter that publishes the metrics, or ``None`` if the setting ``enabled`` is off."""
        return self.setup.reader.exporter if self.setup.reader else None

    def checked_measurement(
        self, metric_name: object, value: object, unit: object, dimensions: Dimensions
    ) -> Measurement | None:
        """Validate an ``add_metric`` call, and return its series and value.

        An invalid call raises if the reporter is strict. Otherwise, it is counted as lost, and ``None`` is returned.
        """
        try:
            arguments = parse_arguments(metric_name, value, unit, dimensions)
        except Exception as error:  # the boundary to the methods of objects that the caller passed
            if self._is_strict():
                raise
            _count_as_lost(self.setup, LossReason.INVALID)
            _log_bad_call(error)
            return None
        series = FacadeSeries(arguments.metric_name, arguments.unit, arguments.dimensions)
        self.recorder.call_cache.add(metric_name, unit, dimensions, series)
        return series, arguments.value


def _log_bad_call(error: Exception) -> None:
    site = _call_site()
    if isinstance(error, InvalidMetricError):
        _once.warning(site, "Lost a metric: %s. It is counted as invalid; logged once for %s, line %d.", error, *site)
    else:
        _once.log(
            logging.WARNING,
            site,
            "Lost a metric: its arguments could not be read. It is counted as invalid. Pass plain strings and numbers "
            "to add_metric.",
            exc_info=True,
        )


def _no_flush() -> None:
    """Do nothing when a request ends, because the reader flushes on its interval, or there is no reader."""


def _flush_after_request(reader: CloudWatchMetricReader | None, policy: FlushPolicy) -> Callable[[], object]:
    """Return the function to call at the end of a request."""
    if reader is None or policy == "interval":
        return _no_flush
    if policy == "background":
        return reader.request_flush
    return partial(reader.flush, timeout_seconds=SYNC_FLUSH_TIMEOUT_SECONDS)


def _count_as_lost(setup: ProviderSetup, reason: LossReason) -> None:
    if setup.reader:
        setup.reader.exporter.stats_recorder.lost_measurement(reason)


def flush_all(registrations: Iterable[Registration], deadline: float) -> bool:
    """Flush each reader once, by ``deadline`` on the monotonic clock, and return whether everything was delivered.

    Returns ``False`` if all registrations are shut down.
    """
    every = list(registrations)
    readers = {each.setup.reader for each in every if each.setup.reader}
    flushed = [reader.flush(timeout_seconds=seconds_until(deadline)) for reader in readers]
    return all(flushed) and (not every or any(each.is_live for each in every))


def shut_down_all(registrations: Iterable[Registration], deadline: float) -> None:
    """Flush all readers. Then shut down and remove those that the reporter created."""
    every = list(registrations)
    flush_all((each for each in every if not each.setup.owns_reader), deadline)
    for each in every:
        each.is_live = False
        # Later measurements are lost only here: a reader of the program continues to publish them.
        if each.setup.owns_reader:
            each.recorder.close()
        each.setup.undo(seconds_until(deadline))


def seconds_until(deadline: float) -> float:
    """Return the seconds until ``deadline`` on the monotonic clock, at least 0."""
    return max(0.0, deadline - time.monotonic())


def total_stats(registrations: Iterable[Registration]) -> DeliveryStats:
    """Add up the statistics of the registrations' exporters, each of which counts once."""
    return DeliveryStats.total(exporter.stats() for exporter in {each.exporter for each in registrations} if exporter)


def _call_site() -> tuple[str, int]:
    """Return the file and the line of the innermost caller outside this package."""
    frame = sys._getframe(1)  # noqa: SLF001  # as in the standard library's logging
    while frame.f_back and str(frame.f_globals.get("__name__")).partition(".")[0] == _PACKAGE:
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno
