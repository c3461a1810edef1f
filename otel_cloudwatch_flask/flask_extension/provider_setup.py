"""Find or create the meter provider that a reporter records to, and the reader that publishes its metrics.

A reader that no reporter created is called the program's reader.
"""

import itertools
import weakref
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any, Final, cast

from opentelemetry import metrics
from opentelemetry.context import Context
from opentelemetry.metrics import Histogram, Meter, NoOpMeter, NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.util.types import Attributes

from otel_cloudwatch_flask.config import KEYS, Settings
from otel_cloudwatch_flask.delivery.boto_client import Client, client_factory
from otel_cloudwatch_flask.delivery.stats import DeliveryStats, LossReason
from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.facade.recorder import Recorder
from otel_cloudwatch_flask.facade.wsgi import request_labels
from otel_cloudwatch_flask.flask_extension.reporter_reader import ReporterReader, default_namespace
from otel_cloudwatch_flask.model.datum import OVERFLOW_DIMENSIONS
from otel_cloudwatch_flask.model.scope import REPORTER_KEY, SCOPE_NAME, ScopeName
from otel_cloudwatch_flask.runtime.live_objects import LiveObjects
from otel_cloudwatch_flask.runtime.process import no_fork
from otel_cloudwatch_flask.runtime.safe_text import safe_repr
from otel_cloudwatch_flask.sdk.exporter import CloudWatchMetricExporter, live_exporters, seconds_until
from otel_cloudwatch_flask.sdk.reader import NO_THREAD, CloudWatchMetricReader, readers_on, start_thread
from otel_cloudwatch_flask.sdk.self_metrics import observe_delivery

SERIES_PER_METRIC: Final = 10
"""The series limit of ``add_metric``, as a multiple of ``max_metrics``. Rules may merge several series into one."""

SETTINGS_OF_FACADE: Final = {
    *("flush", "sync_timeout_seconds", "default_dimensions", "strict", "enabled", "self_metrics"),
    *("live_page", "live_page_path", "live_page_check"),
}
SETTINGS_OF_READER: Final = [key.field for key in KEYS if key.field not in SETTINGS_OF_FACADE]
"""The settings of a reader. All must be equal for reporters to share a reader that one of them created."""


@dataclass(frozen=True, slots=True)
class Target:
    """The destination of the metrics that a reporter records for one app.

    ``given`` contains the names of the settings that an argument or ``app.config``, not the environment, provides.
    """

    settings: Settings
    app_name: str
    client: Client | None
    credentials: Mapping[str, str] = field(repr=False)
    given: Collection[str]

    def agrees_with(self, reader: CloudWatchMetricReader) -> bool:
        """Return whether the program's ``reader`` has the client, the stream and each setting given to the reporter.

        Returns ``False`` if the reporter was given credentials.
        """
        exporter, settings = reader.exporter, reader.settings
        chooses_client = self.client is not None or "region_name" in self.given
        return (
            not self.credentials
            and (exporter.client is self.client or not chooses_client)
            and self.settings.stream in (None, exporter.settings.stream)
            and all(
                getattr(settings, each) == getattr(self.settings, each)
                for each in SETTINGS_OF_READER
                if each in self.given
            )
        )

    def key(self) -> Hashable:
        """Return a key that is equal for targets that can share a reader created by a reporter."""
        settings = self.settings
        return (
            id(self.client),
            id(settings.stream),
            tuple(sorted(self.credentials.items())),
            None if settings.namespace else self.app_name,
            settings.enabled,
            settings.self_metrics,
            *(getattr(settings, field) for field in SETTINGS_OF_READER),
        )


