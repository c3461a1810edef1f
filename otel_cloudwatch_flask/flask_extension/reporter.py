"""The Flask extension. It keeps the API of its predecessor, flask-cloudwatch-metric, and adds to it."""

import itertools
import logging
import os
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TextIO, TypedDict, TypeVar, cast

from flask import Flask, current_app, g, has_app_context, has_request_context, request
from opentelemetry.metrics import MeterProvider
from werkzeug.exceptions import SecurityError

from otel_cloudwatch_flask.config import (
    DEFAULT_EXPORT_INTERVAL_SECONDS,
    FlushPolicy,
    Output,
    Settings,
    given_fields,
    is_given,
    misspelt_settings,
)
from otel_cloudwatch_flask.delivery.boto_client import Client, checked_client
from otel_cloudwatch_flask.delivery.stats import DeliveryStats, LossReason, StatsRecorder
from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.facade.recorder import RequestBuffer
from otel_cloudwatch_flask.facade.timer import Timer
from otel_cloudwatch_flask.facade.wsgi import RequestEndMiddleware, prepare_failure, raising, state_of
from otel_cloudwatch_flask.flask_extension.provider_setup import Target, set_up_provider
from otel_cloudwatch_flask.flask_extension.registration import Registration, flush_all, shut_down_all
from otel_cloudwatch_flask.model.dimension_arguments import Dimensions
from otel_cloudwatch_flask.model.rules import MetricRule, parse_rules
from otel_cloudwatch_flask.model.units import Unit
from otel_cloudwatch_flask.runtime.live_objects import LiveObjects
from otel_cloudwatch_flask.runtime.process import call_after_fork
from otel_cloudwatch_flask.runtime.rate_limited_log import RateLimitedLog

if TYPE_CHECKING:
    from flask import Request
    from typing_extensions import Unpack
    from werkzeug.local import LocalProxy

_once = RateLimitedLog(logging.getLogger(__name__))

_P = ParamSpec("_P")
_R = TypeVar("_R")

# Flask documents _get_current_object(). Calling it once is faster than accessing each attribute through the proxy.
_current_app: Final = cast("LocalProxy[Flask]", current_app)._get_current_object  # noqa: SLF001
_current_g: Final = cast("LocalProxy[Any]", g)._get_current_object  # noqa: SLF001
_current_request: Final = cast("LocalProxy[Request]", request)._get_current_object  # noqa: SLF001

_EXTENSION_NAME: Final = "cloudwatch_metrics"
_REQUEST_NAME: Final = "cloudwatch_metrics_request"
"""The attribute of ``g`` that holds the app's installation and the buffer of the request."""


