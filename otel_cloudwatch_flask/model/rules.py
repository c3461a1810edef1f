"""Rules, which decide whether a metric is published, and with which dimensions."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, fields
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Final, Literal

from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.limits import STORAGE_RESOLUTIONS
from otel_cloudwatch_flask.model.datum import OVERFLOW_KEY
from otel_cloudwatch_flask.model.http_metrics import SYNONYMS
from otel_cloudwatch_flask.runtime.safe_text import safe_repr

CLIENT_CONTROLLED: Final = (
    "http.flavor",
    "http.host",
    "http.scheme",
    "http.server_name",
    "net.host.name",
    "net.host.port",
    "network.protocol.version",
    "server.address",
    "server.port",
    "url.scheme",
)
"""Attributes whose values a client may choose, for example with its ``Host`` header. As dimensions, they would let any
client create metrics at your expense, so they are excluded unless a rule keeps them.
"""

_ALLOWED_VALUES: Final[Mapping[str, tuple[object, ...]]] = {
    "storage_resolution": STORAGE_RESOLUTIONS,
    "distribution": ("values", "statistics"),
    "keep_original": (True, False),
    "drop": (True, False),
}


@dataclass(frozen=True, slots=True)
class MetricRule:
    """A rule for publishing metrics. The first rule that matches the name of a metric applies to it.

    :param match: case-sensitive glob pattern for the metric's name in CloudWatch. The OpenTelemetry SDK converts
        instrument names to lower case.
    :param dimensions: glob patterns for attributes to keep as dimensions. Default: all that ``exclude`` does not match.
        An attribute that is named here without a wildcard is kept even if ``exclude`` matches it. Here and in
        ``exclude``, ``rollups`` and ``properties``, the route, method and status of HTTP requests match under both
        their old and their new names, such as ``http.target`` and ``http.route``.
    :param exclude: glob patterns for attributes to leave out. Default: :data:`CLIENT_CONTROLLED`.
    :param rollups: additional sets of dimensions to publish, each for the data points that have all attributes in the
        set. The empty set publishes the total. CloudWatch bills each combination of values as a separate metric.
    :param keep_original: if false, publish only the rollups. A data point to which no rollup applies is published with
        its original dimensions.
    :param storage_resolution: storage resolution in seconds, 1 or 60.
    :param distribution: ``"statistics"`` sends only the sum, count, minimum and maximum of a histogram. Such requests
        are usually smaller, but the metric has no percentiles unless all samples are equal.
    :param drop: if true, do not publish the metric.
    :param properties: glob patterns for attributes that the documents of ``output="emf"`` contain as properties instead
        of dimensions. CloudWatch Logs Insights can search properties, and they create no metrics. If the data points of
        a series differ in a property, the document has the value of the last data point.
    :raises ConfigurationError: if a field is invalid.
    """

    match: str = "*"
    _: KW_ONLY
    dimensions: Collection[str] | None = None
    exclude: Collection[str] | None = None
    rollups: Collection[Collection[str]] = ()
    keep_original: bool = True
    storage_resolution: Literal[1, 60] = 60
    distribution: Literal["values", "statistics"] = "values"
    drop: bool = False
    properties: Collection[str] = ()

    def __post_init__(self) -> None:
        match: object = self.match
        if not isinstance(match, str) or not match:
            raise _unusable("match", match, "a glob such as 'http.server.*'")
        # Iterables become tuples, because iterators can be read only once. The dataclass is frozen, so assignment needs
        # object.__setattr__.
        for name in ("dimensions", "exclude", "properties"):
            if name == "properties" or getattr(self, name) is not None:
                self._set(name, names_in(getattr(self, name)), "a list of names")
        self._set("rollups", _sets_of_names(self.rollups), "a list of lists of names, such as [['http.route'], []]")
        for name, allowed in _ALLOWED_VALUES.items():
            value = getattr(self, name)
            # The types must be equal, too: True and 1.0 equal 1, but CloudWatch refuses them.
            if (type(value), value) not in [(type(each), each) for each in allowed]:
                raise _unusable(name, value, " or ".join(map(repr, allowed)))

    def _set(self, name: str, parsed: object, allowed: str) -> None:
        if parsed is None:
            raise _unusable(name, getattr(self, name), allowed)
        object.__setattr__(self, name, parsed)

    def keeps(self, attribute: str) -> bool:
        """Return whether an attribute is published as a dimension. The overflow attribute is always published.

        :param attribute: name of the attribute.
        """
        if attribute == OVERFLOW_KEY:
            return True
        if self.dimensions is not None:
            if not {attribute, SYNONYMS.get(attribute)}.isdisjoint(self.dimensions):
                return True
            if not _matches_any(attribute, self.dimensions):
                return False
        if self.is_property(attribute):
            return False
        return not _matches_any(attribute, CLIENT_CONTROLLED if self.exclude is None else self.exclude)

    def is_property(self, attribute: str) -> bool:
        """Return whether an attribute that is not a dimension becomes a property of EMF documents."""
        return _matches_any(attribute, self.properties)

    def missing(self, attributes: Collection[str]) -> list[str]:
        """Return the names in ``dimensions``, except patterns with wildcards, that are not among the ``attributes``.

        An old or new name of an HTTP attribute is not missing if the other name is present. Returns an empty list if
        ``attributes`` is empty.
        """
        named = [each for each in self.dimensions or () if attributes and not set("*?[") & set(each)]
        return [each for each in named if {each, SYNONYMS.get(each)}.isdisjoint(attributes)]

    def attribute_sets(self, attributes: Collection[str]) -> Iterator[frozenset[str]]:
        """Yield each set of attributes to publish for a data point.

        :param attributes: names of the data point's attributes that the rule keeps.
        """
        original = frozenset(attributes)
        rollups = [wanted for each in self.rollups if (wanted := _present(each, original)) <= original]
        published = [original, *rollups] if self.keep_original or not rollups else rollups
        # A rollup may equal the original set, which must not be published twice.
        yield from dict.fromkeys(published)


class Rules:
    """The rules of one exporter, followed by a default rule that matches every name."""

    def __init__(self, rules: Iterable[MetricRule] = ()) -> None:
        self._rules = (*rules, MetricRule())
        # The same names recur in every collection, and matching globs is slow.
        self.of = lru_cache(maxsize=4096)(self._first_match)

    def __iter__(self) -> Iterator[MetricRule]:
        return iter(self._rules)

    def _first_match(self, metric_name: str) -> MetricRule:
        return next(rule for rule in self._rules if fnmatchcase(metric_name, rule.match))


def parse_rules(rules: Iterable[MetricRule | Mapping[str, Any]]) -> tuple[MetricRule, ...]:
    """Parse rules given as :class:`MetricRule` objects, or as mappings with the same fields.

    Raises :class:`ConfigurationError` if a rule is invalid. The message names the rule's index and the invalid field.
    """
    if isinstance(rules, (str, bytes, Mapping)) or not isinstance(rules, Iterable):
        raise ConfigurationError(
            f"rules={safe_repr(rules)} is not a list of rules; pass MetricRule objects, or mappings of their fields.",
            key="rules",
            value=rules,
        )
    return tuple(_parsed(index, rule) for index, rule in enumerate(rules))


def _parsed(index: int, rule: MetricRule | Mapping[str, Any]) -> MetricRule:
    if isinstance(rule, MetricRule):
        return rule
    key = f"rules[{index}]"
    if not isinstance(rule, Mapping):
        raise ConfigurationError(
            f"{key} is {safe_repr(rule)}, which is neither a MetricRule nor a mapping of its fields; use one of these.",
            key=key,
            value=rule,
        )
    known = [each.name for each in fields(MetricRule)]
    if unknown := [name for name in rule if name not in known]:
        raise ConfigurationError(
            f"{key} has the unknown field {safe_repr(unknown[0])}; use one of {', '.join(known)}.",
            key=key,
            value=unknown[0],
        )
    try:
        return MetricRule(**rule)
    except ConfigurationError as error:
        raise ConfigurationError(f"{key}: {error}", key=f"{key}.{error.key}", value=error.value) from None


def _matches_any(attribute: str, globs: Collection[str]) -> bool:
    names = (attribute, SYNONYMS.get(attribute, attribute))
    return any(fnmatchcase(name, glob) for name in names for glob in globs)


def _present(names: Iterable[str], attributes: Collection[str]) -> frozenset[str]:
    """Return ``names``, with each name that is not in ``attributes`` replaced by its synonym, if it has one."""
    return frozenset(name if name in attributes else SYNONYMS.get(name, name) for name in names)


def names_in(given: object) -> tuple[str, ...] | None:
    """Return a list or another iterable of names as a tuple, or ``None`` if it is anything else."""
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        return None
    names = tuple(given)
    return names if all(isinstance(name, str) and name for name in names) else None


def _sets_of_names(given: object) -> tuple[object, ...] | None:
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        return None
    sets = tuple(map(names_in, given))
    return None if None in sets else sets


def _unusable(field_name: str, value: object, allowed: str) -> ConfigurationError:
    return ConfigurationError(
        f"{field_name}={safe_repr(value)} is invalid; use {allowed}.", key=field_name, value=value
    )
