"""The settings: one table of keys, and one frozen object that is built from it once.

Everywhere the same precedence: an argument, then ``app.config["CLOUDWATCH_<KEY>"]``, then the environment's
``OTEL_EXPORTER_CLOUDWATCH_<KEY>``, then what OpenTelemetry or AWS call the same thing, then the default.
"""

import difflib
import json
import math
import os
import pkgutil
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, cast

from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.facade_dimensions import dimension_texts
from otel_cloudwatch_flask.foreign_text import shown
from otel_cloudwatch_flask.limits import MAX_NAMESPACE_LENGTH, RESERVED_NAMESPACE_PREFIX
from otel_cloudwatch_flask.rules import MetricRule, parse_rules

FlushPolicy: TypeAlias = Literal["background", "sync", "interval"]

APP_CONFIG_PREFIX: Final = "CLOUDWATCH_"
ENVIRONMENT_PREFIX: Final = "OTEL_EXPORTER_CLOUDWATCH_"
_LAMBDA_VARIABLE: Final = "AWS_LAMBDA_FUNCTION_NAME"


class DefaultFloat(float):
    """A default that can be told from the same number given by the caller."""

    __slots__ = ()


class DefaultInt(int):
    """A default that can be told from the same number given by the caller."""

    __slots__ = ()


DEFAULT_EXPORT_INTERVAL_SECONDS: Final = DefaultFloat(60.0)
DEFAULT_FLUSH_MIN_INTERVAL_SECONDS: Final = DefaultFloat(1.0)
DEFAULT_MAX_METRICS: Final = DefaultInt(1000)
DEFAULT_MAX_BACKLOG_BYTES: Final = DefaultInt(64 * 2**20)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be configured, parsed and checked; :data:`KEYS` says what each means."""

    namespace: str | None
    region_name: str | None
    flush: FlushPolicy
    flush_min_interval_seconds: float
    export_interval_seconds: float
    export_timeout_seconds: float
    default_dimensions: Mapping[str, str]
    max_metrics: int
    max_backlog_bytes: int
    spool_directory: Path | None
    strict: bool | None
    enabled: bool
    rules: tuple[MetricRule, ...]
    resource_dimensions: tuple[str, ...]
    entity: bool
    self_metrics: bool
    dry_run: bool
    live_page: bool | None
    live_page_path: str
    live_page_check: Callable[[], object] | None

    @classmethod
    def resolve(
        cls, *, arguments: Mapping[str, object], app_config: Mapping[str, Any], environ: Mapping[str, str]
    ) -> "Settings":
        """Build the settings from the three places; ``arguments`` go by the names of the fields.

        Raises :class:`ConfigurationError` for the first value that cannot be used, naming the key it came from.
        """
        values = {key.field: key.resolve(arguments, app_config, environ) for key in KEYS}
        values["enabled"] = values["enabled"] and not sdk_is_disabled(environ)
        return cls(**cast("dict[str, Any]", values))


def sdk_is_disabled(environ: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's own switch is off, read as the SDK reads it."""
    return environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def is_in_lambda(environ: Mapping[str, str]) -> bool:
    """Whether this is AWS Lambda, where nothing runs between two invocations.

    https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime
    """
    return bool(environ.get(_LAMBDA_VARIABLE))


def misspelt_keys(mapping: Mapping[str, Any], prefix: str) -> dict[str, str]:
    """The keys with our prefix that are none of ours but resemble one, each with the one it resembles.

    >>> misspelt_keys({"CLOUDWATCH_NAMESPCE": "Shop", "CLOUDWATCH_ALARM_TOPIC": ""}, "CLOUDWATCH_")
    {'CLOUDWATCH_NAMESPCE': 'CLOUDWATCH_NAMESPACE'}
    """
    names = [key.name for key in KEYS]
    strangers = [key for key in mapping if key.startswith(prefix) and key[len(prefix) :] not in names]
    # Strict enough to leave alone what others call CLOUDWATCH_LOG_REGION.
    matches = {key: difflib.get_close_matches(key[len(prefix) :], names, n=1, cutoff=0.76) for key in strangers}
    return {key: prefix + match[0] for key, match in matches.items() if match}