class ProviderSetup:
    """The recorder and the reader that registrations with the same destination share on a meter provider.

    ``reader`` is ``None`` if the setting ``enabled`` is off. A reader that a reporter created is abandoned once no
    registration refers to the setup.
    """

    def __init__(
        self,
        provider: metrics.MeterProvider,
        reader: CloudWatchMetricReader | None,
        reporter_id: str,
        key: Hashable,
        max_metrics: int,
    ) -> None:
        self.provider = provider
        self.reporter_id = reporter_id
        self.reader = reader
        self.key = key
        self.recorder = Recorder(
            provider,
            reporter_id,
            partial(count_as_lost, reader),
            count=reader.count_measurement if reader else None,
            max_series=SERIES_PER_METRIC * max_metrics,
        )
        if reader:
            reader.exporter.reporters.add(reporter_id)
        if isinstance(reader, ReporterReader):
            weakref.finalize(self, reader.abandon).atexit = False

    @property
    def owns_reader(self) -> bool:
        """Whether a reporter, not the program, created the reader."""
        return isinstance(self.reader, ReporterReader)

    @property
    def meters(self) -> metrics.MeterProvider:
        """The meter provider for the app's instrumentations. The reporter's exporter publishes their metrics."""
        return _ReporterMeters(self.provider, self.reporter_id, self.recorder)

    def shut_down(self, deadline: float) -> None:
        """Shut down the reader and remove it from the provider, but only if a reporter created it.

        If removing it takes longer than until ``deadline``, because a callback is slow, that continues in a thread.
        """
        if isinstance(self.reader, ReporterReader):
            _live_setups.discard(self)
            self.recorder.close()
            # Shut down first, because a reader that was removed from its provider cannot collect.
            self.reader.shutdown(timeout_millis=seconds_until(deadline) * 1000)
            removal = start_thread(self.reader.remove, "CloudWatchMetricReader removal")
            if removal is NO_THREAD:
                self.reader.remove()
            else:
                removal.join(seconds_until(deadline))


def count_as_lost(reader: CloudWatchMetricReader | None, reason: LossReason) -> None:
    """Count a measurement as lost. Does nothing if there is no reader."""
    if reader:
        reader.exporter.stats_recorder.lost_measurements(reason)


class _ReporterMeters(metrics.MeterProvider):
    """A meter provider whose meters have a scope attribute that identifies the reporter.

    Two apps in a process may have different namespaces. Every exporter on the provider receives the measurements
    of these meters, but only the reporter's exporter publishes them to CloudWatch.
    """

    def __init__(self, provider: metrics.MeterProvider, reporter_id: str, recorder: Recorder) -> None:
        self._provider = provider
        self._reporter_id = reporter_id
        self._recorder = recorder

    def get_meter(
        self,
        name: str,
        version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes | None = None,
    ) -> Meter:
        """Return the provider's meter for the scope, with the reporter's ID as an additional scope attribute."""
        marked: dict[str, object] = {**(attributes or {}), REPORTER_KEY: self._reporter_id}
        meter = self._provider.get_meter(ScopeName(name, self._reporter_id), version, schema_url, marked)  # type: ignore[arg-type]
        return cast("Meter", _LabellingMeter(meter, self._recorder))


class _LabellingMeter:
    """A meter whose histograms add the current request's labels to each measurement.

    The labels come from ``CloudWatchMetricsReporter.label``. If there are too many distinct sets of labels, further
    sets are replaced by the overflow dimension.
    """

    def __init__(self, meter: Meter, recorder: Recorder) -> None:
        self._meter = meter
        self._recorder = recorder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._meter, name)

    def create_histogram(self, *args: Any, **kwargs: Any) -> object:
        """Create a histogram, and return an object whose ``record`` method adds the labels."""
        return SimpleNamespace(record=partial(self._record, self._meter.create_histogram(*args, **kwargs)))

    def _record(
        self, histogram: Histogram, amount: float, attributes: Attributes = None, context: Context | None = None
    ) -> None:
        labels = request_labels()
        if labels and not self._recorder.admit(frozenset(labels.items())):
            labels = dict(OVERFLOW_DIMENSIONS)
        histogram.record(amount, {**(attributes or {}), **labels}, context)


def set_up_provider(given: metrics.MeterProvider | None, target: Target) -> ProviderSetup:
    """Find or create the provider and the reader. The default is the global provider, which is created if none is set.

    The reporter shares the first of the program's readers that agrees with its settings. Otherwise, it shares the setup
    of a reporter with an equal target, or gets a new reader. A reader that a reporter created leaves plain metrics
    (those that belong to no reporter) to the program's exporters, if there are any.

    Raises :class:`ConfigurationError` if the provider does not accept readers or is shut down, or if the default
    namespace is invalid.
    """
    with no_fork("set-up"):
        # Inside the block, because another thread may be creating the global provider.
        provider = metrics.get_meter_provider() if given is None else given
        reader = _shared_reader(provider, target)
        key: Hashable = target.key() if reader is None else (reader, target.settings.self_metrics)
        for each in _live_setups:
            if each.provider is provider and each.key == key:
                return each
        reporter_id = _reporter_id(reader, target)
        if reader is None and target.settings.enabled:
            provider, reader = _provider_with_new_reader(given, provider, target)
        setup = ProviderSetup(provider, reader, reporter_id, key, target.settings.max_metrics)
        _live_setups.add(setup)
    if target.settings.self_metrics and setup.reader:
        observe_delivery(setup.meters, partial(_stats_of, setup.reporter_id))
    return setup


