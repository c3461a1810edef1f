"""The settings: one table of keys, and one frozen object that is built from it.

The precedence is the same for every setting: argument, ``app.config["CLOUDWATCH_<KEY>"]``, environment variable
``OTEL_EXPORTER_CLOUDWATCH_<KEY>``, the equivalent variable of OpenTelemetry or AWS, default.
"""

import difflib
import json
import math
import os
import pkgutil
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, TypeAlias, cast, get_type_hints

from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.limits import MAX_NAMESPACE_LENGTH, RESERVED_NAMESPACE_PREFIX
from otel_cloudwatch_flask.model.dimension_arguments import dimension_texts
from otel_cloudwatch_flask.model.rules import MetricRule, parse_rules
from otel_cloudwatch_flask.runtime.safe_text import safe_repr

FlushPolicy: TypeAlias = Literal["background", "sync", "interval"]
Parser: TypeAlias = Callable[[object], object]
"""Parse a raw value, or raise a ``ValueError`` whose message continues "<key>=<value> ..."."""

Source: TypeAlias = Mapping[str, Any]
"""A source of raw settings: arguments, ``app.config`` or the environment."""

APP_CONFIG_PREFIX: Final = "CLOUDWATCH_"
ENVIRONMENT_PREFIX: Final = "OTEL_EXPORTER_CLOUDWATCH_"
_LAMBDA_VARIABLE: Final = "AWS_LAMBDA_FUNCTION_NAME"


class DefaultFloat(float):
    """A default value, distinguishable from the same number passed by the caller."""

    __slots__ = ()


class DefaultInt(int):
    """A default value, distinguishable from the same number passed by the caller."""

    __slots__ = ()


DEFAULT_EXPORT_INTERVAL_SECONDS: Final = DefaultFloat(60.0)
DEFAULT_FLUSH_MIN_INTERVAL_SECONDS: Final = DefaultFloat(1.0)
DEFAULT_MAX_METRICS: Final = DefaultInt(1000)
DEFAULT_MAX_BACKLOG_BYTES: Final = DefaultInt(64 * 2**20)


