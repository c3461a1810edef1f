"""The registration of a reporter on one app: the recorder, the flush policy and the handling of invalid metrics."""

import logging
import sys
from collections.abc import Callable, Collection
from typing import Any, Final, TypeAlias

from otel_cloudwatch_flask.config import Settings
from otel_cloudwatch_flask.delivery.stats import LossReason
from otel_cloudwatch_flask.errors import InvalidMetricError
from otel_cloudwatch_flask.facade.arguments import parse_arguments
from otel_cloudwatch_flask.facade.call_cache import CallCache, Measurement
from otel_cloudwatch_flask.facade.wsgi import remaining_seconds
from otel_cloudwatch_flask.flask_extension.provider_setup import ProviderSetup, count_as_lost
from otel_cloudwatch_flask.model.dimension_arguments import Dimensions
from otel_cloudwatch_flask.runtime.rate_limited_log import RateLimitedLog
from otel_cloudwatch_flask.sdk.exporter import CloudWatchMetricExporter, seconds_until
from otel_cloudwatch_flask.sdk.reader import CloudWatchMetricReader

_once = RateLimitedLog(logging.getLogger(__name__))

Environ: TypeAlias = dict[str, Any]
"""The WSGI environment of a request."""

_PACKAGE: Final = __name__.partition(".")[0]


class Registration:
    """The registration of a reporter on one app.

    ``is_strict`` is called for each invalid metric, because apps may set ``testing`` after ``init_app``.
    """

    def __init__(self, setup: ProviderSetup, settings: Settings, is_strict: Callable[[], bool]) -> None:
        self.setup = setup
        self.recorder = setup.recorder
        self.settings = settings
        self.is_live = True
        self._call_cache = CallCache()
        self.cached_measurement = self._call_cache.measurement
        self._is_strict = is_strict
        self.flush_after_request = _flush_after_request(setup.reader, settings)

    @property
    def exporter(self) -> CloudWatchMetricExporter | None:
        """The exporter that publishes the metrics, or ``None`` if the setting ``enabled`` is off."""
        return self.setup.reader.exporter if self.setup.reader else None

    def checked_measurement(
        self, metric_name: object, value: object, unit: object, dimensions: Dimensions
    ) -> Measurement | None:
        """Validate an ``add_metric`` call, and return its series and value.

        For an invalid call, raises :class:`InvalidMetricError` if the reporter is strict. Otherwise, logs the error,
        counts the call as lost, and returns ``None``.
        """
        try:
            measurement = parse_arguments(metric_name, value, unit, dimensions, self.settings.default_dimensions)
        except InvalidMetricError as error:
            if self._is_strict():
                raise
            count_as_lost(self.setup.reader, LossReason.INVALID)
            site = _call_site()
            _once.warning(site, "Lost a metric (counted as invalid): %s (Logged once for %s, line %d.)", error, *site)
            return None
        series, _ = measurement
        self._call_cache.add(metric_name, unit, dimensions, series)
        return measurement


def _flush_after_request(reader: CloudWatchMetricReader | None, settings: Settings) -> Callable[[Environ], object]:
    """Return the function to call at the end of a request."""
    if reader is None or settings.flush == "interval":
        return lambda _: None
    if settings.flush == "background":
        return lambda _: reader.request_flush()
    return lambda environ: reader.flush(min(settings.sync_timeout_seconds, remaining_seconds(environ)))


def flush_all(registrations: Collection[Registration], deadline: float) -> bool:
    """Flush each reader once, by ``deadline`` on the monotonic clock, and return whether everything was delivered.

    Returns ``False`` if all registrations are shut down.
    """
    readers = {each.setup.reader for each in registrations if each.setup.reader}
    flushed = [reader.flush(timeout_seconds=seconds_until(deadline)) for reader in readers]
    return all(flushed) and any(each.is_live for each in registrations)


def shut_down_all(
    registrations: Collection[Registration], deadline: float, *, shared: Collection[ProviderSetup]
) -> None:
    """Flush all readers. Then shut down and remove the reporters' own readers, unless other registrations use them.

    ``shared`` contains the setups that other registrations use.
    """
    ending = {each.setup for each in registrations if each.setup.owns_reader and each.setup not in shared}
    flush_all([each for each in registrations if each.setup not in ending], deadline)
    for each in registrations:
        each.is_live = False
    # Only these setups lose later measurements, because all other readers keep running.
    for setup in ending:
        setup.shut_down(deadline)


def _call_site() -> tuple[str, int]:
    """Return the file and the line of the innermost caller outside this package."""
    frame = sys._getframe(1)  # noqa: SLF001  # as in the standard library's logging
    while frame.f_back and str(frame.f_globals.get("__name__")).partition(".")[0] == _PACKAGE:
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno
