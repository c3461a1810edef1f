"""Views that keep of each measurement only the attributes that the rules publish.

The SDK remembers every attribute set for the life of the process. On a provider that a reporter has made, nothing else
uses the attributes that no rule keeps, so they are dropped before they are remembered: forged Host headers cost no
memory.
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

from opentelemetry.sdk.metrics.view import View

from otel_cloudwatch_flask.model.rules import MetricRule, Rules
from otel_cloudwatch_flask.model.scope import NEGATIVE_KEY, facade_metric, reporter_of
from otel_cloudwatch_flask.sdk.internals import SelectiveView, can_select

_rules_of_reporters: dict[str, Rules] = {}
"""A provider's views are made before it is known which reporters will record there."""


def remember_rules(reporter: str, rules: Sequence[MetricRule]) -> None:
    """Let the views of every provider keep of this reporter's metrics what its rules keep."""
    _rules_of_reporters[reporter] = Rules(rules)


def views_of(reporter: str) -> list[View]:
    """One view for each rule of the reporter and one for the default rule; each instrument has at most one.

    The metrics of another reporter have one if that reporter has the same rule for them; without, all attributes are
    kept. Of views all that match apply, of rules only the first: so the views select by the rules themselves.
    """
    if not can_select():
        return []
    rules = list(_rules_of_reporters[reporter])
    return [SelectiveView(partial(_is_under, rule, rules, reporter), _KeptAttributes(rule)) for rule in rules]


def _is_under(rule: MetricRule, rules: list[MetricRule], reporter: str, instrument: Any) -> bool:
    """Whether this is the rule, among a reporter's, that equals the one which applies to an instrument."""
    scope = instrument.instrumentation_scope
    in_force = _rules_of_reporters.get(reporter_of(scope) or reporter)
    if in_force is None:
        return False
    facade = facade_metric(scope)
    applying = in_force.of(instrument.name if facade is None else facade.name)
    return next((each for each in rules if each == applying), None) is rule


class _KeptAttributes:
    """The names of the attributes that a rule keeps."""

    def __init__(self, rule: MetricRule) -> None:
        self._rule = rule

    @lru_cache(maxsize=4096)  # noqa: B019 - called for each attribute of each measurement; rules live as long as views
    def __contains__(self, name: str) -> bool:
        return name == NEGATIVE_KEY or self._rule.keeps(name)
