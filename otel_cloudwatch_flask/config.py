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
"""Makes of what was found what it means, or raises a ``ValueError`` that continues "<key>=<value> ..."."""

Place: TypeAlias = Mapping[str, Any]
"""Where settings may be given: arguments, ``app.config`` or the environment."""

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
    """The number that was written, NaN for what is none."""
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            return math.nan
    return math.nan


def _count(value: object) -> int:
    if not ((number := _number(value)) >= 1 and number.is_integer()):
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
    names = map(str.strip, value.split(",")) if isinstance(value, str) else value
    given = tuple(names) if isinstance(names, Iterable) else (None,)
    if not all(map(_is_name, given)):
        raise ValueError("are no names of attributes; use a list of them")
    return cast("tuple[str, ...]", given)


def _is_name(name: object) -> bool:
    return isinstance(name, str) and bool(name)


def _from_json(text: str) -> object:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"is not JSON: {error}; write texts in double quotes, and no comma before the end") from None


def _written_dimensions(text: str) -> object:
    """What the environment says: a JSON object, or ``name=value,name=value``."""
    if text.lstrip().startswith("{"):
        return _from_json(text)
    return dict(map(_written_pair, filter(str.strip, text.split(","))))


def _written_pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise ValueError("is not a list of dimensions; use name=value,name=value or a JSON object")
    return name.strip(), value.strip()


def is_given(value: object) -> bool:
    """Whether a value was given by somebody, rather than left at an argument's default."""
    return value is not None and not isinstance(value, (DefaultFloat, DefaultInt))


def _parsed(source: str, value: object, parse: Parser) -> object:
    try:
        return parse(value)
    except ValueError as problem:
        message = f"{source}={safe_repr(value)} {problem}".rstrip(".") + "."
        raise ConfigurationError(message, key=source, value=value) from None


