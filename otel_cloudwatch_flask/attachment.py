"""Which provider a reporter records to, and which reader publishes what it records."""

import itertools
import logging
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from opentelemetry import metrics
from opentelemetry.metrics import NoOpMeter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import SERVICE_NAME, Resource

from otel_cloudwatch_flask.boto_client import Client, ClientFactory
from otel_cloudwatch_flask.config import Settings, parse_namespace
from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.exporter import CloudWatchMetricExporter
from otel_cloudwatch_flask.facade_scope import SCOPE_NAME
from otel_cloudwatch_flask.foreign_text import shown
from otel_cloudwatch_flask.owned_meters import OwnedMeters
from otel_cloudwatch_flask.reader import CloudWatchMetricReader, readers_on
from otel_cloudwatch_flask.reporter_reader import ReporterReader
from otel_cloudwatch_flask.sdk_internals import is_unset, resource_of
from otel_cloudwatch_flask.self_metrics import observe_delivery
from otel_cloudwatch_flask.views import remember_rules, views_of

_logger = logging.getLogger(__name__)

_UNKNOWN_SERVICE: Final = "unknown_service"


@dataclass(frozen=True, slots=True)
class Destination:
    """What a reporter was told about where one app's metrics go, and how.

    ``is_its_own`` says whether any of it was told to this reporter, and not to the whole process: a reader that is
    there already is then not good enough.
    """

    settings: Settings
    app_name: str
    client: Client | None
    client_factory: ClientFactory | None
    is_its_own: bool


@dataclass(frozen=True, slots=True)
class Attachment:
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
        """For an instrumentation of the app: what it measures goes where the reporter's own metrics do."""
        return OwnedMeters(self.provider, self.reporter_id)

    def detach(self, timeout_seconds: float) -> None:
        """Shut the reader down and remove it, if it is the reporter's own."""
        if not (isinstance(self.reader, ReporterReader) and isinstance(self.provider, MeterProvider)):
            return
        # In this order, because without its provider a reader has nothing to collect any more.
        self.reader.shutdown(timeout_millis=timeout_seconds * 1000)
        self.reader.hand_over()
        self.provider.remove_metric_reader(self.reader)


def attach(given: metrics.MeterProvider | None, destination: Destination) -> Attachment:
    """Find or make the provider and the reader.

    A reader that no reporter made is shared, so that the facade and ``OTEL_METRICS_EXPORTER=cloudwatch`` publish once,
    unless this reporter has a destination of its own. Then it makes a reader, which leaves what is not the facade's to
    another one on the same provider.

    Raises :class:`ConfigurationError` for a provider that takes no readers.
    """
    if not destination.settings.enabled:
        return Attachment(given or metrics.get_meter_provider(), _new_reporter_id(destination.app_name))
    attachment = _attach_to(_sdk_provider(given), destination)
    if destination.settings.self_metrics and attachment.reader:
        observe_delivery(attachment.meters, attachment.reader.exporter.stats)
    return attachment


def _attach_to(provider: MeterProvider | None, destination: Destination) -> Attachment:
    if provider is None:
        return _attach_to_new_provider(destination)
    shareable = [] if destination.is_its_own else _readers_of_program(provider)
    return _share(provider, shareable[0], destination) if shareable else _attach_own_reader(provider, destination)


def _readers_of_program(provider: MeterProvider) -> list[CloudWatchMetricReader]:
    return [each for each in readers_on(provider) if not isinstance(each, ReporterReader)]


def _share(provider: MeterProvider, reader: CloudWatchMetricReader, destination: Destination) -> Attachment:
    reporter_id = _new_reporter_id(destination.settings.namespace or destination.app_name)
    reader.exporter.adopt(reporter_id)
    return Attachment(provider, reporter_id, reader)


