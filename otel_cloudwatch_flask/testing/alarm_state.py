"""Evaluate an alarm from a CloudFormation template against published metrics, as CloudWatch does.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html
"""

import ast
import contextlib
import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from otel_cloudwatch_flask.observation.tally import Tally
from otel_cloudwatch_flask.testing.published import AcceptedDatum, dimensions_of

State: TypeAlias = Literal["OK", "ALARM", "INSUFFICIENT_DATA"]
Points: TypeAlias = Sequence[float | None]
"""A value for each period, oldest first. ``None`` means that there is no data."""

_EXTRA_PERIODS: Final = 2
"""The number of periods beyond ``EvaluationPeriods`` that CloudWatch retrieves, as in its documentation's examples."""
_SAMPLES_IN_TAIL: Final = 10
_OPERATORS: Final[dict[type, Callable[[Any, Any], float]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
}
_BREACHES: Final[dict[str, Callable[[float, float], bool]]] = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}


def state_of(
    alarm: Mapping[str, Any],
    accepted: Iterable[AcceptedDatum],
    *,
    now: float,
    state: State,
) -> State:
    """Return the state of an alarm at ``now``, given its previous ``state``.

    :param alarm: the properties of an ``AWS::CloudWatch::Alarm``, after :func:`resolved`.

    Raises ``NotImplementedError`` for anomaly detection, for statistics such as trimmed means, and for metric math
    other than arithmetic, comparisons, ``FILL`` and ``IF``.
    """
    if alarm["ComparisonOperator"] not in _BREACHES:
        raise NotImplementedError(f"The operator {alarm['ComparisonOperator']} is not supported.")
    # CloudFormation also accepts numbers as strings.
    periods = int(alarm["EvaluationPeriods"])
    evaluation = _Evaluation(accepted, now, periods + _EXTRA_PERIODS)
    points = evaluation.points(alarm)
    if evaluation.has_few_samples and alarm.get("EvaluateLowSampleCountPercentile") == "ignore":
        return state
    breaches, threshold = _BREACHES[alarm["ComparisonOperator"]], float(alarm["Threshold"])
    return judged(
        [None if each is None else breaches(each, threshold) for each in points],
        needed=int(alarm.get("DatapointsToAlarm", periods)),
        periods=periods,
        missing=alarm.get("TreatMissingData", "missing"),
        state=state,
    )


def judged(breaching: Sequence[bool | None], *, needed: int, periods: int, missing: str, state: State) -> State:
    """Return the state of an alarm that requires ``needed`` breaching data points out of ``periods``.

    :param breaching: for each period of the evaluation range, oldest first, whether its data point is breaching.
        ``None`` means that the period has no data.
    :param needed: the alarm's ``DatapointsToAlarm``.
    :param periods: the alarm's ``EvaluationPeriods``.
    :param missing: the alarm's ``TreatMissingData``.
    :param state: the alarm's previous state.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
    """
    present = [each for each in breaching if each is not None][-periods:]
    absent = periods - len(present)
    if sum(present) + (absent if missing == "breaching" else 0) >= needed:
        return "ALARM"
    if not absent or not all(present) or missing in {"breaching", "notBreaching"}:
        return "OK"
    if missing == "ignore":
        return state
    # Every period with data is breaching, but there are too few, so the state depends on the age of the oldest.
    return "ALARM" if any(breaching[: len(breaching) - needed + 1]) else "INSUFFICIENT_DATA"


def resolved(value: Any, parameters: Mapping[str, Any]) -> Any:
    """Resolve references to parameters in part of a template, and omit alarm actions."""
    if isinstance(value, list):
        return [resolved(each, parameters) for each in value]
    if not isinstance(value, Mapping):
        return value
    if "Ref" in value:
        return parameters.get(value["Ref"])
    return {key: resolved(each, parameters) for key, each in value.items() if not key.endswith("Actions")}


