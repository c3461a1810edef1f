"""Find or create the meter provider that a reporter records to, and the reader that publishes its metrics."""

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
    """The destination of the metrics that a reporter records for one app.

    ``is_its_own`` is true if any of its settings was made for this reporter, not for the whole process. The reporter
    then does not share the program's reader.
    """

    settings: Settings
    app_name: str
    client: Client | None
    client_factory: ClientFactory
    is_its_own: bool


@dataclass(frozen=True, slots=True)
class ProviderSetup:
    """The meter provider that one app records to, and the reader that publishes its metrics.

    ``reader`` is ``None`` if the setting ``enabled`` is off.
    """

    provider: metrics.MeterProvider
    reporter_id: str
    reader: CloudWatchMetricReader | None = None

    @property
    def owns_reader(self) -> bool:
        """Whether a reporter, not the program, created the reader."""
        return isinstance(self.reader, ReporterReader)

    @property
    def meters(self) -> metrics.MeterProvider:
        """The meter provider for instrumentations of the app, whose metrics go to the same target as the reporter's."""
        return _ReporterMeters(self.provider, self.reporter_id)

    def undo(self, timeout_seconds: float) -> None:
        """Shut down the reader and remove it from the provider, unless it belongs to the program."""
        if isinstance(self.reader, ReporterReader) and isinstance(self.provider, MeterProvider):
            # Shut down first, because a reader that was removed from its provider cannot collect.
            self.reader.shutdown(timeout_millis=timeout_seconds * 1000)
            if self.reader.has_collected:  # else both would wait for the callback that still hangs
                self.reader.drop_plain_metrics_of_others()
                self.provider.remove_metric_reader(self.reader)


class _ReporterMeters(metrics.MeterProvider):
    """A meter provider that marks its meters as the reporter's, with a scope attribute.

    Two apps in a process may have different namespaces. Measurements of these meters reach all exporters of the
    provider, but only the exporter of their reporter publishes them to CloudWatch, in the namespace of their app.
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
        """Return the provider's meter for the scope, with the reporter as an additional scope attribute."""
        marked: dict[str, object] = {**(attributes or {}), REPORTER_KEY: self._reporter_id}
        return self._provider.get_meter(name, version, schema_url, marked)  # type: ignore[arg-type]


def set_up_provider(given: metrics.MeterProvider | None, target: Target) -> ProviderSetup:
    """Find or create the provider and the reader. The default is the global provider, which is created if none is set.

    The reporter shares the program's reader if there is one, so that the facade and
    ``OTEL_METRICS_EXPORTER=cloudwatch`` publish everything once. A reporter with settings for itself gets a separate
    reader, which leaves plain metrics to the program's.

    Raises :class:`ConfigurationError` if the provider does not accept readers.
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
    """Return the program's reader if it can be shared, else create one."""
    # Only a provider that is shut down returns a NoOpMeter. This meter has no instruments, so nothing exports it.
    if isinstance(provider.get_meter(SCOPE_NAME), NoOpMeter):
        raise ConfigurationError(
            f"meter_provider={provider!r} is shut down; use one that is running.",
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
    """Create the global provider and its reader."""
    resource = Resource.create()
    if not target.settings.namespace:
        namespace = default_namespace(resource, target.app_name)
        target = replace(target, settings=replace(target.settings, namespace=namespace))
    reader = _new_reader(target, reporter_id)
    # The reader flushes at exit, and unlike the provider it does so within a time limit.
    provider = MeterProvider(
        metric_readers=[reader], resource=resource, views=views_of(reporter_id), shutdown_on_exit=False
    )
    metrics.set_meter_provider(provider)
    if metrics.get_meter_provider() is not provider:  # another thread has set one, which OpenTelemetry does not replace
        reader.shutdown(timeout_millis=0)
        raise _not_usable(metrics.get_meter_provider())
    return ProviderSetup(provider, reporter_id, reader)


def _new_reader(target: Target, reporter_id: str) -> ReporterReader:
    """Create a reader for the reporter's metrics."""
    settings = target.settings
    exporter = CloudWatchMetricExporter.from_settings(
        settings, client=target.client, client_factory=target.client_factory
    )
    exporter.publish_metrics_of(reporter_id)
    remember_rules(reporter_id, settings.rules)
    return ReporterReader(exporter, settings, target.app_name)


def _not_usable(provider: metrics.MeterProvider) -> ConfigurationError:
    return ConfigurationError(
        f"meter_provider={safe_repr(provider)} does not accept metric readers; "
        "use an opentelemetry.sdk.metrics.MeterProvider, or omit it to have one created.",
        key="meter_provider",
        value=provider,
    )


_ordinals: defaultdict[str, Iterator[int]] = defaultdict(lambda: itertools.count(1))
_ordinals_lock = threading.Lock()


def _new_reporter_id(namespace: str) -> str:
    """Return an ID that is unique in this process: the namespace, and for all but its first reporter a number."""
    with _ordinals_lock:
        ordinal = next(_ordinals[namespace])
    return namespace if ordinal == 1 else f"{namespace}#{ordinal}"