def are_given(fields: Collection[str], *, arguments: Mapping[str, object], app_config: Mapping[str, Any]) -> bool:
    """Whether any of these settings was given as an argument or in ``app.config``, not for the whole process."""
    keys = [key for key in KEYS if key.field in fields]
    return any(is_given(arguments.get(key.field)) or is_given(app_config.get(key.app_config_name)) for key in keys)


# Parsers take what was found and return what it means, or raise a ValueError that continues "<key>=<value> ...".


def parse_namespace(value: object) -> str:
    """A namespace that CloudWatch takes."""
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
        raise ValueError("is not a name; use a text that is not empty")
    return value.strip()


def _flush_policy(value: object) -> FlushPolicy:
    policy = value.strip().lower() if isinstance(value, str) else value
    if policy in ("background", "sync", "interval"):
        return policy
    raise ValueError("is not a flush policy; use one of 'background', 'sync', 'interval'.")


def _seconds(value: object) -> float:
    """A duration of zero or more."""
    seconds = _number(value)
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError("is not a duration; use a number of seconds, 0 or more")
    return seconds


def _seconds_above_zero(value: object) -> float:
    seconds = _number(value)
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError("is not an interval; use a number of seconds greater than 0")
    return seconds


def _milliseconds(value: object) -> float:
    milliseconds = _number(value)
    if not (math.isfinite(milliseconds) and milliseconds > 0):
        raise ValueError("is not an interval; use a number of milliseconds greater than 0")
    return milliseconds / 1000


def _number(value: object) -> float:
    """The number that was written, NaN for what is none."""
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            return math.nan
    return math.nan


def _count(value: object) -> int:
    number = _number(value)
    if not (number >= 1 and number.is_integer()):
        raise ValueError("is not a count; use a whole number, 1 or more")
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
    """A function that is named, ``module:function``, and looked up when it is called: the module may not be there yet.

    >>> NamedFunction("os.path:basename")("/a/b")
    'b'
    """

    name: str

    def __call__(self, *arguments: object) -> object:
        """Call the function."""
        return pkgutil.resolve_name(self.name)(*arguments)


def _check(value: object) -> Callable[[], object]:
    if isinstance(value, str) and re.fullmatch(r"[\w.]+:[\w.]+", value):
        return NamedFunction(value)
    if not callable(value):
        raise ValueError("is not a check; use a function without arguments, or its name as 'module:function'")  # noqa: TRY004 - Key.resolve turns it into a ConfigurationError
    return value


def _directory(value: object) -> Path:
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ValueError("is not a directory; use the path of one that this process may write to")
    return Path(os.fsdecode(value))


def _dimensions(value: object) -> Mapping[str, str]:
    mapping = _written_dimensions(value) if isinstance(value, str) else value
    if not isinstance(mapping, Mapping):
        raise ValueError("are no dimensions; use a mapping of names to values")  # noqa: TRY004 - Key.resolve turns it into a ConfigurationError
    try:
        return MappingProxyType(dimension_texts(mapping))
    except ValueError as problem:
        raise ValueError(f"cannot be used: {problem}") from None


def _rules(value: object) -> tuple[MetricRule, ...]:
    rules: Any = _from_json(value) if isinstance(value, str) else value
    try:
        return parse_rules(rules)
    except ConfigurationError as problem:
        raise ValueError(f"cannot be used: {problem}") from None


def _attribute_names(value: object) -> tuple[str, ...]:
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    given = tuple(names) if isinstance(names, Iterable) else (None,)
    if not all(isinstance(name, str) and name for name in given):
        raise ValueError("are no names of attributes; use a list of them")
    return cast("tuple[str, ...]", given)


def _from_json(text: str) -> object:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"is not JSON: {error}; write texts in double quotes, and no comma before the end") from None


def _written_dimensions(text: str) -> object:
    """What the environment says: a JSON object, or ``name=value,name=value``."""
    if text.lstrip().startswith("{"):
        return _from_json(text)
    pairs = [item.partition("=") for item in text.split(",") if item.strip()]
    if not all(separator for _, separator, _ in pairs):
        raise ValueError("is not a list of dimensions; use name=value,name=value or a JSON object")
    return {name.strip(): value.strip() for name, _, value in pairs}


