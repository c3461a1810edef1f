"""The Flask extension, and the functions of flask-cloudwatch-metric, its predecessor, under the same names."""

import itertools
import logging
import os
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, TypeVar, cast

from flask import Flask, current_app, g, has_app_context, has_request_context, request
from opentelemetry.metrics import MeterProvider
from werkzeug.exceptions import SecurityError

from otel_cloudwatch_flask.config import (
    APP_CONFIG_PREFIX,
    DEFAULT_EXPORT_INTERVAL_SECONDS,
    DEFAULT_FLUSH_MIN_INTERVAL_SECONDS,
    ENVIRONMENT_PREFIX,
    KEYS,
    FlushPolicy,
    Settings,
    are_given,
    is_in_lambda,
    misspelt_keys,
)
from otel_cloudwatch_flask.delivery.boto_client import Client, checked_client, client_factory
from otel_cloudwatch_flask.delivery.stats import DeliveryStats
from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.facade.recorder import RequestBuffer
from otel_cloudwatch_flask.facade.timer import Timer
from otel_cloudwatch_flask.facade.wsgi import RequestEndMiddleware, state_of
from otel_cloudwatch_flask.flask_extension.provider_setup import Target, set_up_provider
from otel_cloudwatch_flask.flask_extension.registration import Registration, flush_all, shut_down_all, total_stats
from otel_cloudwatch_flask.model.dimension_arguments import Dimensions
from otel_cloudwatch_flask.model.rules import MetricRule, parse_rules
from otel_cloudwatch_flask.runtime.rate_limited_log import RateLimitedLog
from otel_cloudwatch_flask.sdk.reader import CloudWatchMetricReader

if TYPE_CHECKING:
    from flask import Request
    from werkzeug.local import LocalProxy

_quiet_log = RateLimitedLog(logging.getLogger(__name__))

_P = ParamSpec("_P")
_R = TypeVar("_R")

# The documented way to the object behind a proxy, which is faster than each attribute through the proxy.
_current_app: Final = cast("LocalProxy[Flask]", current_app)._get_current_object  # noqa: SLF001
_current_g: Final = cast("LocalProxy[Any]", g)._get_current_object  # noqa: SLF001
_current_request: Final = cast("LocalProxy[Request]", request)._get_current_object  # noqa: SLF001

_EXTENSION_NAME: Final = "cloudwatch_metrics"
_REQUEST_NAME: Final = "cloudwatch_metrics_request"
"""In ``g``: what the app has installed, and the buffer of the request."""

_SETTINGS_OF_FACADE: Final = {"flush", "default_dimensions", "strict", "enabled", "self_metrics"}
_SETTINGS_OF_READER: Final = {
    key.field for key in KEYS if not (key.field in _SETTINGS_OF_FACADE or key.field.startswith("live_page"))
}
"""Settings that make a reporter use a reader of its own, if it was given one of them."""


class _AlsoOnClass(Generic[_P, _R]):
    """A method that may be called on the class, too: it is then given ``None`` for the instance."""

    def __init__(self, function: Callable[Concatenate[Any, _P], _R]) -> None:
        self._function = function
        self._of_class = partial(function, None)
        self.__doc__ = self._of_class.__doc__ = function.__doc__

    def __get__(self, instance: object | None, owner: type) -> Callable[_P, _R]:
        return self._of_class if instance is None else MethodType(self._function, instance)


