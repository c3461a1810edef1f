"""Views that keep of each measurement only what the rules publish.

The SDK remembers every attribute set it has ever seen, for the life of the process. On a provider of our own nobody
else wants the attributes that no rule keeps, so they are dropped before they get there: forged Host headers then cost
no memory either.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

from opentelemetry.sdk.metrics.view import View

from otel_cloudwatch_flask.facade_scope import NEGATIVE_KEY, facade_metric, reporter_of
from otel_cloudwatch_flask.rules import MetricRule, Rules

_rules_of_reporters: dict[str, Rules] = {}
"""A provider's views are made before anybody knows which reporters will record there."""


def remember_rules(reporter: str, rules: Sequence[MetricRule]) -> None:
    """Let every provider that was made with :func:`views_of` keep of this reporter's metrics what its rules keep."""
    _rules_of_reporters[reporter] = Rules(rules)


def views_of(reporter: str) -> list[View]:
    """One view for each rule of the reporter and one for the default rule; an instrument is matched by one at most.

    What belongs to another reporter is matched if that has the same rule for it; otherwise it keeps all attributes.

    Views match globs, but all of those that match apply, while of the rules only the first does. So the matching is
    ours, by a method that the SDK keeps to itself; where it has none of that name, there are no views.
    """
    if not hasattr(View, "_match"):
        return []
    rules = list(_rules_of_reporters[reporter])
    return [_RuleView(rule, rules, reporter) for rule in rules]


class _RuleView(View):
    def __init__(self, rule: MetricRule, rules: list[MetricRule], reporter: str) -> None:
        super().__init__(instrument_name="*", attribute_keys=cast("set[str]", _KeptAttributes(rule)))
        self._rule = rule
        self._rules = rules
        self._reporter = reporter

    def _match(self, instrument: Any) -> bool:
        scope = instrument.instrumentation_scope
        rules = _rules_of_reporters.get(reporter_of(scope) or self._reporter)
        if rules is None:
            return False
        facade = facade_metric(scope)
        rule = rules.of(instrument.name if facade is None else facade.name)
        return next((each for each in self._rules if each == rule), None) is self._rule


class _KeptAttributes:
    """What the SDK asks of a set of attributes' names: whether one is in it."""

    def __init__(self, rule: MetricRule) -> None:
        self._keeps = lru_cache(maxsize=1024)(rule.keeps)

    def __contains__(self, name: str) -> bool:
        return name == NEGATIVE_KEY or self._keeps(name)
