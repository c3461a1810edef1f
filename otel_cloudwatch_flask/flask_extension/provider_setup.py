"""Set up the meter provider that a reporter records to, and find or make the reader that publishes its metrics."""

import itertools
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from opentelemetry import metrics
from opentelemetry.metrics import Meter, NoOpMeter, NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.util.types import Attributes

from otel_cloudwatch_flask.config import Settings
from otel_cloudwatch_flask.delivery.boto_client import Client, ClientFactory
from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.flask_extension.reporter_reader import ReporterReader, default_namespace
from otel_cloudwatch_flask.model.scope import REPORTER_KEY, SCOPE_NAME
from otel_cloudwatch_flask.runtime.safe_text import safe_repr
from otel_cloudwatch_flask.sdk.exporter import CloudWatchMetricExporter
from otel_cloudwatch_flask.sdk.reader import CloudWatchMetricReader, readers_on
from otel_cloudwatch_flask.sdk.self_metrics import observe_delivery
from otel_cloudwatch_flask.sdk.views import remember_rules, views_of


@dataclass(frozen=True, slots=True)
class Target:
    """Where a reporter's metrics of one app are to go.

    ``is_its_own`` if any of it was set for this reporter, and not for the whole process: then it does not share the
    reader of the program.
    """

    settings: Settings
    app_name: str
    client: Client | None
    client_factory: ClientFactory
    is_its_own: bool


@dataclass(frozen=True, slots=True)
class ProviderSetup:
    """Where one app's metrics are recorded, and the reader that publishes them; without one nothing is sent."""

    provider: metrics.MeterProvider
    reporter_id: str
    reader: CloudWatchMetricReader | None = None

    @property
    def owns_reader(self) -> bool:
        """Whether the reader is the reporter's own."""
        return isinstance(self.reader, ReporterReader)

    @property
    def meters(self) -> metrics.MeterProvider:
        """For an instrumentation of the app, whose metrics go where the reporter's own go."""
        return _ReporterMeters(self.provider, self.reporter_id)

    def undo(self, timeout_seconds: float) -> None:
        """Shut the reader down and remove it, if it is the reporter's own."""
        if isinstance(self.reader, ReporterReader) and isinstance(self.provider, MeterProvider):
            # In this order, because a reader that was removed from its provider has nothing to collect.
            self.reader.shutdown(timeout_millis=timeout_seconds * 1000)
            self.reader.drop_plain_metrics_of_others()
            self.provider.remove_metric_reader(self.reader)


class _ReporterMeters(metrics.MeterProvider):
    """A provider's meters, each marked as the reporter's.

    Two apps in a process may have different namespaces. What an instrumentation measures with these meters reaches all
    exporters of the provider, and is published in the namespace of its own app.
    """

    def __init__(self, provider: metrics.MeterProvider, reporter_id: str) -> None:
        self._provider = provider
        self._reporter_id = reporter_id

    def get_meter(
        self,
        name: str,
        version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes | None = None,
    ) -> Meter:
        """The provider's meter for a scope that also says whose it is."""
        marked: dict[str, object] = {**(attributes or {}), REPORTER_KEY: self._reporter_id}
        return self._provider.get_meter(name, version, schema_url, marked)  # type: ignore[arg-type]


def set_up_provider(given: metrics.MeterProvider | None, target: Target) -> ProviderSetup:
    """Find or make the provider and the reader; by default the global provider, which is made if none is set.

    A reader that no reporter made is shared, so that the facade and ``OTEL_METRICS_EXPORTER=cloudwatch`` publish once,
    unless this reporter has a target of its own. Then it makes a reader, which leaves the plain metrics to the other.

    Raises :class:`ConfigurationError` for a provider that takes no readers.
    """
    provider = metrics.get_meter_provider() if given is None else given
    reporter_id = _new_reporter_id(target.settings.namespace or target.app_name)
    if not target.settings.enabled:
        return ProviderSetup(provider, reporter_id)
    if isinstance(provider, MeterProvider):
        setup = ProviderSetup(provider, reporter_id, _reader_on(provider, target, reporter_id))
    elif given is None and not isinstance(provider, NoOpMeterProvider):
        setup = _new_global_provider(target, reporter_id)
    else:
        raise _not_usable(provider)
    if target.settings.self_metrics and setup.reader:
        observe_delivery(setup.meters, setup.reader.exporter.stats)
    return setup


def _reader_on(provider: MeterProvider, target: Target, reporter_id: str) -> CloudWatchMetricReader:
    """The program's reader, if it can be shared, or a new one."""
    # A live provider gives the same meter whenever it is asked, and one without instruments is never exported.
    if isinstance(provider.get_meter(SCOPE_NAME), NoOpMeter):
        raise ConfigurationError(
            f"meter_provider={provider!r} is shut down; attach the reporter to one that is not.",
            key="meter_provider",
            value=provider,
        )
    for reader in readers_on(provider):
        if not (target.is_its_own or isinstance(reader, ReporterReader)):
            reader.exporter.publish_metrics_of(reporter_id)
            return reader
    reader = _new_reader(target, reporter_id)
    provider.add_metric_reader(reader)
    return reader


def _new_global_provider(target: Target, reporter_id: str) -> ProviderSetup:
    """Be the program's metrics SDK, since it has none."""
    resource = Resource.create()
    if not target.settings.namespace:
        namespace = default_namespace(resource, target.app_name)
        target = replace(target, settings=replace(target.settings, namespace=namespace))
    reader = _new_reader(target, reporter_id)
    # The reader itself flushes at exit, in a time that it bounds.
    provider = MeterProvider(
        metric_readers=[reader], resource=resource, views=views_of(reporter_id), shutdown_on_exit=False
    )
    metrics.set_meter_provider(provider)
    if metrics.get_meter_provider() is not provider:  # one that is not the SDK's was set before
        reader.shutdown(timeout_millis=0)
        raise _not_usable(metrics.get_meter_provider())
    return ProviderSetup(provider, reporter_id, reader)


def _new_reader(target: Target, reporter_id: str) -> ReporterReader:
    """A reader of the reporter's own, for its metrics."""
    settings = target.settings
    exporter = CloudWatchMetricExporter.from_settings(
        settings, client=target.client, client_factory=target.client_factory
    )
    exporter.publish_metrics_of(reporter_id)
    remember_rules(reporter_id, settings.rules)
    return ReporterReader(exporter, settings, target.app_name)


def _not_usable(provider: metrics.MeterProvider) -> ConfigurationError:
    return ConfigurationError(
        f"meter_provider={safe_repr(provider)} takes no metric readers; "
        "use an opentelemetry.sdk.metrics.MeterProvider, or set none and one is made.",
        key="meter_provider",
        value=provider,
    )


_ordinals: defaultdict[str, Iterator[int]] = defaultdict(lambda: itertools.count(1))
_ordinals_lock = threading.Lock()


def _new_reporter_id(namespace: str) -> str:
    """An identity that no other reporter in this process has or had: the namespace, numbered from the second on."""
    with _ordinals_lock:
        ordinal = next(_ordinals[namespace])
    return namespace if ordinal == 1 else f"{namespace}#{ordinal}"