class CloudWatchMetricsReporter:
    """Put an app's metrics into CloudWatch: what it gives to ``add_metric``, and what OpenTelemetry measures.

    ``app`` may come later, through :meth:`init_app`, and one reporter may serve several apps. ``cloudwatch_client`` is
    anything with boto3's ``put_metric_data``, or the name of a Region; by default a client is made when first needed,
    in the process that needs it. ``meter_provider`` is by default the program's global one, which is created if nobody
    has set one. Everything else can also be set in ``app.config`` and the environment: see
    ``otel_cloudwatch_flask.config.KEYS``.

    Raises :class:`ConfigurationError` for what cannot work; once an app runs, nothing is raised into it.
    """

    def __init__(
        self,
        app: Flask | None = None,
        namespace: str | None = None,
        cloudwatch_client: Client | str | None = None,
        *,
        meter_provider: MeterProvider | None = None,
        flush: FlushPolicy | None = None,
        flush_min_interval_seconds: float = DEFAULT_FLUSH_MIN_INTERVAL_SECONDS,
        export_interval_seconds: float = DEFAULT_EXPORT_INTERVAL_SECONDS,
        default_dimensions: Mapping[str, str] | None = None,
        rules: Iterable[MetricRule | Mapping[str, Any]] = (),
        instrument: bool = False,
        strict: bool | None = None,
    ) -> None:
        self._arguments: dict[str, object] = {
            "namespace": namespace,
            "flush": flush,
            "flush_min_interval_seconds": flush_min_interval_seconds,
            "export_interval_seconds": export_interval_seconds,
            "default_dimensions": default_dimensions,
            "strict": strict,
            "rules": parse_rules(rules) or None,
        }
        # Releases of the predecessor up to 0.1.7 have the Region in the client's place.
        if isinstance(cloudwatch_client, str):
            self._arguments["region_name"], cloudwatch_client = cloudwatch_client, None
        self._client = checked_client(cloudwatch_client)
        self._credentials: dict[str, str] = {}
        self._meter_provider = meter_provider
        self._instrument = instrument
        self._registrations: list[Registration] = []
        if app is not None:
            self.init_app(app)

    @staticmethod
    def new_reporter(
        app: Flask,
        namespace: str,
        aws_region_name: str,
        aws_access_key_id: str | None = None,
        aws_secret_access_key: str | None = None,
    ) -> "CloudWatchMetricsReporter":
        """Make a reporter whose own client is for a Region and, if both are given, has these credentials."""
        reporter = CloudWatchMetricsReporter(namespace=namespace)
        reporter._arguments["region_name"] = aws_region_name
        if aws_access_key_id and aws_secret_access_key:
            reporter._credentials = {"access_key_id": aws_access_key_id, "secret_access_key": aws_secret_access_key}
        reporter.init_app(app)
        return reporter

    def init_app(self, app: Flask) -> None:
        """Serve an app: read its configuration, set OpenTelemetry up, and flush when its requests end.

        Apps with the same configuration share one reader, so that an application factory may be called often.
        """
        app = getattr(app, "_get_current_object", lambda: app)()  # what current_app stands for
        _refuse_second_reporter(app)
        app.teardown_appcontext(_end_buffer)
        _warn_of_misspelt_keys(app)
        registration = self._register(app)
        app.extensions[_EXTENSION_NAME] = _Installed(self, registration)
        app.wsgi_app = RequestEndMiddleware(  # type: ignore[method-assign]  # the way Flask documents
            app.wsgi_app, registration.flush_after_request, closes_exhausted=is_in_lambda(os.environ)
        ).answer
        _serve_live_page(app, registration)
        if self._instrument:
            _instrument_app(app, registration)
        _forget(self)
        _live_reporters[next(_ordinals)] = self

    def _register(self, app: Flask) -> Registration:
        settings = Settings.resolve(arguments=self._arguments, app_config=app.config, environ=os.environ)
        _refuse_open_live_page(app, settings)
        is_strict = partial(_is_strict, settings.strict, weakref.ref(app))
        known = next((each for each in self._registrations if each.fits(settings, app.name)), None)
        if known is None:
            setup = set_up_provider(self._meter_provider, self._target(app, settings))
            registration = Registration.first(setup, settings, app.name, is_strict)
        else:
            self._registrations.remove(known)
            registration = known.for_another_app(is_strict)
        self._registrations.append(registration)
        return registration

    def _target(self, app: Flask, settings: Settings) -> Target:
        is_given = are_given(_SETTINGS_OF_READER, arguments=self._arguments, app_config=app.config)
        return Target(
            settings=settings,
            app_name=app.name,
            client=self._client,
            client_factory=client_factory(settings.region_name, **self._credentials),
            is_its_own=bool(is_given or self._client or self._credentials),
        )

    @_AlsoOnClass
    def add_metric(
        self: "CloudWatchMetricsReporter | None",
        metric_name: str,
        value: float,
        unit: str = "None",
        dimensions: Dimensions = (),
    ) -> None:
        """Add one metric. In a request it is recorded when the request ends, otherwise at once.

        ``metric_name`` is what CloudWatch shows, as written. ``value`` is any finite number. ``unit`` is one of
        CloudWatch's names, in any case. ``dimensions`` are a mapping, or ``[{"Name": ..., "Value": ...}]``.

        Called on the class, it means the current app's reporter and, outside of an app context, the one that was
        initialised last. If there is none, the metric is dropped with one warning.

        Raises :class:`InvalidMetricError` for a metric that CloudWatch cannot store, if the reporter is strict;
        otherwise it is counted as ``invalid``, and logged once for the line that called.
        """
        installed, buffer = _current_request_buffer()
        if installed is not None and (installed.reporter is self or self is None):
            registration: Registration | None = installed.registration
        else:
            registration, buffer = _registration_elsewhere(self), None
        if registration is None:
            _quiet_log.warning(
                "no reporter",
                "Metrics are dropped: no CloudWatchMetricsReporter serves an app yet. Call init_app(app) before.",
            )
            return
        measurement = registration.cached_measurement(
            metric_name, value, unit, dimensions
        ) or registration.checked_measurement(metric_name, value, unit, dimensions)
        if measurement is None:
            return
        if buffer is None:
            registration.recorder.record(*measurement)
        else:
            buffer.add(*measurement)

    def timer(self, metric_name: str, dimensions: Dimensions = ()) -> Timer:
        """Time a block (``with``) or every call of a function (as a decorator, ``async`` too), in Milliseconds.

        It is added also when the block or the function raises.
        """
        add = partial(self.add_metric, unit="Milliseconds", dimensions=dimensions)
        return Timer(lambda milliseconds: add(metric_name=metric_name, value=milliseconds))

    def flush(self, timeout_seconds: float = 10.0) -> bool:
        """Send all that was added before; ``True`` if it is in CloudWatch within the time."""
        deadline = time.monotonic() + timeout_seconds
        drain_current_buffer()
        return flush_all(self._registrations, deadline)

    def stats(self) -> DeliveryStats:
        """What was sent, is pending, and was lost and why; summed up if several apps have exporters of their own."""
        return total_stats(self._registrations)

    def shutdown(self, timeout_seconds: float = 30.0) -> None:
        """Flush, and stop what this reporter started; a reader that it shares goes on."""
        deadline = time.monotonic() + timeout_seconds
        drain_current_buffer()
        shut_down_all(self._registrations, deadline)
        _forget(self)


