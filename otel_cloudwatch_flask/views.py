"""Views that keep of each measurement only what the rules publish.

The SDK remembers every attribute set it has ever seen, for the life of the process. On a provider of our own nobody
else wants the attributes that no rule keeps, so they are dropped before they get there: forged Host headers then cost
no memory either.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

from opentelemetry.sdk.metrics.view import View

from otel_cloudwatch_flask.facade_scope import NEGATIVE_KEY, facade_metric
from otel_cloudwatch_flask.rules import MetricRule, Rules


def views_of(rules: Sequence[MetricRule]) -> list[View]:
    """One view for each rule and one for the default rule; each instrument is matched by exactly one.

    Views match globs, but all of those that match apply, while of the rules only the first does. So the matching is
    ours, by a method that the SDK keeps to itself; where it has none of that name, there are no views.
    """
    if not hasattr(View, "_match"):
        return []
    ordered = Rules(rules)
    return [_RuleView(ordered, rule) for rule in ordered]


class _RuleView(View):
    def __init__(self, rules: Rules, rule: MetricRule) -> None:
        super().__init__(instrument_name="*", attribute_keys=cast("set[str]", _KeptAttributes(rule)))
        self._rules = rules
        self._rule = rule

    def _match(self, instrument: Any) -> bool:
        facade = facade_metric(instrument.instrumentation_scope)
        return self._rules.of(instrument.name if facade is None else facade.name) is self._rule


class _KeptAttributes:
    """What the SDK asks of a set of attributes' names: whether one is in it."""

    def __init__(self, rule: MetricRule) -> None:
        self._keeps = lru_cache(maxsize=1024)(rule.keeps)

    def __contains__(self, name: str) -> bool:
        return name == NEGATIVE_KEY or self._keeps(name)
