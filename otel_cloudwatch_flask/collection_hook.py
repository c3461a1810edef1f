"""What has to happen before anybody collects from a meter provider.

OpenTelemetry has no hook for that, but before a collection the SDK calls the callbacks of observable instruments,
whoever collects. So there is one of these that never has anything to show.
"""

import weakref
from collections.abc import Callable, Iterable
from typing import Final

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.sdk.metrics.export import MetricReader

from otel_cloudwatch_flask.facade_scope import SCOPE_NAME
from otel_cloudwatch_flask.sdk_internals import consumer_of
from otel_cloudwatch_flask.version import __version__

_INSTRUMENT_NAME: Final = "otel_cloudwatch_flask.before_collection"


class _Hook:
    """The methods to call for one provider, as long as their objects live; safe to use from several threads."""

    def __init__(self) -> None:
        self._methods: set[weakref.ref[Callable[[], None]]] = set()

    def add(self, method: Callable[[], None]) -> None:
        self._methods.add(weakref.WeakMethod(method, self._methods.discard))

    def call(self) -> None:
        for reference in tuple(self._methods):
            if method := reference():
                method()

    def __call__(self, _options: CallbackOptions) -> Iterable[Observation]:
        """Nothing to observe, as an instrument's callback."""
        self.call()
        return ()


_hooks: "weakref.WeakKeyDictionary[MeterProvider, _Hook]" = weakref.WeakKeyDictionary()


def call_before_collection(provider: MeterProvider, method: Callable[[], None]) -> None:
    """Call a bound method before each collection from a provider, while its object lives; it must not raise."""
    hook = _hooks.setdefault(provider, _Hook())
    hook.add(method)
    # The SDK takes an instrument once, with the callbacks that it had then.
    provider.get_meter(SCOPE_NAME, __version__).create_observable_gauge(_INSTRUMENT_NAME, [hook])


def prepare_collection(reader: MetricReader) -> None:
    """Call now what would be called within the collection, where it counts against its timeout."""
    consumer = consumer_of(reader)
    for provider, hook in list(_hooks.items()):
        if consumer is not None and consumer_of(provider) is consumer:
            hook.call()