class _AlsoOnClass(staticmethod):  # type: ignore[type-arg]
    """A method that can also be called on the class, with ``None`` as ``self``.

    It is a static method, as in the predecessor, so that ``unittest.mock`` can patch it with ``autospec``.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        of_class = partial(function, None)
        of_class.__doc__ = function.__doc__
        super().__init__(of_class)
        self._function = function

    def __get__(self, instance: object | None, owner: type | None = None) -> Callable[..., Any]:
        return self.__func__ if instance is None else MethodType(self._function, instance)


def _also_on_class(function: Callable[Concatenate[Any, _P], _R]) -> "staticmethod[_P, _R]":
    """Decorate a method with :class:`_AlsoOnClass`. The cast makes type checkers accept both kinds of call."""
    return cast("staticmethod[_P, _R]", _AlsoOnClass(function))


class ReporterOptions(TypedDict, total=False):
    """The keyword arguments of :class:`CloudWatchMetricsReporter`, which ``init_app`` also accepts."""

    cloudwatch_client: Client | str | None
    region_name: str | None
    meter_provider: MeterProvider | None
    flush: FlushPolicy | None
    flush_min_interval_seconds: float | None
    export_interval_seconds: float
    default_dimensions: Mapping[str, str] | None
    output: Output | None
    stream: TextIO | None
    rules: Iterable[MetricRule | Mapping[str, Any]]
    instrument: bool
    strict: bool | None


class CloudWatchMetricsReporter:
    """Flask extension that sends ``add_metric`` and OpenTelemetry metrics to CloudWatch.

    Scripts and jobs need no app. Without an app, the reporter is set up when it is first used.

    Settings that are not passed are read from ``app.config["CLOUDWATCH_..."]``, OpenTelemetry's configuration file and
    the environment.

    :param app: Flask app to register on. Default: none; pass one or more apps to :meth:`init_app` later.
    :param namespace: CloudWatch namespace. Default: the service name (``OTEL_SERVICE_NAME``), else the name of the app
        or, without an app, of the program.
    :param cloudwatch_client: object with boto3's ``put_metric_data``, or a Region name. Default: a boto3 client,
        created for the first call to CloudWatch, in the process that makes it.
    :param region_name: AWS Region of the default client. Default: ``AWS_REGION``, else the Region that boto3 resolves.
    :param meter_provider: SDK ``MeterProvider`` to record to. Default: the global one, created if none is set.
    :param flush: what happens when a request ends. ``"background"`` (default) requests a flush without waiting for it,
        ``"sync"`` (default on AWS Lambda) waits for a flush, and ``"interval"`` leaves the metrics to the next periodic
        flush.
    :param flush_min_interval_seconds: minimum time between two request-triggered flushes, in seconds. Default:
        10, or 1 in debug mode or if a rule has ``storage_resolution=1``.
    :param export_interval_seconds: interval between periodic flushes, in seconds. Default: 60.
    :param default_dimensions: dimensions added to every ``add_metric`` call. The call's own dimensions take precedence.
    :param rules: :class:`MetricRule` objects, or mappings of their fields. The first rule that matches a metric applies
        to it.
    :param output: ``"api"`` (default) sends requests to CloudWatch. ``"emf"`` writes lines in the embedded metric
        format, from which CloudWatch Logs extracts the metrics.
    :param stream: text stream for EMF lines. Default: standard output.
    :param instrument: whether to apply OpenTelemetry's ``FlaskInstrumentor``, which measures requests. Default: false.
    :param strict: whether ``add_metric`` raises for invalid metrics. Default: true if ``app.debug`` or
        ``app.testing`` is true.

    The constructor and :meth:`init_app` raise :class:`ConfigurationError` for invalid settings.
    """

    def __init__(  # noqa: PLR0913 - one argument for each option
        self,
        app: Flask | None = None,
        namespace: str | None = None,
        cloudwatch_client: Client | str | None = None,
        *,
        region_name: str | None = None,
        meter_provider: MeterProvider | None = None,
        flush: FlushPolicy | None = None,
        flush_min_interval_seconds: float | None = None,
        export_interval_seconds: float = DEFAULT_EXPORT_INTERVAL_SECONDS,
        default_dimensions: Mapping[str, str] | None = None,
        rules: Iterable[MetricRule | Mapping[str, Any]] = (),
        output: Output | None = None,
        stream: TextIO | None = None,
        instrument: bool = False,
        strict: bool | None = None,
    ) -> None:
        arguments = {**locals(), "rules": rules or None}
        self._options = _given_options(namespace, {name: arguments[name] for name in ReporterOptions.__annotations__})
        self._registrations: list[Registration] = []
        self._program_name = ""  # the default namespace, if the reporter was used before the first init_app
        self._start()
        call_after_fork(self._start)
        if app is not None:
            self.init_app(app)

    def _start(self) -> None:
        """Create the state that a forked child must not share with its parent."""
        self._unrecorded = StatsRecorder()

    @staticmethod
    def new_reporter(
        app: Flask,
        namespace: str,
        aws_region_name: str,
        aws_access_key_id: str | None = None,
        aws_secret_access_key: str | None = None,
    ) -> "CloudWatchMetricsReporter":
        """Create a reporter for an AWS Region, and register it on ``app``, so that :func:`get_metrics` returns it.

        :param app: the app.
        :param namespace: CloudWatch namespace.
        :param aws_region_name: AWS Region of the client, such as ``"eu-central-1"``.
        :param aws_access_key_id: access key ID; used only together with ``aws_secret_access_key``. Default: the
            credentials that boto3 resolves.
        :param aws_secret_access_key: secret access key that belongs to ``aws_access_key_id``.

        Raises :class:`ConfigurationError` if a setting is invalid, or if the app already has a reporter.
        """
        reporter = CloudWatchMetricsReporter(namespace=namespace, region_name=aws_region_name)
        if aws_access_key_id and aws_secret_access_key:
            keys = {"access_key_id": aws_access_key_id, "secret_access_key": aws_secret_access_key}
            reporter._options["credentials"] = keys
        reporter.init_app(app)
        return reporter

    def init_app(self, app: Flask, namespace: str | None = None, **options: "Unpack[ReporterOptions]") -> None:
        """Register this reporter on ``app``, read the app's configuration, and set up OpenTelemetry.

        Apps with equal configuration share one reader, so an application factory can be called repeatedly.

        :param app: the app. A program may also pass ``current_app``.
        :param namespace: CloudWatch namespace of this app.
        :param options: the keyword arguments of the constructor. Those given here take precedence, for this app only.

        Raises :class:`ConfigurationError` if a setting is invalid, or if the app already has a reporter.
        """
        every = {**self._options, **_given_options(namespace, options)}
        app = getattr(app, "_get_current_object", lambda: app)()  # a program may pass current_app, which is a proxy
        _refuse_second_reporter(app)
        # An app context may end before the request, as in `with other_app.app_context()` inside a view.
        app.teardown_appcontext(_end_buffer)
        _warn_of_misspelt_keys(app)
        registration = self._register(app, every)
        app.extensions[_EXTENSION_NAME] = _Installation(self, registration, every)
        app.wsgi_app = RequestEndMiddleware(  # type: ignore[method-assign]  # as Flask documents
            app.wsgi_app, registration.flush_after_request, is_sync=registration.settings.flush == "sync"
        ).answer
        _serve_live_page(app, registration)
        if every.get("instrument"):
            _instrument_app(app, registration)
        # Moves the reporter to the end, because add_metric on the class uses the last initialized one.
        _live_reporters.add(self)

    def _register(self, app: Flask, options: Mapping[str, Any]) -> Registration:
        settings = Settings.resolve(arguments=options, app_config=app.config, environ=os.environ)
        _refuse_open_live_page(app, settings)
        is_strict = partial(_is_strict, settings.strict, weakref.ref(app))
        target = Target(
            settings,
            app_name=self._program_name or app.name,
            client=options.get("cloudwatch_client"),
            credentials=options.get("credentials", {}),
            given=given_fields(arguments=options, app_config=app.config),
        )
        setup = set_up_provider(options.get("meter_provider"), target)
        registration = Registration(setup, settings, is_strict)
        # Only the latest registration of a setup is kept, so that repeatedly created apps do not accumulate.
        others = [each for each in self._registrations if not each.is_live or each.setup is not setup]
        self._registrations = [*others, registration]
        return registration

    def _is_set_up(self) -> bool:
        """Set the reporter up from its arguments and the environment, unless it is registered on an app.

        Returns ``False`` if that fails, and logs the first error.
        """
        if self._registrations:
            return True
        app = Flask("__main__")  # never served; its name is that of the program
        app.config["CLOUDWATCH_LIVE_PAGE"] = False
        try:
            self.init_app(app)
        except Exception as error:  # noqa: BLE001 - add_metric must not raise because of the environment
            _once.error(
                "setup",
                "Metrics are lost: a CloudWatchMetricsReporter without an app could not be set up. Correct the setting "
                "named in this error: %s",
                error,
            )
            return False
        self._program_name = app.name
        return True

    @_also_on_class
    def add_metric(
        self: "CloudWatchMetricsReporter | None",
        metric_name: str,
        value: float,
        unit: Unit | str = "None",
        dimensions: Dimensions = (),
    ) -> None:
        """Record a value of a metric. During a request, values are buffered, and recorded when the response starts.

        :param metric_name: name in CloudWatch, 1 to 255 characters, case-sensitive.
        :param value: number, at most 2**360 in magnitude.
        :param unit: CloudWatch unit, such as ``"Count"`` or ``"Milliseconds"``, ignoring case. Default: ``"None"``.
        :param dimensions: mapping of names to values, or ``[{"Name": ..., "Value": ...}]``. Default: none.

        A call on the class uses the current app's reporter or, outside an app context, the reporter that was
        initialized last. If there is no reporter, the metric is dropped, and a warning is logged once. If the reporter
        has no app and cannot be set up, the metric is counted as ``not_set_up``, and an error is logged once.

        Raises :class:`InvalidMetricError` for an invalid metric if the reporter is strict. Otherwise, the metric is
        counted as ``invalid``, and logged once per call site.
        """
        installation, buffer = _current_request_buffer()
        if installation is not None and (installation.reporter is self or self is None):
            registration: Registration | None = installation.registration
        else:
            registration, buffer = _registration_elsewhere(self), None
        if registration is None:
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
        """Time a block (as a context manager), or each call to a function or coroutine function (as a decorator).

        The metric's unit is Milliseconds. The time is recorded even if the block or function raises.

        :param metric_name: name in CloudWatch.
        :param dimensions: as in :meth:`add_metric`.
        """
        return Timer(lambda milliseconds: self.add_metric(metric_name, milliseconds, "Milliseconds", dimensions))

    def label(self, **dimensions: object) -> None:
        """Add dimensions to the current request's duration, which ``instrument=True`` records.

        Each combination of their values is a separate metric, which counts toward ``max_metrics``. The dimensions are
        not added if FlaskInstrumentor or ``opentelemetry-instrument`` instrumented the app before the reporter. Outside
        of a request, the method does nothing.

        :param dimensions: names and values, such as ``plan="pro"``. Values are converted to strings.

        Raises :class:`InvalidMetricError` for an invalid dimension if the reporter is strict. Otherwise, the dimensions
        are ignored, counted as ``invalid``, and logged once per call site.
        """
        installation, _ = _current_request_buffer()
        state = state_of(_current_request().environ) if has_request_context() else None
        if installation is None or state is None:
            return
        if checked := installation.registration.checked_measurement("http.server.duration", 0, "None", dimensions):
            state.labels = {**state.labels, **checked[0].dimensions}

    def flush(self, timeout_seconds: float = 10.0) -> bool:
        """Send all metrics recorded before this call, and wait for CloudWatch to accept them.

        Returns ``False`` if the timeout expires, if metrics are lost in delivery (see :meth:`stats`), or if the
        reporter is shut down or cannot be set up. Metrics that are not delivered in time stay pending, and are retried.

        :param timeout_seconds: how long to wait, in seconds. Default: 10.
        """
        deadline = time.monotonic() + timeout_seconds
        drain_current_buffer()
        return self._is_set_up() and flush_all(self._registrations, deadline)

    def stats(self) -> DeliveryStats:
        """Return the delivery statistics of this reporter's exporters: what was sent, is pending, or was lost."""
        exporters = {each.exporter for each in self._registrations if each.exporter}
        return DeliveryStats.total([*(each.stats() for each in exporters), self._unrecorded.stats()])

    def shutdown(self, timeout_seconds: float = 30.0) -> None:
        """Flush, then stop this reporter's readers, except those that the program created or other reporters use.

        Metrics recorded later are counted as lost if their reader was stopped.

        :param timeout_seconds: time limit, in seconds. Default: 30.
        """
        deadline = time.monotonic() + timeout_seconds
        drain_current_buffer()
        others = [each._registrations for each in _live_reporters if each is not self]  # noqa: SLF001  # this module's class
        shared = {each.setup for each in itertools.chain(*others) if each.is_live}
        shut_down_all(self._registrations, deadline, shared=shared)
        _live_reporters.discard(self)