@dataclass(frozen=True, slots=True)
class Fallback:
    """An environment variable of somebody else's that means the same."""

    variable: str
    parse: Callable[[object], object]


@dataclass(frozen=True, slots=True)
class Key:
    """One setting: its name in ``app.config`` and the environment, what it may be, and what it is otherwise."""

    name: str
    field: str
    parse: Callable[[object], object]
    default: object
    doc: str
    fallbacks: tuple[Fallback, ...] = ()

    @property
    def app_config_name(self) -> str:
        """The key in ``app.config``."""
        return APP_CONFIG_PREFIX + self.name

    @property
    def variable(self) -> str:
        """The variable in the environment."""
        return ENVIRONMENT_PREFIX + self.name

    def resolve(
        self, arguments: Mapping[str, object], app_config: Mapping[str, Any], environ: Mapping[str, str]
    ) -> object:
        """The first value that was given, parsed, or else the default."""
        for source, value, parse in self._candidates(arguments, app_config, environ):
            if is_given(value):
                return _parsed(source, value, parse)
        return self.default

    def source(
        self, arguments: Mapping[str, object], app_config: Mapping[str, Any], environ: Mapping[str, str]
    ) -> str | None:
        """Where the value that counts was found, as error messages name it; ``None`` for the default."""
        candidates = self._candidates(arguments, app_config, environ)
        return next((source for source, value, _ in candidates if is_given(value)), None)

    def _candidates(
        self, arguments: Mapping[str, object], app_config: Mapping[str, Any], environ: Mapping[str, str]
    ) -> Iterator[tuple[str, object, Callable[[object], object]]]:
        """Where a value may be, in the order of precedence."""
        yield self.field, arguments.get(self.field), self.parse
        yield f'app.config["{self.app_config_name}"]', app_config.get(self.app_config_name), self.parse
        # To OpenTelemetry an empty variable is one that is not set:
        # https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#parsing-empty-value
        yield self.variable, environ.get(self.variable) or None, self.parse
        for fallback in self.fallbacks:
            yield fallback.variable, environ.get(fallback.variable) or None, fallback.parse


def is_given(value: object) -> bool:
    """Whether a value was given by somebody, rather than left at an argument's default."""
    return value is not None and not isinstance(value, (DefaultFloat, DefaultInt))


def _parsed(source: str, value: object, parse: Callable[[object], object]) -> object:
    try:
        return parse(value)
    except ValueError as problem:
        message = f"{source}={shown(value)} {problem}".rstrip(".") + "."
        raise ConfigurationError(message, key=source, value=value) from None


