"""``cost``: what the metrics cost a month."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import click

from otel_cloudwatch_flask.commands.reports.cost_estimate import (
    NO_RULE,
    POLICIES,
    Contribution,
    Fleet,
    Metric,
    billed,
    by_dimension,
    by_metric,
    by_rule,
)
from otel_cloudwatch_flask.commands.shared.document import Document, from_option, read_document
from otel_cloudwatch_flask.commands.shared.terminal import echo_table, inert
from otel_cloudwatch_flask.commands.shared.usage import Command, echo_json, json_option
from otel_cloudwatch_flask.commands.shared.user_app import UserApp, loaded_app
from otel_cloudwatch_flask.config import FlushPolicy
from otel_cloudwatch_flask.pricing import PRICES_URL, MonthlyCost, monthly_cost

_ROWS_SHOWN: Final = 15
_OBSERVED: Final = "as observed"
_FIELDS: Final = ("flush", "flush_min_interval_seconds", "export_interval_seconds")
"""What is an option and a setting."""


@click.command(cls=Command)
@from_option()
@click.option("--metrics", type=click.IntRange(0), help="How many CloudWatch metrics there are, instead of --from.")
@click.option(
    "--processes", type=click.IntRange(1), default=1, show_default=True, help="Processes that publish, of all hosts."
)
@click.option("--flush", type=click.Choice(POLICIES), help="The flush policy; by default the app's, or background.")
@click.option("--rate", type=click.FloatRange(0), help="Requests a second to all processes; by default, never idle.")
@click.option("--flush-min-interval", _FIELDS[1], type=click.FloatRange(0), help="FLUSH_MIN_INTERVAL_SECONDS.")
@click.option("--export-interval", _FIELDS[2], type=click.FloatRange(0, min_open=True), help="EXPORT_INTERVAL_SECONDS.")
@json_option("all of it")
@click.pass_context
def command(context: click.Context, /, source: str | None, metrics: int | None, *, as_json: bool, **given: Any) -> None:
    """Reckon what your metrics cost a month.

    And what would save something. CloudWatch bills metrics and calls. The metrics are those of a preview, a demo or a
    running app, or a number that you give; the calls follow from the flush policy and the number of processes.
    Processes share their metrics, unless a dimension tells them apart.

    \b
        flask --app shop cloudwatch preview --json | flask cloudwatch cost --from - --processes 40
        python -m otel_cloudwatch_flask cost --from https://shop.example/_cloudwatch/data.json
        python -m otel_cloudwatch_flask cost --metrics 120 --processes 40 --flush interval

    Prices are those of us-east-1 without the free tier. A month has 30 days, and every metric has data in each hour of
    it, which is the most it can cost.

    Exits with 0, or with 2 if there is nothing to reckon with.
    """  # noqa: D301 - click takes \b for "do not wrap"
    if (source is None) == (metrics is None):
        raise click.UsageError("Say what to reckon with: --from FILE, or --metrics NUMBER.", context)
    user_app = loaded_app(context, is_needed=False)
    flush, *seconds = (_given_or_set(given, user_app, name) for name in _FIELDS)
    document = read_document(source) if source else Document(())
    every = billed(document.series)
    number = len(every) if metrics is None else metrics
    fleet = Fleet(given["processes"], given["rate"], *seconds)
    costs = policy_costs(number, fleet, document.requests_per_second)
    result = _Result(number, fleet, flush, costs, every, by_rule(every, user_app.value("RULES")))
    if as_json:
        echo_json(result.as_json())
    else:
        result.show()


def _given_or_set(given: Mapping[str, Any], user_app: UserApp, name: str) -> Any:
    return user_app.value(name.upper()) if given[name] is None else given[name]


def policy_costs(metrics: int, fleet: Fleet, observed: float | None) -> dict[str, MonthlyCost | None]:
    """A month by flush policy, ``None`` where the calls are not known, and as it was observed in one process."""
    costs: dict[str, MonthlyCost | None] = {
        policy: _cost(metrics, fleet.calls_per_second(policy)) for policy in POLICIES
    }
    if observed is not None:
        costs[_OBSERVED] = _cost(metrics, observed * fleet.processes)
    return costs


def _cost(metrics: int, rate: float | None) -> MonthlyCost | None:
    return None if rate is None else monthly_cost(metrics=metrics, requests_per_second=rate)


@dataclass(frozen=True, slots=True)
class _Result:
    """Everything that was reckoned."""

    number: int
    fleet: Fleet
    flush: FlushPolicy
    costs: Mapping[str, MonthlyCost | None]
    metrics: Sequence[Metric]
    rules: Sequence[Contribution]

    def as_json(self) -> dict[str, Any]:
        return {
            "metrics": self.number,
            "fleet": asdict(self.fleet),
            "flush": self.flush,
            "dollars_per_month": {policy: cost and cost.document() for policy, cost in self.costs.items()},
            "by_metric": list(map(asdict, by_metric(self.metrics))),
            "by_dimension": list(map(asdict, by_dimension(self.metrics))),
            "by_rule": list(map(asdict, self.rules)),
        }

    def show(self) -> None:
        processes = f"{self.fleet.processes} process{'es' * (self.fleet.processes > 1)}"
        click.secho(f"A month of {self.number:,} metrics and {processes}", bold=True)
        self._show_policies()
        dimensions = [each for each in by_dimension(self.metrics) if each.saved_metrics]
        _show_part("What each metric contributes", by_metric(self.metrics), ("metric",))
        _show_part("What leaving out a dimension saves", dimensions, ("metric", "dimension", "values"))
        if {each.rule for each in self.rules} != {NO_RULE}:
            _show_part("What dropping a rule, or a rollup, saves", self.rules, ("rule",))
        click.echo(f"\nus-east-1, without the free tier; {PRICES_URL}")

    def _show_policies(self) -> None:
        chosen = self.costs.get(self.flush)
        rows = [
            [("* " if policy == self.flush else "  ") + policy, *_cost_cells(cost, chosen)]
            for policy, cost in self.costs.items()
        ]
        echo_table(["  flush", "metrics $", "calls", "calls $", "together $", "saves $"], rows, right=range(1, 6))
        if self.costs["sync"] is None:
            click.echo("What sync calls follows from the requests: give --rate.")


def _cost_cells(cost: MonthlyCost | None, chosen: MonthlyCost | None) -> list[str]:
    if cost is None:
        return ["-"] * 5
    figures = [cost.metrics_dollars, cost.requests_dollars, cost.dollars]
    metrics, calls, together = (f"{figure:,.2f}" for figure in figures)
    saves = "" if chosen is None or cost is chosen else f"{chosen.dollars - cost.dollars:,.2f}"
    return [metrics, f"{cost.requests:,.0f}", calls, together, saves]


def _show_part(title: str, contributions: Sequence[Contribution], columns: Sequence[str]) -> None:
    if not contributions:
        return
    click.echo()
    click.secho(title, bold=True)
    rows = [
        [*(inert(str(getattr(each, column)), 60) for column in columns), *_saved_cells(each)]
        for each in contributions[:_ROWS_SHOWN]
    ]
    first = len(columns) - columns.count("values")
    echo_table([*columns, "metrics", "saved", "saved $"], rows, right=range(first, len(columns) + 3))
    if len(contributions) > _ROWS_SHOWN:
        click.echo(f"and {len(contributions) - _ROWS_SHOWN} more; --json has all.")


def _saved_cells(contribution: Contribution) -> list[str]:
    return [f"{contribution.metrics:,}", f"{contribution.saved_metrics:,}", f"{contribution.saved_dollars:,.2f}"]
