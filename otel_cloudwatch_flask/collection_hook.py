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


BeforeCollection = Callable[[bool], None]
"""Called with whether it must not pause, because the SDK's lock of all collections is held."""


class Hook:
    """What is called before each collection from one provider; safe to use from several threads.

    It belongs to the provider's instrument. ``kept`` are objects that must live until the next collection, though
    nobody else has them any more.
    """

    def __init__(self) -> None:
        self._methods: set[weakref.ref[BeforeCollection]] = set()
        self.kept: set[object] = set()

    def add(self, method: BeforeCollection) -> None:
        """Call this bound method, as long as its object lives; it must not raise."""
        self._methods.add(weakref.WeakMethod(method, self._methods.discard))

    def call(self, *, is_locked: bool) -> None:
        """Call all of them."""
        for reference in tuple(self._methods):
            if method := reference():
                method(is_locked)

    def __call__(self, _options: CallbackOptions) -> Iterable[Observation]:
        """Nothing to observe, as an instrument's callback."""
        self.call(is_locked=True)
        return ()


# Not the hooks themselves: what they keep may have their provider.
_hooks: "weakref.WeakKeyDictionary[MeterProvider, weakref.ref[Hook]]" = weakref.WeakKeyDictionary()


def hook_of(provider: MeterProvider) -> Hook:
    """The hook before each collection from a provider."""
    made = Hook()
    hook = _hooks.setdefault(provider, weakref.ref(made))() or made
    # The SDK takes an instrument once, with the callbacks that it had then.
    provider.get_meter(SCOPE_NAME, __version__).create_observable_gauge(_INSTRUMENT_NAME, [hook])
    return hook


def prepare_collection(reader: MetricReader) -> None:
    """Call now what would be called within the collection, where it counts against its timeout."""
    consumer = consumer_of(reader)
    for provider, reference in list(_hooks.items()):
        hook = reference()
        if hook is not None and consumer is not None and consumer_of(provider) is consumer:
            hook.call(is_locked=False)
