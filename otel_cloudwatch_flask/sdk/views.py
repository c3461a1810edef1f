"""Views that drop attributes that no rule publishes, so that the SDK never stores them.

The SDK keeps every attribute set for the life of the process. These views prevent that values which clients control,
such as a forged Host header, take memory. They are used only on a provider that a reporter has created, where no other
exporter needs the dropped attributes.
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

from opentelemetry.sdk.metrics.view import View

from otel_cloudwatch_flask.model.rules import MetricRule, Rules
from otel_cloudwatch_flask.model.scope import NEGATIVE_KEY, facade_metric, reporter_of
from otel_cloudwatch_flask.sdk.internals import SelectiveView, can_select

_rules_of_reporters: dict[str, Rules] = {}
"""Rules by reporter. Looked up late, because a provider's views are created before all its reporters are known."""


def remember_rules(reporter: str, rules: Sequence[MetricRule]) -> None:
    """Make the views of every provider apply ``rules`` to the metrics of ``reporter``."""
    _rules_of_reporters[reporter] = Rules(rules)


def views_of(reporter: str) -> list[View]:
    """Return one view for each rule of ``reporter``, including the default rule.

    A metric of another reporter matches if that reporter has an equal rule for it. Otherwise its attributes are kept.
    Each instrument matches at most one view: the SDK applies all matching views, but only the first matching rule
    counts. The views therefore select by rule and not by glob.
    """
    if not can_select():
        return []
    rules = list(_rules_of_reporters[reporter])
    return [SelectiveView(partial(_applies, rule, rules, reporter), _KeptAttributes(rule)) for rule in rules]


def _applies(rule: MetricRule, rules: list[MetricRule], reporter: str, instrument: Any) -> bool:
    """Return whether ``rule`` is the first in ``rules`` that equals the rule that applies to ``instrument``."""
    scope = instrument.instrumentation_scope
    in_force = _rules_of_reporters.get(reporter_of(scope) or reporter)
    if in_force is None:
        return False
    facade = facade_metric(scope)
    applying = in_force.of(instrument.name if facade is None else facade.name)
    return next((each for each in rules if each == applying), None) is rule


class _KeptAttributes:
    """A container of the attribute names that a rule keeps."""

    def __init__(self, rule: MetricRule) -> None:
        self._rule = rule

    @lru_cache(maxsize=4096)  # noqa: B019 - called for every attribute; views live as long as the process
    def __contains__(self, name: str) -> bool:
        return name == NEGATIVE_KEY or self._rule.keeps(name)