@dataclass(frozen=True, slots=True)
class _Installed:
    """What an app keeps: the reporter that serves it, and how."""

    reporter: CloudWatchMetricsReporter
    registration: Registration


_ordinals = itertools.count()
_live_reporters: "weakref.WeakValueDictionary[int, CloudWatchMetricsReporter]" = weakref.WeakValueDictionary()
"""Each once, in the order of their last initialisation."""


def _forget(reporter: CloudWatchMetricsReporter) -> None:
    for ordinal in [ordinal for ordinal, live in _live_reporters.items() if live is reporter]:
        _live_reporters.pop(ordinal, None)


def initialize_metrics(
    app: Flask,
    namespace: str,
    aws_region_name: str,
    aws_access_key_id: str | None = None,
    aws_secret_access_key: str | None = None,
) -> CloudWatchMetricsReporter:
    """Make the app's reporter, which :func:`get_metrics` finds from then on in every one of its requests."""
    return CloudWatchMetricsReporter.new_reporter(
        app, namespace, aws_region_name, aws_access_key_id, aws_secret_access_key
    )


def get_metrics() -> CloudWatchMetricsReporter:
    """The current app's reporter; outside of an app context, the only one there is.

    Raises :class:`ConfigurationError` if there is none, or more than one to choose from.
    """
    if has_app_context():
        if (installed := _installed_in(_current_app())) is None:
            raise ConfigurationError(
                f"app {current_app.name!r} has no CloudWatchMetricsReporter; "
                "call initialize_metrics(app, ...) or init_app(app) where the app is made."
            )
        return installed.reporter
    reporters = list(_live_reporters.values())
    if len(reporters) != 1:
        raise ConfigurationError(
            f"there are {len(reporters)} reporters and no app context that tells which is meant; "
            "call get_metrics() in a request or inside `with app.app_context()`, after initialize_metrics(app, ...)."
        )
    return reporters[0]


def _installed_in(app: Flask) -> _Installed | None:
    installed: _Installed | None = app.extensions.get(_EXTENSION_NAME)
    return installed


def _current_request_buffer() -> tuple[_Installed | None, RequestBuffer | None]:
    """What the current app has installed, and the buffer of the current request; ``None`` where there is none."""
    try:
        current_g = _current_g()
    except RuntimeError:  # there is no context
        return None, None
    found: tuple[_Installed, RequestBuffer] | None = getattr(current_g, _REQUEST_NAME, None)
    if found is not None:
        return found
    installed = _installed_in(_current_app())
    if installed is None or not has_request_context():
        return installed, None
    # Made with the first metric: a streamed body, or a copied context, runs no before_request of its own.
    buffer = RequestBuffer(installed.registration.recorder)
    if (state := state_of(_current_request().environ)) is not None:
        state.replace_buffer(buffer)
    setattr(current_g, _REQUEST_NAME, (installed, buffer))
    return installed, buffer