_live_setups: LiveObjects[ProviderSetup] = LiveObjects()


def live_reporter_readers() -> set[CloudWatchMetricReader]:
    """Return the readers that publish the metrics of this process's reporters."""
    return {each.reader for each in _live_setups if each.reader}


def _stats_of(reporter_id: str) -> list[DeliveryStats]:
    """Return the statistics of the reporter that currently has this ID, or an empty list if there is no such reporter.

    The SDK never removes observable instruments, so a later reporter with the same ID reuses them.
    """
    setups = [each for each in _live_setups if each.reporter_id == reporter_id]
    return [each.reader.exporter.stats() for each in setups if each.reader]


def _shared_reader(provider: metrics.MeterProvider, target: Target) -> CloudWatchMetricReader | None:
    """Return the first of the program's readers on ``provider`` that agrees with ``target``.

    Raises :class:`ConfigurationError` if the provider is shut down.
    """
    if not isinstance(provider, MeterProvider) or not target.settings.enabled:
        return None
    # Only a provider that is shut down returns a NoOpMeter here. The meter of a running provider has no instruments, so
    # nothing is exported for it.
    if isinstance(provider.get_meter(SCOPE_NAME), NoOpMeter):
        raise ConfigurationError(
            f"meter_provider={provider!r} is shut down; use one that is running.",
            key="meter_provider",
            value=provider,
        )
    of_program = (each for each in readers_on(provider) if not isinstance(each, ReporterReader))
    return next(filter(target.agrees_with, of_program), None)


def _reporter_id(shared_reader: CloudWatchMetricReader | None, target: Target) -> str:
    """Return an ID for a new reporter: the namespace, with a suffix such as ``#2`` if it is taken.

    IDs that are no longer in use are reused, even that of a reporter whose metrics the ``shared_reader`` still
    publishes. Otherwise, meters would accumulate, because the SDK keeps the meters of each ID for the life of the
    provider.
    """
    taken = {each.reporter_id for each in _live_setups}
    for former in shared_reader.exporter.reporters if shared_reader else ():
        if former not in taken:
            return former
    taken.update(*(each.reporters for each in live_exporters()))
    namespace = target.settings.namespace or target.app_name
    names = itertools.chain([namespace], (f"{namespace}#{number}" for number in itertools.count(2)))
    return next(name for name in names if name not in taken)


def _provider_with_new_reader(
    given: metrics.MeterProvider | None, provider: metrics.MeterProvider, target: Target
) -> tuple[MeterProvider, ReporterReader]:
    """Add a reader to ``provider`` or, if no global provider is set, to a new one. Returns both."""
    factory = client_factory(target.settings.region_name, **target.credentials)
    exporter = CloudWatchMetricExporter.from_settings(target.settings, client=target.client, client_factory=factory)
    if given is None and not isinstance(provider, MeterProvider | NoOpMeterProvider):
        resource = Resource.create()
        if not target.settings.namespace:
            exporter.use_namespace(default_namespace(resource, target.app_name))
        # The reader flushes at exit, and unlike the provider it does so within a time limit.
        metrics.set_meter_provider(MeterProvider(resource=resource, shutdown_on_exit=False))
        provider = metrics.get_meter_provider()  # may be another one, which OpenTelemetry does not replace
    if not isinstance(provider, MeterProvider):
        raise ConfigurationError(
            f"meter_provider={safe_repr(provider)} does not accept metric readers; "
            "use an opentelemetry.sdk.metrics.MeterProvider, or omit the argument to use the global one.",
            key="meter_provider",
            value=provider,
        )
    reader = ReporterReader(exporter, provider, target.app_name)
    provider.add_metric_reader(reader)
    return provider, reader
