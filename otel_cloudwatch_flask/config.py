"""The settings, and the sources from which :meth:`Settings.resolve` reads them.

The sources of a value, in order of precedence, are the argument, ``app.config["CLOUDWATCH_<KEY>"]``, the field in
OpenTelemetry's configuration file, the environment variables ``OTEL_EXPORTER_CLOUDWATCH_<KEY>`` and
``CLOUDWATCH_<KEY>``, certain OpenTelemetry or AWS variables, and finally the default.
"""

import difflib
import json
import logging
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, TextIO, TypeAlias, get_args

from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.limits import MAX_NAMESPACE_LENGTH, RESERVED_NAMESPACE_PREFIX
from otel_cloudwatch_flask.model.dimension_arguments import dimension_texts
from otel_cloudwatch_flask.model.rules import MetricRule, names_in, parse_rules
from otel_cloudwatch_flask.runtime.rate_limited_log import RateLimitedLog
from otel_cloudwatch_flask.runtime.safe_text import safe_repr

FlushPolicy: TypeAlias = Literal["background", "sync", "interval"]
Output: TypeAlias = Literal["api", "emf"]
AccessCheck: TypeAlias = Callable[[], object] | str
"""A function without arguments, or its name as ``module:function``."""
Parser: TypeAlias = Callable[[object], object]
"""Parses a raw value, or raises ``ValueError`` with a message that completes the sentence "<key>=<value> ..."."""

Source: TypeAlias = Mapping[str, Any]
"""A mapping of raw settings: the arguments, ``app.config`` or the environment."""

APP_CONFIG_PREFIX: Final = "CLOUDWATCH_"
ENVIRONMENT_PREFIX: Final = "OTEL_EXPORTER_CLOUDWATCH_"
_LAMBDA_VARIABLE: Final = "AWS_LAMBDA_FUNCTION_NAME"


_once = RateLimitedLog(logging.getLogger(__name__))


class DefaultFloat(float):
    """A default value that :func:`is_given` distinguishes from an equal float passed by the caller."""

    __slots__ = ()


class DefaultInt(int):
    """A default value that :func:`is_given` distinguishes from an equal int passed by the caller."""

    __slots__ = ()


DEFAULT_EXPORT_INTERVAL_SECONDS: Final = DefaultFloat(60.0)
DEFAULT_FLUSH_MIN_INTERVAL_SECONDS: Final = DefaultFloat(10.0)
"""The default of ``flush_min_interval_seconds``. CloudWatch stores metrics by the minute and bills each call, so more
frequent calls gain little.
"""
FAST_FLUSH_MIN_INTERVAL_SECONDS: Final = 1.0
"""The default of ``flush_min_interval_seconds`` in debug mode, or if a rule has ``storage_resolution=1``."""
DEFAULT_MAX_METRICS: Final = DefaultInt(1000)
DEFAULT_MAX_BACKLOG_BYTES: Final = DefaultInt(64 * 2**20)


_file_fields: dict[str, object] = {}
"""The settings in OpenTelemetry's configuration file. Like the environment, they apply to the whole process."""


def use_configuration_file(fields: Source) -> None:
    """Use the fields of a ``cloudwatch`` exporter in OpenTelemetry's configuration file as settings.

    Raises :class:`ConfigurationError` if a field is not the name of a setting.
    """
    names = [key.field for key in KEYS]
    if unknown := sorted(fields.keys() - set(names)):
        meant = difflib.get_close_matches(unknown[0], names, n=1)
        guess = f" Did you mean {meant[0]!r}?" if meant else ""
        raise ConfigurationError(
            f"The cloudwatch exporter has no field {unknown[0]!r}.{guess} Its fields are {', '.join(names)}.",
            key=unknown[0],
            value=fields[unknown[0]],
        )
    _file_fields.clear()
    _file_fields.update(fields)