KEYS: Final = (
    Key(
        name="NAMESPACE",
        field="namespace",
        parse=parse_namespace,
        default=None,
        doc="CloudWatch namespace of the metrics; without one the service's name, or the Flask app's import name.",
    ),
    Key(
        name="REGION",
        field="region_name",
        parse=_text,
        default=None,
        doc="AWS Region of the metrics; without one what boto3 finds in the profile.",
        fallbacks=(Fallback("AWS_REGION", _text), Fallback("AWS_DEFAULT_REGION", _text)),
    ),
    Key(
        name="FLUSH",
        field="flush",
        parse=_flush_policy,
        default="background",
        doc=(
            "What the end of a request does: 'background' asks for a flush, 'sync' waits for it, "
            "'interval' leaves it to the interval. In AWS Lambda the default is 'sync'."
        ),
        fallbacks=(Fallback(_LAMBDA_VARIABLE, lambda _: "sync"),),
    ),
    Key(
        name="FLUSH_MIN_INTERVAL_SECONDS",
        field="flush_min_interval_seconds",
        parse=_seconds,
        default=float(DEFAULT_FLUSH_MIN_INTERVAL_SECONDS),
        doc="Least time between two flushes that requests asked for.",
    ),
    Key(
        name="EXPORT_INTERVAL_SECONDS",
        field="export_interval_seconds",
        parse=_seconds_above_zero,
        default=float(DEFAULT_EXPORT_INTERVAL_SECONDS),
        doc="Time between two flushes that nobody asked for.",
        fallbacks=(Fallback("OTEL_METRIC_EXPORT_INTERVAL", _milliseconds),),
    ),
    Key(
        name="EXPORT_TIMEOUT_SECONDS",
        field="export_timeout_seconds",
        parse=_seconds_above_zero,
        default=30.0,
        doc="How long a flush that nobody waits for tries at a time.",
        fallbacks=(Fallback("OTEL_METRIC_EXPORT_TIMEOUT", _milliseconds),),
    ),
    Key(
        name="DEFAULT_DIMENSIONS",
        field="default_dimensions",
        parse=_dimensions,
        default=MappingProxyType({}),
        doc=(
            "Dimensions of every metric given to add_metric; its own of the same name win. "
            "In the environment name=value,name=value or a JSON object."
        ),
    ),
    Key(
        name="MAX_METRICS",
        field="max_metrics",
        parse=_count,
        default=int(DEFAULT_MAX_METRICS),
        doc="Most distinct CloudWatch metrics of an exporter; further ones go to their metric's overflow series.",
    ),
    Key(
        name="MAX_BACKLOG_BYTES",
        field="max_backlog_bytes",
        parse=_count,
        default=int(DEFAULT_MAX_BACKLOG_BYTES),
        doc="Most memory for what could not be sent yet.",
    ),
    Key(
        name="SPOOL_DIRECTORY",
        field="spool_directory",
        parse=_directory,
        default=None,
        doc="Directory that keeps what could not be sent across restarts; without one it is kept in memory only.",
    ),
    Key(
        name="STRICT",
        field="strict",
        parse=_boolean,
        default=None,
        doc="Whether an invalid metric raises instead of being counted; by default in debug mode and in tests.",
    ),
    Key(
        name="ENABLED",
        field="enabled",
        parse=_boolean,
        default=True,
        doc="If false, everything works and nothing is sent; OTEL_SDK_DISABLED=true does the same.",
    ),
    Key(
        name="RULES",
        field="rules",
        parse=_rules,
        default=(),
        doc=(
            "What is published of which metric: a list of MetricRule objects or of mappings of their fields. "
            "In the environment a JSON array."
        ),
    ),
    Key(
        name="RESOURCE_DIMENSIONS",
        field="resource_dimensions",
        parse=_attribute_names,
        default=(),
        doc="Resource attributes that every metric has as dimensions. In the environment separated by commas.",
    ),
    Key(
        name="ENTITY",
        field="entity",
        parse=_boolean,
        default=False,
        doc="Whether to tell CloudWatch which service the metrics belong to, so that 'Explore related' finds them.",
    ),
    Key(
        name="SELF_METRICS",
        field="self_metrics",
        parse=_boolean,
        default=False,
        doc="Whether a reporter measures its own delivery, as the metrics otel_cloudwatch_flask.delivery.*.",
    ),
    Key(
        name="DRY_RUN",
        field="dry_run",
        parse=_boolean,
        default=False,
        doc="If true, everything happens but the network: what would be sent counts as sent, and is not.",
    ),
    Key(
        name="LIVE_PAGE",
        field="live_page",
        parse=_boolean,
        default=None,
        doc=(
            "Whether the app has a page at /_cloudwatch that shows what it publishes. Default: if app.debug is on at "
            "init_app. Outside of debug mode the page needs LIVE_PAGE_CHECK."
        ),
    ),
    Key(
        name="LIVE_PAGE_PATH",
        field="live_page_path",
        parse=_url_path,
        default="/_cloudwatch",
        doc="Where that page is.",
    ),
    Key(
        name="LIVE_PAGE_CHECK",
        field="live_page_check",
        parse=_check,
        default=None,
        doc=(
            "Function without arguments, or 'module:function', that returns true if the current request may see that "
            "page. Default: loopback only, in debug mode only."
        ),
    ),
)
"""Every setting there is; the documentation is made of this table."""