@dataclass(frozen=True, slots=True)
class Key:
    """One setting: how it is read, what it is if it is not given, and the field of :class:`Settings` that has it.

    ``fallbacks`` are environment variables of others that mean the same, each with how it is read.
    """

    parse: Parser
    default: object = None
    fallbacks: tuple[tuple[str, Parser], ...] = ()
    field: str = ""

    @property
    def name(self) -> str:
        """What it is called in ``app.config`` and the environment, behind the prefix."""
        return self.field.removesuffix("_name").upper()

    @property
    def app_config_name(self) -> str:
        """The key in ``app.config``."""
        return APP_CONFIG_PREFIX + self.name

    @property
    def variable(self) -> str:
        """The variable in the environment."""
        return ENVIRONMENT_PREFIX + self.name

    def resolve(self, arguments: Place, app_config: Place, environ: Place) -> object:
        """The first value that was given, parsed, or else the default."""
        found = next(self._given(arguments, app_config, environ), None)
        return _parsed(*found) if found else self.default

    def source(self, arguments: Place, app_config: Place, environ: Place) -> str | None:
        """Where the value that counts was found, as error messages name it; ``None`` for the default."""
        found = next(self._given(arguments, app_config, environ), None)
        return found[0] if found else None

    def _given(self, arguments: Place, app_config: Place, environ: Place) -> Iterator[tuple[str, object, Parser]]:
        """Where a value was given, in the order of precedence."""
        places = [
            (self.field, arguments.get(self.field), self.parse),
            (f'app.config["{self.app_config_name}"]', app_config.get(self.app_config_name), self.parse),
            # To OpenTelemetry an empty variable is one that is not set:
            # https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#parsing-empty-value
            (self.variable, environ.get(self.variable) or None, self.parse),
            *((name, environ.get(name) or None, parse) for name, parse in self.fallbacks),
        ]
        return (place for place in places if is_given(place[1]))


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be configured, parsed and checked; the documentation is made of what is said here."""

    namespace: Annotated[str | None, Key(parse_namespace)]
    """CloudWatch namespace of the metrics; without one the service's name, or the Flask app's import name."""
    region_name: Annotated[str | None, Key(_text, fallbacks=(("AWS_REGION", _text), ("AWS_DEFAULT_REGION", _text)))]
    """AWS Region of the metrics; without one what boto3 finds in the profile."""
    flush: Annotated[
        FlushPolicy, Key(_flush_policy, default="background", fallbacks=((_LAMBDA_VARIABLE, lambda _: "sync"),))
    ]
    """What the end of a request does: 'background' asks for a flush, 'sync' waits for it, 'interval' leaves it to
    the interval. In AWS Lambda the default is 'sync'.
    """
    flush_min_interval_seconds: Annotated[float, Key(_seconds, default=float(DEFAULT_FLUSH_MIN_INTERVAL_SECONDS))]
    """Least time between two flushes that requests asked for."""
    export_interval_seconds: Annotated[
        float,
        Key(
            _seconds_above_zero,
            default=float(DEFAULT_EXPORT_INTERVAL_SECONDS),
            fallbacks=(("OTEL_METRIC_EXPORT_INTERVAL", _milliseconds),),
        ),
    ]
    """Time between two flushes that nobody asked for."""
    export_timeout_seconds: Annotated[
        float, Key(_seconds_above_zero, default=30.0, fallbacks=(("OTEL_METRIC_EXPORT_TIMEOUT", _milliseconds),))
    ]
    """How long a flush that nobody waits for tries at a time."""
    default_dimensions: Annotated[Mapping[str, str], Key(_dimensions, default=MappingProxyType({}))]
    """Dimensions of every metric given to add_metric; its own of the same name win. In the environment
    name=value,name=value or a JSON object.
    """
    max_metrics: Annotated[int, Key(_count, default=int(DEFAULT_MAX_METRICS))]
    """Most distinct CloudWatch metrics of an exporter; further ones go to their metric's overflow series."""
    max_backlog_bytes: Annotated[int, Key(_count, default=int(DEFAULT_MAX_BACKLOG_BYTES))]
    """Most memory for what could not be sent yet."""
    spool_directory: Annotated[Path | None, Key(_directory)]
    """Directory that keeps what could not be sent across restarts; without one it is kept in memory only."""
    strict: Annotated[bool | None, Key(_boolean)]
    """Whether an invalid metric raises instead of being counted; by default in debug mode and in tests."""
    enabled: Annotated[bool, Key(_boolean, default=True)]
    """If false, everything works and nothing is sent; OTEL_SDK_DISABLED=true does the same."""
    rules: Annotated[tuple[MetricRule, ...], Key(_rules, default=())]
    """What is published of which metric: a list of MetricRule objects or of mappings of their fields. In the
    environment a JSON array.
    """
    resource_dimensions: Annotated[tuple[str, ...], Key(_attribute_names, default=())]
    """Resource attributes that every metric has as dimensions. In the environment separated by commas."""
    entity: Annotated[bool, Key(_boolean, default=False)]
    """Whether to tell CloudWatch which service the metrics belong to, so that 'Explore related' finds them."""
    self_metrics: Annotated[bool, Key(_boolean, default=False)]
    """Whether a reporter measures its own delivery, as the metrics otel_cloudwatch_flask.delivery.*."""
    dry_run: Annotated[bool, Key(_boolean, default=False)]
    """If true, everything happens but the network: what would be sent counts as sent, and is not."""
    live_page: Annotated[bool | None, Key(_boolean)]
    """Whether the app has a page at /_cloudwatch that shows what it publishes. Default: if app.debug is on at init_app.
    Outside of debug mode the page needs LIVE_PAGE_CHECK.
    """
    live_page_path: Annotated[str, Key(_url_path, default="/_cloudwatch")]
    """Where that page is."""
    live_page_check: Annotated[Callable[[], object] | None, Key(_check)]
    """Function without arguments, or 'module:function', that returns true if the current request may see that page.
    Default: loopback only, in debug mode only.
    """

    @classmethod
    def resolve(cls, *, arguments: Place, app_config: Place, environ: Place) -> "Settings":
        """Build the settings from the three places; ``arguments`` go by the names of the fields.

        Raises :class:`ConfigurationError` for the first value that cannot be used, naming the key it came from.
        """
        values = {key.field: key.resolve(arguments, app_config, environ) for key in KEYS}
        values["enabled"] = values["enabled"] and not sdk_is_disabled(environ)
        return cls(**cast("dict[str, Any]", values))


KEYS: Final[tuple[Key, ...]] = tuple(
    replace(hint.__metadata__[0], field=name) for name, hint in get_type_hints(Settings, include_extras=True).items()
)
"""Every setting there is."""


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
    strangers = [key.removeprefix(prefix) for key in mapping if key.startswith(prefix)]
    # Strict enough to leave alone what others call CLOUDWATCH_LOG_REGION.
    meant = {name: difflib.get_close_matches(name, names, n=1, cutoff=0.76) for name in strangers}
    return {prefix + name: prefix + match[0] for name, match in meant.items() if match not in ([], [name])}


def are_given(fields: Collection[str], *, arguments: Place, app_config: Place) -> bool:
    """Whether any of these settings was given as an argument or in ``app.config``, not for the whole process."""
    keys = [key for key in KEYS if key.field in fields]
    return any(is_given(arguments.get(key.field)) or is_given(app_config.get(key.app_config_name)) for key in keys)