def _registration_elsewhere(reporter: CloudWatchMetricsReporter | None) -> Registration | None:
    """The last one of a reporter that is not the current app's; of any reporter if ``None``, outside of an app."""
    if reporter is None and not has_app_context():
        reporter = next(reversed(list(_live_reporters.values())), None)
    return reporter._registrations[-1] if reporter and reporter._registrations else None  # noqa: SLF001  # this module's class


def drain_current_buffer() -> None:
    """Record what was added in the current app context so far."""
    if has_app_context() and (found := getattr(_current_g(), _REQUEST_NAME, None)):
        found[1].drain()


def live_reporter_readers() -> set[CloudWatchMetricReader]:
    """The readers that the reporters of this process use."""
    registrations = [each for reporter in _live_reporters.values() for each in reporter._registrations]  # noqa: SLF001  # this module's class
    return {each.setup.reader for each in registrations if each.setup.reader}


def _end_buffer(_error: BaseException | None) -> None:
    if found := getattr(_current_g(), _REQUEST_NAME, None):
        found[1].end()


def _is_strict(configured: bool | None, app_reference: "weakref.ref[Flask]") -> bool:  # noqa: FBT001  # bound with partial
    if configured is not None:
        return configured
    app = app_reference()
    return app is not None and bool(app.debug or app.testing)


def _refuse_second_reporter(app: Flask) -> None:
    if _EXTENSION_NAME in app.extensions:
        raise ConfigurationError(
            f"app {app.name!r} has a CloudWatchMetricsReporter already; call init_app once for each app, "
            "and get_metrics() wherever its reporter is needed.",
            key=f"app.extensions[{_EXTENSION_NAME!r}]",
            value=app,
        )


def _warn_of_misspelt_keys(app: Flask) -> None:
    misspelt = {**misspelt_keys(app.config, APP_CONFIG_PREFIX), **misspelt_keys(os.environ, ENVIRONMENT_PREFIX)}
    for key, meant in misspelt.items():
        _quiet_log.warning(key, "%s is no setting of otel_cloudwatch_flask, and is ignored; write %s.", key, meant)


def _has_live_page(app: Flask, settings: Settings) -> bool:
    return app.debug if settings.live_page is None else settings.live_page


def _refuse_open_live_page(app: Flask, settings: Settings) -> None:
    if _has_live_page(app, settings) and not app.debug and settings.live_page_check is None:
        raise ConfigurationError(
            "LIVE_PAGE is on outside of debug mode, where only a check of your own can tell who may see the page. Set "
            'app.config["CLOUDWATCH_LIVE_PAGE_CHECK"] to a function without arguments. With flask-login: '
            "lambda: current_user.is_authenticated and current_user.is_admin. With a shared secret: "
            'lambda: hmac.compare_digest(request.headers.get("X-Live-Page-Key", "").encode(), b"..."). '
            "On your own machine use debug mode instead: flask run --debug, or app.debug = True before init_app.",
            key='app.config["CLOUDWATCH_LIVE_PAGE_CHECK"]',
        )


def _serve_live_page(app: Flask, registration: Registration) -> None:
    if _has_live_page(app, registration.settings):
        from otel_cloudwatch_flask.live_page import serve_live_page  # noqa: PLC0415  # only apps that have it pay

        serve_live_page(app, registration.settings, registration.exporter)


def _instrument_app(app: Flask, registration: Registration) -> None:
    from opentelemetry.instrumentation.flask import FlaskInstrumentor  # noqa: PLC0415  # only who asks for it pays

    app.url_value_preprocessor(_replace_untrusted_url)
    if not getattr(app, "_is_instrumented_by_opentelemetry", False):
        FlaskInstrumentor().instrument_app(  # type: ignore[no-untyped-call]
            app,
            meter_provider=registration.setup.meters,
            excluded_urls=_excluded_urls(app, registration.settings, os.environ),
        )


def _replace_untrusted_url(_endpoint: str | None, _values: dict[str, Any] | None) -> None:
    """Keep FlaskInstrumentor, which reads the URL while a response starts, from raising for an untrusted ``Host``."""
    try:
        _ = request.url
    except SecurityError:
        request.url = ""


def _excluded_urls(app: Flask, settings: Settings, environ: Mapping[str, str]) -> str | None:
    """What is not measured: the live page, beside what the environment names; ``None`` for the latter alone."""
    if not _has_live_page(app, settings):
        return None
    from otel_cloudwatch_flask.live_page import url_pattern  # noqa: PLC0415  # it is imported already: see above

    named = environ.get("OTEL_PYTHON_FLASK_EXCLUDED_URLS", environ.get("OTEL_PYTHON_EXCLUDED_URLS", ""))
    return ",".join([*filter(None, [named]), url_pattern(settings)])