def parse_namespace(value: object) -> str:
    """Return ``value`` if it is a valid CloudWatch namespace; raise ``ValueError`` otherwise."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("is not a valid namespace; use a name such as 'Shop'")
    if value.startswith(RESERVED_NAMESPACE_PREFIX):
        raise ValueError("is reserved for AWS's own services; use a name that does not start with 'AWS/'")
    if value.startswith(":"):
        raise ValueError("is not a valid namespace; use a name that does not start with a colon")
    if not (value.isascii() and value.isprintable()):
        raise ValueError("is not a valid namespace; use printable ASCII characters only")
    if len(value) > MAX_NAMESPACE_LENGTH:
        raise ValueError(f"is too long for a namespace; use at most {MAX_NAMESPACE_LENGTH} characters")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("is not a valid name; use a non-empty string")
    return value.strip()


def _one_of(what: str, literal: object) -> Parser:
    """Return a parser that accepts the values of a ``Literal`` type, ignoring case."""
    choices = get_args(literal)

    def parse(value: object) -> object:
        choice = value.strip().lower() if isinstance(value, str) else value
        if choice in choices:
            return choice
        raise ValueError(f"is not {what}; use one of {str(choices)[1:-1]}.")

    return parse


_flush_policy: Final = _one_of("a flush policy", FlushPolicy)


def _seconds(value: object) -> float:
    """Parse a duration in seconds, which may be 0."""
    # NaN, which _number() returns for invalid values, fails every comparison.
    if not 0 <= (seconds := _number(value)) < math.inf:
        raise ValueError("is not a duration; use a number of seconds, 0 or more")
    return seconds


def _seconds_above_zero(value: object) -> float:
    if not 0 < (seconds := _number(value)) < math.inf:
        raise ValueError("is not a positive duration; use a number of seconds greater than 0")
    return seconds


def _milliseconds(value: object) -> float:
    if not 0 < (milliseconds := _number(value)) < math.inf:
        raise ValueError("is not a positive duration; use a number of milliseconds greater than 0")
    return milliseconds / 1000


def _timeout_in_milliseconds(value: object) -> float:
    # OpenTelemetry defines 0 as no limit:
    # https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#timeout
    return math.inf if _number(value) == 0 else _milliseconds(value)


def _number(value: object) -> float:
    """Return ``value`` as a float, or NaN if it is not a number."""
    # A bool is an int, but True or False in place of a number is more likely a mistake than a way to write 1 or 0.
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            return math.nan
    return math.nan


def _count(value: object) -> int:
    if not ((number := _number(value)) >= 1 and number.is_integer()):
        raise ValueError("is not a positive integer; use 1 or more")
    return int(number)


_BOOLEANS: Final = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


def _boolean(value: object) -> bool:
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    if not isinstance(value, str) or (word := value.strip().lower()) not in _BOOLEANS:
        raise ValueError("is neither true nor false; use one of " + ", ".join(_BOOLEANS))
    return _BOOLEANS[word]


def _url_path(value: object) -> str:
    # No segment may begin with a dot, because browsers resolve '..' before they send the request.
    if not isinstance(value, str) or not re.fullmatch(r"(/[\w~-][\w.~-]*)+", value, re.ASCII):
        raise ValueError(
            "is not a valid URL path; use one such as '/ops/cloudwatch', with letters, digits, '_', '~', '-' and, "
            "except after a slash, '.'"
        )
    return value


def _access_check(value: object) -> AccessCheck:
    # A named function is imported when it is called. Its module may not be importable yet.
    if isinstance(value, str) and re.fullmatch(r"[\w.]+:[\w.]+", value):
        return value
    if not callable(value):
        raise ValueError(  # noqa: TRY004 - Key.resolve turns it into a ConfigurationError
            "is not an access check; use a function that takes no arguments, or its name as 'module:function'"
        )
    return value


def _directory(value: object) -> Path:
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ValueError("is not a directory; use a path that this process may write to")
    return Path(os.fsdecode(value))


def _dimensions(value: object) -> Mapping[str, str]:
    mapping = _dimensions_from_text(value) if isinstance(value, str) else value
    if not isinstance(mapping, Mapping):
        raise ValueError("is not a mapping of dimensions; use a mapping of names to values")  # noqa: TRY004 - Key.resolve turns it into a ConfigurationError
    try:
        # Read-only, like the settings object.
        return MappingProxyType(dimension_texts(mapping))
    except ValueError as problem:
        raise ValueError(f"is invalid: {problem}") from None


def _rules(value: object) -> tuple[MetricRule, ...]:
    rules: Any = _from_json(value) if isinstance(value, str) else value
    try:
        return parse_rules(rules)
    except ConfigurationError as problem:
        raise ValueError(f"is invalid: {problem}") from None


def _attribute_names(value: object) -> tuple[str, ...]:
    names = names_in([name.strip() for name in value.split(",")] if isinstance(value, str) else value)
    if names is None:
        raise ValueError("is not a list of attribute names; use a list of names")
    return names


def _from_json(text: str) -> object:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"is not JSON: {error}; use double quotes, and no trailing comma") from None


def _dimensions_from_text(text: str) -> object:
    """Parse a JSON object or ``name=value,name=value``."""
    if text.lstrip().startswith("{"):
        return _from_json(text)
    pairs = [pair.split("=", maxsplit=1) for pair in text.split(",") if pair.strip()]
    try:
        return {name.strip(): value.strip() for name, value in pairs}
    except ValueError:
        raise ValueError("is not a list of dimensions; use name=value,name=value or a JSON object") from None


def is_given(value: object) -> bool:
    """Return whether the caller passed ``value``, as opposed to leaving the argument at its default."""
    return value is not None and not isinstance(value, (DefaultFloat, DefaultInt))


@dataclass(frozen=True, slots=True)
class Key:
    """The definition of one setting.

    :param parse: parser for values from all sources except ``fallbacks``.
    :param default: value to use if no source provides one, or a function that computes it. The function takes the
        arguments of :meth:`resolve`.
    :param fallbacks: AWS and OpenTelemetry environment variables that also provide a value, each with its parser.
    :param field: name of the :class:`Settings` field that stores the value.
    """

    parse: Parser
    default: object = None
    fallbacks: tuple[tuple[str, Parser], ...] = ()
    field: str = ""

    @property
    def name(self) -> str:
        """The name of the setting in ``app.config`` and in the environment, without the prefix."""
        return self.field.removesuffix("_name").upper()

    @property
    def app_config_name(self) -> str:
        """The key of the setting in ``app.config``, and its short name in the environment."""
        return APP_CONFIG_PREFIX + self.name

    @property
    def variable(self) -> str:
        """The full name of the setting in the environment."""
        return ENVIRONMENT_PREFIX + self.name

    def resolve(self, arguments: Source, app_config: Source, environ: Source) -> object:
        """Return the parsed value of the source that takes precedence, or the default if no source has a value.

        Raises :class:`ConfigurationError` if the value is invalid.
        """
        given = self._given(arguments, app_config, environ)
        if given is None:
            return self.default(arguments, app_config, environ) if callable(self.default) else self.default
        source, value, parse = given
        try:
            return parse(value)
        except ValueError as problem:
            message = f"{source}={safe_repr(value)} {problem}".rstrip(".") + "."
            raise ConfigurationError(message, key=source, value=value) from None

    def source(self, arguments: Source, app_config: Source, environ: Source) -> str | None:
        """Return the name that error messages use for the source of the value, or ``None`` if the default applies."""
        given = self._given(arguments, app_config, environ)
        return given[0] if given else None

    def _given(self, arguments: Source, app_config: Source, environ: Source) -> tuple[str, object, Parser] | None:
        """Return the name, raw value and parser of the source that takes precedence, or ``None`` if there is none."""
        variables = {self.variable: self.parse, self.app_config_name: self.parse, **dict(self.fallbacks)}
        candidates = [
            (self.field, arguments.get(self.field), self.parse),
            (f'app.config["{self.app_config_name}"]', app_config.get(self.app_config_name), self.parse),
            (f"configuration file: {self.field}", _file_fields.get(self.field), self.parse),
            # OpenTelemetry treats an empty variable as unset:
            # https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#parsing-empty-value
            *((name, environ.get(name) or None, parse) for name, parse in variables.items()),
        ]
        return next((candidate for candidate in candidates if is_given(candidate[1])), None)


def _flush_min_interval(arguments: Source, app_config: Source, environ: Source) -> float:
    """Return the default of ``flush_min_interval_seconds``, which depends on the rules and on debug mode."""
    rules: Any = next(key for key in KEYS if key.field == "rules").resolve(arguments, app_config, environ)
    is_fast = app_config.get("DEBUG") or any(rule.storage_resolution == 1 for rule in rules)
    return FAST_FLUSH_MIN_INTERVAL_SECONDS if is_fast else float(DEFAULT_FLUSH_MIN_INTERVAL_SECONDS)


def _is_in_debug_mode(_arguments: Source, app_config: Source, _environ: Source) -> bool:
    return bool(app_config.get("DEBUG"))


@dataclass(frozen=True, slots=True)
class Settings:
    """The parsed and validated settings. The documentation of each setting is generated from its docstring below."""

    namespace: Annotated[str | None, Key(parse_namespace)]
    """CloudWatch namespace of the metrics. Default: the service name (OTEL_SERVICE_NAME). If no service name is set, a
    reporter uses the name of the Flask app or, without an app, of the program.
    """
    region_name: Annotated[str | None, Key(_text, fallbacks=(("AWS_REGION", _text), ("AWS_DEFAULT_REGION", _text)))]
    """AWS Region that receives the metrics. A client that you pass uses its own Region instead. Default: the Region
    that boto3 resolves, for example from the profile.
    """
    # Lambda suspends the process after the response, so a background flush might not run before the next invocation.
    flush: Annotated[
        FlushPolicy, Key(_flush_policy, default="background", fallbacks=((_LAMBDA_VARIABLE, lambda _: "sync"),))
    ]
    """What happens when a request ends: 'background' triggers a flush without waiting for it, 'sync' waits for a flush,
    and 'interval' leaves the metrics to the next periodic flush. Default: 'background', or 'sync' on AWS Lambda.
    """
    flush_min_interval_seconds: Annotated[float, Key(_seconds, default=_flush_min_interval)]
    """Minimum time, in seconds, between flushes triggered by requests, if FLUSH is 'background'. Default: 10, or 1 in
    debug mode or if a rule has storage_resolution=1.
    """
    export_interval_seconds: Annotated[
        float,
        Key(
            _seconds_above_zero,
            default=float(DEFAULT_EXPORT_INTERVAL_SECONDS),
            fallbacks=(("OTEL_METRIC_EXPORT_INTERVAL", _milliseconds),),
        ),
    ]
    """Interval between periodic flushes, in seconds. OTEL_METRIC_EXPORT_INTERVAL is in milliseconds."""
    export_timeout_seconds: Annotated[
        float,
        Key(_seconds_above_zero, default=30.0, fallbacks=(("OTEL_METRIC_EXPORT_TIMEOUT", _timeout_in_milliseconds),)),
    ]
    """Timeout of a background flush, in seconds. OTEL_METRIC_EXPORT_TIMEOUT is in milliseconds, and 0 means no limit. A
    background flush also ends when the next periodic flush is due. The next flush retries metrics that could not be
    sent.
    """
    sync_timeout_seconds: Annotated[float, Key(_seconds, default=2.0)]
    """Maximum time, in seconds, that a request waits for its flush if FLUSH is 'sync'. The next flush retries metrics
    that could not be sent.
    """
    default_dimensions: Annotated[Mapping[str, str], Key(_dimensions, default=MappingProxyType({}))]
    """Dimensions added to every metric recorded with add_metric. A dimension of the same name passed to add_metric
    takes precedence. Format in the environment: name=value,name=value or a JSON object.
    """
    max_metrics: Annotated[int, Key(_count, default=int(DEFAULT_MAX_METRICS))]
    """Maximum number of distinct CloudWatch metrics per exporter, including overflow series. Metrics that have been
    idle for an hour do not count toward the limit.
    """
    max_backlog_bytes: Annotated[int, Key(_count, default=int(DEFAULT_MAX_BACKLOG_BYTES))]
    """Maximum size of unsent metrics in memory, in bytes of uncompressed JSON."""
    spool_directory: Annotated[Path | None, Key(_directory)]
    """Directory in which unsent metrics are kept across restarts. Exporters that share a directory must publish to the
    same AWS account and Region, because each one also sends what others have left there. Not supported on Windows or if
    OUTPUT is 'emf'. Default: unsent metrics are kept in memory only.
    """
    strict: Annotated[bool | None, Key(_boolean)]
    """Whether add_metric raises InvalidMetricError for an invalid metric. If false, the error is logged, and the metric
    is counted as lost. Default: true if app.debug or app.testing is true.
    """
    enabled: Annotated[bool, Key(_boolean, default=True)]
    """Whether to send metrics. If false, or if OTEL_SDK_DISABLED is true, your code runs unchanged, but nothing is
    sent.
    """
    rules: Annotated[tuple[MetricRule, ...], Key(_rules, default=())]
    """Rules for publishing metrics: a list of MetricRule objects, or of mappings with the same fields. The first rule
    that matches the name of a metric applies to it. Format in the environment: a JSON array of objects.
    """
    resource_dimensions: Annotated[tuple[str, ...], Key(_attribute_names, default=())]
    """Resource attributes published as dimensions. A rollup has such a dimension only if it lists the attribute.
    Format in the environment: comma-separated names.
    """
    entity: Annotated[bool, Key(_boolean, default=False)]
    """Whether to associate the metrics with the service, so that 'Explore related' in CloudWatch finds them. Has no
    effect if no service name is set (OTEL_SERVICE_NAME), or if OUTPUT is 'emf'.
    """
    self_metrics: Annotated[bool, Key(_boolean, default=False)]
    """Whether the reporter publishes metrics about its own delivery, named otel_cloudwatch_flask.delivery.*."""
    dry_run: Annotated[bool, Key(_boolean, default=False)]
    """Whether to process and count metrics without sending them. If true, the spool is not used."""
    output: Annotated[Output, Key(_one_of("an output", Output), default="api")]
    """How metrics reach CloudWatch. 'api' sends PutMetricData requests. 'emf' writes lines in the embedded metric
    format to standard output, and CloudWatch Logs extracts the metrics from the lines.
    """
    live_page: Annotated[bool, Key(_boolean, default=_is_in_debug_mode)]
    """Whether the app serves the live page. Default: the value of app.debug when init_app is called. Outside debug
    mode, the live page requires LIVE_PAGE_CHECK.
    """
    live_page_path: Annotated[str, Key(_url_path, default="/_cloudwatch")]
    """URL path of the live page."""
    live_page_check: Annotated[AccessCheck | None, Key(_access_check)]
    """Function that takes no arguments and returns whether the current request may access the live page, or the name of
    such a function as 'module:function'. Default: only requests from this machine may access it, and only in debug
    mode.
    """
    # The text stream for EMF lines, or None for standard output. Only an argument can provide it, so it has no key.
    stream: TextIO | None = None

    @classmethod
    def resolve(cls, *, arguments: Source, app_config: Source, environ: Source) -> "Settings":
        """Build the settings from the arguments, ``app.config``, the configuration file and the environment.

        The keys of ``arguments`` are field names.

        Raises :class:`ConfigurationError` for the first invalid value, with a message that names its source.
        """
        values: dict[str, Any] = {key.field: key.resolve(arguments, app_config, environ) for key in KEYS}
        # Not a fallback of the key, because OTEL_SDK_DISABLED overrides even an argument.
        values["enabled"] = values["enabled"] and not sdk_is_disabled(environ)
        if values["output"] == "emf":
            _warn_of_unused(arguments, app_config, environ)
            values |= {"spool_directory": None, "entity": False}
        return cls(**values, stream=_checked_stream(arguments.get("stream")))

    def with_arguments(self, **arguments: object) -> "Settings":
        """Return a copy with the given ``arguments``. Raises :class:`ConfigurationError` for an invalid one."""
        given: Any = {key.field: key.resolve(arguments, {}, {}) for key in KEYS if is_given(arguments.get(key.field))}
        return replace(self, **given)


KEYS: Final[tuple[Key, ...]] = tuple(
    replace(hint.__metadata__[0], field=name) for name, hint in Settings.__annotations__.items() if name != "stream"
)
"""The definitions of all settings, in the order in which the documentation lists them."""


def _checked_stream(stream: TextIO | None) -> TextIO | None:
    """Return ``stream``, and raise :class:`ConfigurationError` if it is an object without a ``write`` method."""
    if stream is None or callable(getattr(stream, "write", None)):
        return stream
    message = f"stream={safe_repr(stream)} has no write method; pass an open text file, or omit it for standard output."
    raise ConfigurationError(message, key="stream", value=stream)


def _warn_of_unused(arguments: Source, app_config: Source, environ: Source) -> None:
    """Log a warning for each given setting or argument that has no effect with EMF.

    Does not warn about AWS's own environment variables, because they may be set for other reasons.
    """
    given = [name for name in ("client", "cloudwatch_client", "credentials") if arguments.get(name)]
    keys = [replace(key, fallbacks=()) for key in KEYS if key.field in {"region_name", "spool_directory", "entity"}]
    for name in (*given, *filter(None, (key.source(arguments, app_config, environ) for key in keys))):
        _once.warning(name, "%s is not used with output='emf', which sends no requests. Remove it.", name)


def sdk_is_disabled(environ: Mapping[str, str]) -> bool:
    """Return whether ``OTEL_SDK_DISABLED`` is true, parsed as the OpenTelemetry SDK parses it."""
    return environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def is_in_lambda(environ: Mapping[str, str]) -> bool:
    """Return whether this process runs in AWS Lambda, which suspends it between invocations.

    https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime
    """
    return bool(environ.get(_LAMBDA_VARIABLE))


def misspelt_settings(app_config: Source, environ: Source) -> dict[str, str]:
    """Map each misspelled key of ``app_config`` and the environment to the most similar key of a setting."""
    return {
        **misspelt_keys(app_config, APP_CONFIG_PREFIX),
        **misspelt_keys(environ, APP_CONFIG_PREFIX),
        **misspelt_keys(environ, ENVIRONMENT_PREFIX),
    }


def misspelt_keys(mapping: Mapping[str, Any], prefix: str) -> dict[str, str]:
    """Map each unknown key that starts with ``prefix`` to the most similar key of a setting.

    Keys that resemble no setting are left out.

    >>> misspelt_keys({"CLOUDWATCH_NAMESPCE": "Shop", "CLOUDWATCH_ALARM_TOPIC": ""}, "CLOUDWATCH_")
    {'CLOUDWATCH_NAMESPCE': 'CLOUDWATCH_NAMESPACE'}
    """
    names = [key.name for key in KEYS]
    misspelt = {}
    for key in map(str, mapping):  # an app's config may have keys of any type
        name = key.removeprefix(prefix)
        if key.startswith(prefix) and name not in names:
            # The cutoff is high enough to ignore other packages' keys, such as CLOUDWATCH_LOG_REGION.
            for match in difflib.get_close_matches(name, names, n=1, cutoff=0.76):
                misspelt[key] = prefix + match
    return misspelt


def given_fields(*, arguments: Source, app_config: Source) -> set[str]:
    """Return the fields of the settings that an argument or ``app.config`` provides. Other sources are ignored."""
    return {
        key.field for key in KEYS if is_given(arguments.get(key.field)) or is_given(app_config.get(key.app_config_name))
    }
