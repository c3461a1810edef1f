"""Meters that belong to a reporter: what they measure is published where the reporter's own metrics are."""

from opentelemetry.metrics import Meter, MeterProvider
from opentelemetry.util.types import Attributes

from otel_cloudwatch_flask.facade_scope import REPORTER_KEY


class OwnedMeters(MeterProvider):
    """A provider's meters, each marked as a reporter's.

    Two apps in a process may have different namespaces. An instrumentation that is given these meters measures into the
    same provider as everybody, where other exporters find it, and still each app's requests are published in its own.
    """

    def __init__(self, provider: MeterProvider, reporter_id: str) -> None:
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
