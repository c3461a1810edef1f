"""Rules: what is published of a metric, and with which dimensions."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Final, Literal

from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.limits import STORAGE_RESOLUTIONS
from otel_cloudwatch_flask.model.datum import OVERFLOW_KEY
from otel_cloudwatch_flask.runtime.safe_text import safe_repr

CLIENT_CONTROLLED: Final = (
    "http.host",
    "http.server_name",
    "net.host.name",
    "net.host.port",
    "server.address",
    "server.port",
)
"""Attributes that repeat what the client wrote into its Host header: with them as dimensions, anybody could create
metrics in somebody else's account. Excluded unless a rule says otherwise.
"""

_VERSIONS: Final = frozenset({"0.9", "1.0", "1.1", "2", "2.0", "3", "3.0"})
_SCHEMES: Final = frozenset({"http", "https"})
KNOWN_VALUES: Final[Mapping[str, Collection[str]]] = {
    "http.flavor": _VERSIONS,
    "network.protocol.version": _VERSIONS,
    "http.scheme": _SCHEMES,
    "url.scheme": _SCHEMES,
}
"""Attributes that repeat what the client wrote into its request, where servers let it: texts beyond these are published
as :data:`OTHER_VALUE`, unless a rule names the attribute or says what to exclude.
"""

OTHER_VALUE: Final = "_OTHER"
"""https://opentelemetry.io/docs/specs/semconv/registry/attributes/http/ has it for methods that nobody knows."""

_DISTRIBUTION_FORMS: Final = ("values", "statistics")


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRule:
    """What is published of the metrics whose name matches, and how; the first rule that matches a name applies.

    ``match`` is a glob on the metric's name as CloudWatch shows it; OpenTelemetry's SDK lower-cases what instruments
    are called. ``dimensions`` are globs of the attributes to keep (``None``: all), ``exclude`` globs of those never to
    publish (``None``: the ones a client controls, see :data:`CLIENT_CONTROLLED`; ``()``: none); an attribute that
    ``dimensions`` names outright is kept in any case.

    ``rollups`` are further sets of dimensions to publish, each for the points that have all its attributes, ``()``
    being the total over all; every set is a metric of its own on the bill. ``keep_original=False`` publishes the
    rollups only. ``storage_resolution`` is in seconds. ``distribution="statistics"`` sends sum, count, minimum and
    maximum of a histogram instead of its values: smaller, but without percentiles. ``drop=True`` publishes nothing.

    Raises :class:`ConfigurationError` for a field that cannot be used.
    """

    match: str = "*"
    dimensions: Collection[str] | None = None
    exclude: Collection[str] | None = None
    rollups: Collection[Collection[str]] = ()
    keep_original: bool = True
    storage_resolution: Literal[1, 60] = 60
    distribution: Literal["values", "statistics"] = "values"
    drop: bool = False

    def __post_init__(self) -> None:
        match: object = self.match
        if not isinstance(match, str) or not match:
            raise _unusable("match", self.match, "a glob such as 'http.server.*'")
        for name in ("dimensions", "exclude"):
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, _names(name, given))
        object.__setattr__(self, "rollups", _sets_of_names(self.rollups))
        # True and 1.0 are equal to 1, but not what CloudWatch takes.
        if type(self.storage_resolution) is not int or self.storage_resolution not in STORAGE_RESOLUTIONS:
            raise _unusable("storage_resolution", self.storage_resolution, "1 or 60 (seconds)")
        if self.distribution not in _DISTRIBUTION_FORMS:
            raise _unusable("distribution", self.distribution, "'values' or 'statistics'")
        for name in ("keep_original", "drop"):
            if not isinstance(getattr(self, name), bool):
                raise _unusable(name, getattr(self, name), "True or False")

    def keeps(self, attribute: str) -> bool:
        """Whether this attribute is published; the one that marks what is left of many always is."""
        if attribute == OVERFLOW_KEY:
            return True
        if self.dimensions is not None:
            if attribute in self.dimensions:
                return True
            if not _matches_any(attribute, self.dimensions):
                return False
        return not _matches_any(attribute, CLIENT_CONTROLLED if self.exclude is None else self.exclude)

    def published_value(self, attribute: str, value: object) -> object:
        """What is published for the value of an attribute that the rule keeps."""
        if self.exclude is not None or (self.dimensions is not None and attribute in self.dimensions):
            return value
        known = KNOWN_VALUES.get(attribute)
        return OTHER_VALUE if known is not None and isinstance(value, str) and value not in known else value

    def attribute_sets(self, attributes: Collection[str]) -> Iterator[frozenset[str]]:
        """The sets of attributes to publish for a point with these, each once; they must be such as the rule keeps."""
        original = frozenset(attributes)
        rollups = [wanted for each in self.rollups if (wanted := frozenset(each)) <= original]
        published = [original, *rollups] if self.keep_original or not rollups else rollups
        yield from dict.fromkeys(published)