def parse_namespace(value: object) -> str:
    """Return ``value`` if it is a valid CloudWatch namespace; raise ``ValueError`` otherwise."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("is not a namespace; use a name such as 'Shop'")
    if value.startswith(RESERVED_NAMESPACE_PREFIX):
        raise ValueError("is reserved for AWS's own services; use a name that does not start with 'AWS/'")
    if value.startswith(":"):
        raise ValueError("is not a namespace; use a name that does not start with a colon")
    if not (value.isascii() and value.isprintable()):
        raise ValueError("is not a namespace; use printable ASCII characters only")
    if len(value) > MAX_NAMESPACE_LENGTH:
        raise ValueError(f"is too long for a namespace; use at most {MAX_NAMESPACE_LENGTH} characters")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("is not a valid name; use a non-empty string")
    return value.strip()


def _flush_policy(value: object) -> FlushPolicy:
    policy = value.strip().lower() if isinstance(value, str) else value
    if policy in ("background", "sync", "interval"):
        return policy
    raise ValueError("is not a flush policy; use one of 'background', 'sync', 'interval'.")


def _seconds(value: object) -> float:
    """Parse a duration in seconds, zero included."""
    if not 0 <= (seconds := _number(value)) < math.inf:
        raise ValueError("is not a duration; use a number of seconds, 0 or more")
    return seconds


def _seconds_above_zero(value: object) -> float:
    if not 0 < (seconds := _number(value)) < math.inf:
        raise ValueError("is not an interval; use a number of seconds greater than 0")
    return seconds


def _milliseconds(value: object) -> float:
    if not 0 < (milliseconds := _number(value)) < math.inf:
        raise ValueError("is not an interval; use a number of milliseconds greater than 0")
    return milliseconds / 1000


def _number(value: object) -> float:
    """Parse a number; return NaN for anything else."""
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
    if not isinstance(value, str) or not re.fullmatch(r"(/[\w~-][\w.~-]*)+", value, re.ASCII):
        raise ValueError("is not a path; use one such as '/ops/cloudwatch', of letters, digits and '.', '_', '~', '-'")
    return value


@dataclass(frozen=True, slots=True)
class NamedFunction:
    """A function given as ``module:function``; it is imported at each call, because its module may not exist yet.

    >>> NamedFunction("os.path:basename")("/a/b")
    'b'
    """

    name: str

    def __call__(self, *arguments: object) -> object:
        """Import the function and call it."""
        return pkgutil.resolve_name(self.name)(*arguments)


def _check(value: object) -> Callable[[], object]:
    if isinstance(value, str) and re.fullmatch(r"[\w.]+:[\w.]+", value):
        return NamedFunction(value)
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
    names = map(str.strip, value.split(",")) if isinstance(value, str) else value
    given = tuple(names) if isinstance(names, Iterable) else (None,)
    if not all(map(_is_name, given)):
        raise ValueError("is not a list of attribute names; use a list of names")
    return cast("tuple[str, ...]", given)


def _is_name(name: object) -> bool:
    return isinstance(name, str) and bool(name)


def _from_json(text: str) -> object:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"is not JSON: {error}; put strings in double quotes, without a trailing comma") from None


def _dimensions_from_text(text: str) -> object:
    """Parse dimensions from an environment variable: a JSON object, or ``name=value,name=value``."""
    if text.lstrip().startswith("{"):
        return _from_json(text)
    return dict(map(_pair_from_text, filter(str.strip, text.split(","))))


def _pair_from_text(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise ValueError("is not a list of dimensions; use name=value,name=value or a JSON object")
    return name.strip(), value.strip()


def is_given(value: object) -> bool:
    """Whether the caller passed a value, as opposed to leaving the argument at its default."""
    return value is not None and not isinstance(value, (DefaultFloat, DefaultInt))


def _parsed(source: str, value: object, parse: Parser) -> object:
    try:
        return parse(value)
    except ValueError as problem:
        message = f"{source}={safe_repr(value)} {problem}".rstrip(".") + "."
        raise ConfigurationError(message, key=source, value=value) from None


@dataclass(frozen=True, slots=True)
class Key:
    """One setting: its parser, its default, and the field of :class:`Settings` that stores it.

    ``fallbacks`` are equivalent environment variables of AWS and OpenTelemetry, each with its own parser.
    """

    parse: Parser
    default: object = None
    fallbacks: tuple[tuple[str, Parser], ...] = ()
    field: str = ""

    @property
    def name(self) -> str:
        """The name in ``app.config`` and the environment, without the prefix."""
        return self.field.removesuffix("_name").upper()

    @property
    def app_config_name(self) -> str:
        """The key in ``app.config``."""
        return APP_CONFIG_PREFIX + self.name

    @property
    def variable(self) -> str:
        """The environment variable."""
        return ENVIRONMENT_PREFIX + self.name

    def resolve(self, arguments: Source, app_config: Source, environ: Source) -> object:
        """Parse and return the first value found, in order of precedence; return the default if there is none."""
        found = next(self._given(arguments, app_config, environ), None)
        return _parsed(*found) if found else self.default

    def source(self, arguments: Source, app_config: Source, environ: Source) -> str | None:
        """The source of the effective value, as error messages name it; ``None`` for the default."""
        found = next(self._given(arguments, app_config, environ), None)
        return found[0] if found else None

    def _given(self, arguments: Source, app_config: Source, environ: Source) -> Iterator[tuple[str, object, Parser]]:
        """Yield source, raw value and parser wherever the setting is present, in order of precedence."""
        candidates = [
            (self.field, arguments.get(self.field), self.parse),
            (f'app.config["{self.app_config_name}"]', app_config.get(self.app_config_name), self.parse),
            # OpenTelemetry treats an empty variable as unset:
            # https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#parsing-empty-value
            (self.variable, environ.get(self.variable) or None, self.parse),
            *((name, environ.get(name) or None, parse) for name, parse in self.fallbacks),
        ]
        return (candidate for candidate in candidates if is_given(candidate[1]))


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, parsed and validated. The settings tables of the docs are generated from the docstrings below."""

    namespace: Annotated[str | None, Key(parse_namespace)]
    """CloudWatch namespace of the metrics. Default: the service name (OTEL_SERVICE_NAME), else the Flask app's name."""
    region_name: Annotated[str | None, Key(_text, fallbacks=(("AWS_REGION", _text), ("AWS_DEFAULT_REGION", _text)))]
    """AWS Region that receives the metrics. Default: the Region boto3 resolves, for example from the profile."""
    flush: Annotated[
        FlushPolicy, Key(_flush_policy, default="background", fallbacks=((_LAMBDA_VARIABLE, lambda _: "sync"),))
    ]
    """What happens when a request ends: 'background' requests a flush and returns, 'sync' waits for the flush,
    'interval' leaves it to the next periodic flush. The default in AWS Lambda is 'sync'.
    """
    flush_min_interval_seconds: Annotated[float, Key(_seconds, default=float(DEFAULT_FLUSH_MIN_INTERVAL_SECONDS))]
    """Minimum time between two request-triggered flushes, in seconds."""
    export_interval_seconds: Annotated[
        float,
        Key(
            _seconds_above_zero,
            default=float(DEFAULT_EXPORT_INTERVAL_SECONDS),
            fallbacks=(("OTEL_METRIC_EXPORT_INTERVAL", _milliseconds),),
        ),
    ]
    """Interval between periodic flushes, in seconds."""
    export_timeout_seconds: Annotated[
        float, Key(_seconds_above_zero, default=30.0, fallbacks=(("OTEL_METRIC_EXPORT_TIMEOUT", _milliseconds),))
    ]
    """Timeout of a background flush, in seconds; the export interval if that is shorter. Metrics it could not send are
    retried by the next one.
    """
    default_dimensions: Annotated[Mapping[str, str], Key(_dimensions, default=MappingProxyType({}))]
    """Dimensions added to every add_metric call; a dimension passed to the call itself takes precedence. In the
    environment: name=value,name=value or a JSON object.
    """
    max_metrics: Annotated[int, Key(_count, default=int(DEFAULT_MAX_METRICS))]
    """Maximum number of distinct CloudWatch metrics per exporter, overflow series included."""
    max_backlog_bytes: Annotated[int, Key(_count, default=int(DEFAULT_MAX_BACKLOG_BYTES))]
    """Maximum memory for metrics waiting to be sent, in bytes."""
    spool_directory: Annotated[Path | None, Key(_directory)]
    """Directory that keeps unsent metrics across restarts. Default: they are kept in memory only."""
    strict: Annotated[bool | None, Key(_boolean)]
    """Whether add_metric raises InvalidMetricError for an invalid metric instead of counting and logging it. Default:
    in debug mode and in tests.
    """
    enabled: Annotated[bool, Key(_boolean, default=True)]
    """If false, the API works as usual and nothing is sent; OTEL_SDK_DISABLED=true has the same effect."""
    rules: Annotated[tuple[MetricRule, ...], Key(_rules, default=())]
    """What is published of each metric: a list of MetricRule objects or of mappings of their fields; the first match
    applies. In the environment: a JSON array.
    """
    resource_dimensions: Annotated[tuple[str, ...], Key(_attribute_names, default=())]
    """Resource attributes published as dimensions of every metric. In the environment: separated by commas."""
    entity: Annotated[bool, Key(_boolean, default=False)]
    """Whether requests name the service that the metrics belong to, for CloudWatch's 'Explore related'."""
    self_metrics: Annotated[bool, Key(_boolean, default=False)]
    """Whether the reporter publishes metrics about its own delivery, otel_cloudwatch_flask.delivery.*."""
    dry_run: Annotated[bool, Key(_boolean, default=False)]
    """If true, everything runs except the network call; requests that would be sent are counted as sent."""
    live_page: Annotated[bool | None, Key(_boolean)]
    """Whether the app serves the live page, which shows what it publishes. Default: app.debug at the time of init_app.
    Outside debug mode the page requires LIVE_PAGE_CHECK.
    """
    live_page_path: Annotated[str, Key(_url_path, default="/_cloudwatch")]
    """URL path of the live page."""
    live_page_check: Annotated[Callable[[], object] | None, Key(_check)]
    """Callable without arguments, or 'module:function', that returns True if the current request may see the live page.
    Default: loopback only, in debug mode only.
    """

    @classmethod
    def resolve(cls, *, arguments: Source, app_config: Source, environ: Source) -> "Settings":
        """Build the settings from the three sources; the keys of ``arguments`` are field names.

        Raises :class:`ConfigurationError` for the first invalid value; the message names the key it came from.
        """
        values = {key.field: key.resolve(arguments, app_config, environ) for key in KEYS}
        values["enabled"] = values["enabled"] and not sdk_is_disabled(environ)
        return cls(**cast("dict[str, Any]", values))