@dataclass(frozen=True, slots=True)
class _Installation:
    """The app's reporter, its registration and its options, stored in ``app.extensions``."""

    reporter: CloudWatchMetricsReporter
    registration: Registration
    options: Mapping[str, Any] = field(repr=False)  # may contain credentials


def _given_options(namespace: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that the caller passed, with a valid client and parsed rules.

    Raises ``TypeError`` for an unknown option, and :class:`ConfigurationError` for an invalid client or rule.
    """
    if unknown := options.keys() - ReporterOptions.__annotations__.keys():
        raise TypeError(f"init_app() got an unexpected keyword argument {min(unknown)!r}")
    given = {**options, "namespace": namespace}
    if given.get("rules") is not None:
        given["rules"] = parse_rules(given["rules"])  # once, because an iterator can be read only once
    # flask-cloudwatch-metric <= 0.1.7 takes the Region as the third argument.
    if isinstance(client := given.pop("cloudwatch_client", None), str):
        given["region_name"], client = client, None
    given["cloudwatch_client"] = checked_client(client)
    return {name: value for name, value in given.items() if is_given(value)}


_live_reporters: "LiveObjects[CloudWatchMetricsReporter]" = LiveObjects()
"""The live reporters, in the order of their last ``init_app`` calls."""


initialize_metrics = CloudWatchMetricsReporter.new_reporter  # the predecessor has both names


def get_metrics() -> CloudWatchMetricsReporter:
    """Return the current app's reporter or, outside an app context, the only initialized reporter in the process.

    Raises :class:`ConfigurationError` if the current app has no reporter or, outside an app context, if the process has
    no initialized reporter or more than one.
    """
    if has_app_context():
        if (installation := _installation_in(_current_app())) is None:
            raise ConfigurationError(
                f"app {current_app.name!r} has no CloudWatchMetricsReporter; "
                "call initialize_metrics(app, ...) or init_app(app) where the app is created."
            )
        return installation.reporter
    reporters = list(_live_reporters)
    if len(reporters) != 1:
        raise ConfigurationError(
            "Outside an app context, get_metrics() requires exactly one initialized reporter, but there are "
            f"{len(reporters)}. Call initialize_metrics(app, ...), then get_metrics() in a request or inside "
            "`with app.app_context()`."
        )
    return reporters[0]


def _installation_in(app: Flask) -> _Installation | None:
    installation: _Installation | None = app.extensions.get(_EXTENSION_NAME)
    return installation


def _current_request_buffer() -> tuple[_Installation | None, RequestBuffer | None]:
    """Return the current app's installation and the current request's buffer, each ``None`` if there is none.

    The first call in a request creates the buffer.
    """
    try:
        current_g = _current_g()
    except RuntimeError:  # no app context
        return None, None
    if (found := _stored_in(current_g)) is not None:
        return found
    installation = _installation_in(_current_app())
    if installation is None or not has_request_context():
        return installation, None
    # Without the middleware, as in test_request_context(), nothing would end a buffer that is created by a teardown
    # function after _end_buffer has run. An app's custom class for g may have no __dict__ to store a buffer in.
    if (state := state_of(_current_request().environ)) is None or not hasattr(current_g, "__dict__"):
        return installation, None
    # Created by the first metric, because before_request does not run for a streamed body or a copied context.
    buffer = RequestBuffer(installation.registration.recorder)
    state.replace_buffer(buffer)
    setattr(current_g, _REQUEST_NAME, (installation, buffer))
    return installation, buffer


def _stored_in(current_g: Any) -> tuple[_Installation, RequestBuffer] | None:
    # Called at the end of every app context. getattr(g, ...) is slow for a missing name: it catches an exception.
    return getattr(current_g, "__dict__", {}).get(_REQUEST_NAME)


def _registration_elsewhere(reporter: CloudWatchMetricsReporter | None) -> Registration | None:
    """Return the latest registration of ``reporter`` on any app. If it has none, set it up without an app.

    Outside an app context, a ``reporter`` of ``None`` means the reporter that was initialized last. Returns ``None`` if
    there is no reporter, or if it cannot be set up. The metric is then lost.
    """
    if reporter is None and not has_app_context():
        reporter = next(reversed([*_live_reporters]), None)
    if reporter is None:
        _once.warning(
            "no reporter",
            "Metric dropped: no CloudWatchMetricsReporter was found. Call init_app(app) first, or call add_metric on a "
            "reporter.",
        )
    elif not reporter._is_set_up():  # noqa: SLF001  # this module's class
        reporter._unrecorded.lost_measurements(LossReason.NOT_SET_UP)  # noqa: SLF001  # this module's class
    else:
        return reporter._registrations[-1]  # noqa: SLF001  # this module's class
    return None


def drain_current_buffer() -> None:
    """Record the measurements buffered in the current app context."""
    if has_app_context() and (found := _stored_in(_current_g())):
        found[1].drain()


def _end_buffer(_error: BaseException | None) -> None:
    if found := _stored_in(_current_g()):
        found[1].end()


def _is_strict(configured: bool | None, app_reference: "weakref.ref[Flask]") -> bool:  # noqa: FBT001  # bound with partial
    if configured is not None:
        return configured
    app = app_reference()
    return app is not None and bool(app.debug or app.testing)


def _refuse_second_reporter(app: Flask) -> None:
    if _EXTENSION_NAME in app.extensions:
        raise ConfigurationError(
            f"app {app.name!r} already has a CloudWatchMetricsReporter; call init_app once per app, "
            "and get_metrics() wherever the reporter is needed.",
            key=f"app.extensions[{_EXTENSION_NAME!r}]",
            value=app,
        )


def _warn_of_misspelt_keys(app: Flask) -> None:
    for key, meant in misspelt_settings(app.config, os.environ).items():
        _once.warning(key, "Unknown setting %s is ignored; did you mean %s?", key, meant)


def _refuse_open_live_page(app: Flask, settings: Settings) -> None:
    if settings.live_page and not app.debug and settings.live_page_check is None:
        raise ConfigurationError(
            "Outside debug mode, LIVE_PAGE requires an access check. Set "
            'app.config["CLOUDWATCH_LIVE_PAGE_CHECK"] to a function that takes no arguments and returns whether the '
            "current request may access the page. With flask-login: "
            "lambda: current_user.is_authenticated and current_user.is_admin. With a shared secret: "
            'lambda: hmac.compare_digest(request.headers.get("X-Live-Page-Key", "").encode(), b"..."). '
            "On your own machine, use debug mode instead: flask run --debug, or app.debug = True before init_app.",
            key='app.config["CLOUDWATCH_LIVE_PAGE_CHECK"]',
        )


def _serve_live_page(app: Flask, registration: Registration) -> None:
    if registration.settings.live_page:
        from otel_cloudwatch_flask.live_page import serve_live_page  # noqa: PLC0415  # imported only by apps that serve it

        serve_live_page(app, registration.settings, registration.exporter)


def _instrument_app(app: Flask, registration: Registration) -> None:
    from opentelemetry.instrumentation.flask import FlaskInstrumentor  # noqa: PLC0415  # imported only on request

    app.url_value_preprocessor(_replace_untrusted_url)
    if not getattr(app, "_is_instrumented_by_opentelemetry", False):
        FlaskInstrumentor().instrument_app(  # type: ignore[no-untyped-call]
            app,
            meter_provider=registration.setup.meters,
            excluded_urls=_excluded_urls(registration.settings),
        )
        app.wsgi_app = raising(app.wsgi_app)  # type: ignore[method-assign, assignment]  # as Flask documents
        app.teardown_request(_count_raised_error)


def _count_raised_error(error: BaseException | None) -> None:
    """Count a request as status 500 if Flask raises the view's exception instead of responding, as in debug mode."""
    if error is not None:
        prepare_failure(request.environ)


def _replace_untrusted_url(_endpoint: str | None, _values: dict[str, Any] | None) -> None:
    """Prevent a SecurityError in FlaskInstrumentor, which reads ``request.url`` even if the host is not trusted."""
    try:
        _ = request.url
    except SecurityError:
        request.url = ""


def _excluded_urls(settings: Settings) -> str | None:
    """Return a pattern of URLs not to instrument: the live page, and the URLs that the environment excludes.

    Returns ``None`` if there is no live page. FlaskInstrumentor then reads the environment.
    """
    if not settings.live_page:
        return None
    from otel_cloudwatch_flask.live_page import url_pattern  # noqa: PLC0415  # already imported by _serve_live_page

    named = os.environ.get("OTEL_PYTHON_FLASK_EXCLUDED_URLS", os.environ.get("OTEL_PYTHON_EXCLUDED_URLS", ""))
    return ",".join([*filter(None, [named]), url_pattern(settings)])