class Rules:
    """The rules of one exporter, in order, with the default rule behind them."""

    def __init__(self, rules: Iterable[MetricRule] = ()) -> None:
        self._rules = (*rules, MetricRule())
        self.of = lru_cache(maxsize=4096)(self._first_match)

    def __iter__(self) -> Iterator[MetricRule]:
        return iter(self._rules)

    def _first_match(self, metric_name: str) -> MetricRule:
        return next(rule for rule in self._rules if fnmatchcase(metric_name, rule.match))


def parse_rules(rules: Iterable[MetricRule | Mapping[str, Any]]) -> tuple[MetricRule, ...]:
    """Rules as they may be written: :class:`MetricRule` objects, or mappings of its fields.

    Raises :class:`ConfigurationError` that names the rule, by its place, and the field.
    """
    if isinstance(rules, (str, bytes, Mapping, MetricRule)) or not isinstance(rules, Iterable):
        raise ConfigurationError(
            f"rules={safe_repr(rules)} is not a list of rules; give MetricRule objects, or mappings of their fields.",
            key="rules",
            value=rules,
        )
    return tuple(_parsed(place, rule) for place, rule in enumerate(rules))


def _parsed(place: int, rule: MetricRule | Mapping[str, Any]) -> MetricRule:
    if isinstance(rule, MetricRule):
        return rule
    key = f"rules[{place}]"
    if not isinstance(rule, Mapping):
        raise ConfigurationError(
            f"{key} is {safe_repr(rule)}, which is neither a MetricRule nor a mapping; use one of both.",
            key=key,
            value=rule,
        )
    known = [each.name for each in fields(MetricRule)]
    for name in rule:
        if name not in known:
            raise ConfigurationError(
                f"{key} has the field {safe_repr(name)}, which no rule has; use one of {', '.join(known)}.",
                key=key,
                value=name,
            )
    try:
        return MetricRule(**rule)
    except ConfigurationError as error:
        raise ConfigurationError(f"{key}: {error}", key=f"{key}.{error.key}", value=error.value) from None


def _matches_any(attribute: str, globs: Collection[str]) -> bool:
    return any(fnmatchcase(attribute, glob) for glob in globs)


def _names(field_name: str, given: object) -> Sequence[str]:
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise _unusable(field_name, given, "a list of names")
    names = tuple(given)
    if not all(isinstance(name, str) and name for name in names):
        raise _unusable(field_name, given, "a list of names")
    return names


def _sets_of_names(given: object) -> Sequence[Sequence[str]]:
    unusable = _unusable("rollups", given, "a list of lists of names, such as [['http.route'], []]")
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise unusable
    try:
        return tuple(_names("rollups", each) for each in given)
    except ConfigurationError:
        raise unusable from None


def _unusable(field_name: str, value: object, allowed: str) -> ConfigurationError:
    return ConfigurationError(
        f"{field_name}={safe_repr(value)} cannot be used; give {allowed}.", key=field_name, value=value
    )