KEYS: Final[tuple[Key, ...]] = tuple(
    replace(hint.__metadata__[0], field=name) for name, hint in get_type_hints(Settings, include_extras=True).items()
)
"""All settings, in the order of the docs."""


def sdk_is_disabled(environ: Mapping[str, str]) -> bool:
    """Whether ``OTEL_SDK_DISABLED`` is true, by the SDK's own parsing."""
    return environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def is_in_lambda(environ: Mapping[str, str]) -> bool:
    """Whether this process runs in AWS Lambda, which suspends it between invocations.

    https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime
    """
    return bool(environ.get(_LAMBDA_VARIABLE))


def misspelt_keys(mapping: Mapping[str, Any], prefix: str) -> dict[str, str]:
    """Map each unknown key with our prefix to the setting it most resembles.

    >>> misspelt_keys({"CLOUDWATCH_NAMESPCE": "Shop", "CLOUDWATCH_ALARM_TOPIC": ""}, "CLOUDWATCH_")
    {'CLOUDWATCH_NAMESPCE': 'CLOUDWATCH_NAMESPACE'}
    """
    names = [key.name for key in KEYS]
    unknown = [key.removeprefix(prefix) for key in mapping if key.startswith(prefix)]
    # Strict enough to ignore other packages' keys, such as CLOUDWATCH_LOG_REGION.
    meant = {name: difflib.get_close_matches(name, names, n=1, cutoff=0.76) for name in unknown}
    return {prefix + name: prefix + match[0] for name, match in meant.items() if match not in ([], [name])}


def are_given(fields: Collection[str], *, arguments: Source, app_config: Source) -> bool:
    """Whether any of these settings is an argument or in ``app.config``, as opposed to process-wide."""
    keys = [key for key in KEYS if key.field in fields]
    return any(is_given(arguments.get(key.field)) or is_given(app_config.get(key.app_config_name)) for key in keys)