def _attach_own_reader(provider: MeterProvider, destination: Destination) -> Attachment:
    named = _with_namespace(destination, resource_of(provider))
    reader, reporter_id = _reader(named)
    provider.add_metric_reader(reader)
    return Attachment(provider, reporter_id, reader)


def _attach_to_new_provider(destination: Destination) -> Attachment:
    """Be the program's metrics SDK, since it has none."""
    resource = Resource.create()
    reader, reporter_id = _reader(_with_namespace(destination, resource))
    # The reader itself flushes at exit, in a time that it bounds.
    views = views_of(reporter_id)
    provider = MeterProvider(metric_readers=[reader], resource=resource, views=views, shutdown_on_exit=False)
    metrics.set_meter_provider(provider)
    return Attachment(provider, reporter_id, reader)


def _reader(destination: Destination) -> tuple[CloudWatchMetricReader, str]:
    """A reader of the reporter's own, and the reporter's identity, which its exporter knows."""
    settings = destination.settings
    exporter = CloudWatchMetricExporter.from_settings(
        settings,
        client=destination.client,
        client_factory=destination.client_factory,
    )
    reporter_id = _new_reporter_id(settings.namespace or destination.app_name)
    exporter.adopt(reporter_id)
    remember_rules(reporter_id, settings.rules)
    return ReporterReader(exporter, settings), reporter_id


def _sdk_provider(given: metrics.MeterProvider | None) -> MeterProvider | None:
    """The provider to attach to; ``None`` if none was given and nobody has set one."""
    provider = metrics.get_meter_provider() if given is None else given
    if given is None and is_unset(provider):
        return None
    if not isinstance(provider, MeterProvider):
        raise ConfigurationError(
            f"meter_provider={shown(provider)} takes no metric readers; "
            "use an opentelemetry.sdk.metrics.MeterProvider, or set none and one is made.",
            key="meter_provider",
            value=provider,
        )
    _refuse_if_shut_down(provider)
    return provider


def _refuse_if_shut_down(provider: MeterProvider) -> None:
    # A live provider gives the same meter whenever it is asked, and one without instruments is never exported.
    if isinstance(provider.get_meter(SCOPE_NAME), NoOpMeter):
        raise ConfigurationError(
            f"meter_provider={provider!r} is shut down; attach the reporter to one that is not.",
            key="meter_provider",
            value=provider,
        )


def _with_namespace(destination: Destination, resource: Resource) -> Destination:
    """The destination with a namespace, whatever it has to be taken from."""
    if destination.settings.namespace:
        return destination
    namespace = _service_name(resource) or _guessed_namespace(destination.app_name)
    return replace(destination, settings=replace(destination.settings, namespace=namespace))


def _service_name(resource: Resource) -> str | None:
    name = str(resource.attributes.get(SERVICE_NAME, ""))
    if not name or name.startswith(_UNKNOWN_SERVICE):
        return None
    return _checked(name, SERVICE_NAME)


def _guessed_namespace(app_name: str) -> str:
    namespace = _checked(app_name, "app.name")
    _logger.warning(
        "No CloudWatch namespace is set, so metrics are published in one with the app's name, %r; "
        'pass namespace="...", or set app.config["CLOUDWATCH_NAMESPACE"] or OTEL_SERVICE_NAME.',
        namespace,
    )
    return namespace


def _checked(name: str, source: str) -> str:
    try:
        return parse_namespace(name)
    except ValueError as problem:
        message = f"{source}={name!r}, taken as the CloudWatch namespace since none is set, {problem}."
        raise ConfigurationError(message, key=source, value=name) from None


_ordinals: defaultdict[str, Iterator[int]] = defaultdict(lambda: itertools.count(1))
_ordinals_lock = threading.Lock()


def _new_reporter_id(namespace: str) -> str:
    """An identity that no other reporter in this process has or had: the namespace, numbered from the second on."""
    with _ordinals_lock:
        ordinal = next(_ordinals[namespace])
    return namespace if ordinal == 1 else f"{namespace}#{ordinal}"