@dataclass
class _Evaluation:
    """An evaluation of an alarm over the last ``count`` periods, including the current period."""

    accepted: Iterable[AcceptedDatum]
    now: float
    count: int
    has_few_samples: bool = field(default=False, init=False)

    def points(self, alarm: Mapping[str, Any]) -> Points:
        """Return the values that the alarm compares with its threshold."""
        queries = {query["Id"]: query for query in alarm.get("Metrics", ())}
        for query in queries.values():
            if query.get("ReturnData", True):
                return self._query(query, queries)
        return self._metric(alarm, int(alarm["Period"]), alarm.get("ExtendedStatistic") or alarm["Statistic"])

    def _query(self, query: Mapping[str, Any], queries: Mapping[str, Mapping[str, Any]]) -> Points:
        if "Expression" not in query:
            stat = query["MetricStat"]
            return self._metric(stat["Metric"], int(stat["Period"]), stat["Stat"])
        expression = _parsed(query["Expression"])
        used = queries.keys() & {node.id for node in ast.walk(expression) if isinstance(node, ast.Name)}
        points = {name: self._query(queries[name], queries) for name in used}
        return [_value(expression, {name: points[name][index] for name in used}) for index in range(self.count)]

    def _metric(self, metric: Mapping[str, Any], period: int, statistic: str) -> Points:
        identity = (metric["Namespace"], metric["MetricName"], dimensions_of(metric.get("Dimensions")))
        tallies: defaultdict[int, Tally] = defaultdict(Tally)
        for each in self.accepted:
            if each.metric.identity == identity:
                tallies[int(each.unix_time // period)].add(each.content)
        last = int(self.now // period)
        found = [tallies.get(number) for number in range(last - self.count + 1, last + 1)]
        evaluated = [tally for tally in found if tally is not None][_EXTRA_PERIODS - self.count :]
        self.has_few_samples |= any(_is_small(tally, statistic) for tally in evaluated)
        try:
            return [None if tally is None else tally.statistic(statistic) for tally in found]
        except KeyError as error:
            raise NotImplementedError(f"The statistic {statistic} is not supported.") from error


def _parsed(expression: str) -> ast.expr:
    """Parse metric math. The supported subset is also valid Python, so Python's parser can parse it.

    Raises ``NotImplementedError`` if the syntax is not supported.
    """
    with contextlib.suppress(SyntaxError):
        match ast.parse(expression).body:
            case [ast.Expr(value=value)]:
                return value
    raise NotImplementedError(f"{expression} is not supported in metric math.")


def _value(node: ast.expr, values: Mapping[str, float | None]) -> float | None:
    """Evaluate metric math for one period, in which the queries have these ``values``."""
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.Name(id=name) if name in values:
            return values[name]
        case ast.BinOp(left=left, op=sign, right=right) | ast.Compare(left=left, ops=[sign], comparators=[right]) if (
            type(sign) in _OPERATORS
        ):
            return _combined(_OPERATORS[type(sign)], _value(left, values), _value(right, values))
        case ast.Call(func=ast.Name(id="FILL"), args=[series, filler]):
            found = _value(series, values)
            return _value(filler, values) if found is None else found
        case ast.Call(func=ast.Name(id="IF"), args=[condition, then, otherwise]):
            is_met = _value(condition, values)
            return None if is_met is None else _value(then if is_met else otherwise, values)
    raise NotImplementedError(f"{ast.unparse(node)} is not supported in metric math.")


def _combined(operation: Callable[[Any, Any], float], first: float | None, second: float | None) -> float | None:
    if first is None or second is None or (operation is operator.truediv and second == 0):
        return None
    return operation(first, second)


def _is_small(tally: Tally, statistic: str) -> bool:
    """Return whether ``statistic`` is a percentile of too few samples to be statistically significant.

    Always ``False`` for p0 and p100.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/percentiles-with-low-samples.html
    """
    if not statistic.startswith("p"):
        return False
    fraction = float(statistic[1:]) / 100
    return 0 < tally.count * min(fraction, 1 - fraction) < _SAMPLES_IN_TAIL * (1 - 1e-9)
