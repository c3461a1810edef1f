"""``cost``: estimate the monthly cost of an app's metrics."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import click

from otel_cloudwatch_flask.commands.reports.cost_estimate import (
    POLICIES,
    Contribution,
    Fleet,
    billed,
    by_dimension,
    by_metric,
    by_rule,
    emf_bytes,
)
from otel_cloudwatch_flask.commands.reports.cost_gate import Growth, growth, largest_share
from otel_cloudwatch_flask.commands.shared.command import EXIT_PROBLEM, Command, FloatRange, echo_json, json_option
from otel_cloudwatch_flask.commands.shared.document import Document, Metric, from_option, read_document
from otel_cloudwatch_flask.commands.shared.user_app import UserApp, load_user_app, traceback_option
from otel_cloudwatch_flask.config import FlushPolicy, Output
from otel_cloudwatch_flask.pricing import EMF_BYTES_PER_METRIC, PRICES_URL, MonthlyCost, monthly_cost
from otel_cloudwatch_flask.terminal import counted, echo_table, escaped

_ROWS_SHOWN: Final = 15
_AS_IN_DATA: Final = "as in the data"
_FIELDS: Final = ("flush", "flush_min_interval_seconds", "export_interval_seconds")
"""Each of these options defaults to the app's setting of the same name."""


@click.command(cls=Command)
@from_option
@click.option("--metrics", type=click.IntRange(0), help="Number of metrics, instead of --from.")
@click.option("--processes", type=click.IntRange(1), default=1, help="Number of processes on all hosts.")
@click.option("--flush", type=click.Choice(POLICIES), help="Flush policy (default: the app's setting).")
@click.option(
    "--rate",
    type=FloatRange(0),
    help="Requests per second to all processes together. Without --rate, processes are assumed to be always busy, and "
    "sync is not estimated.",
)
@click.option(
    "--flush-min-interval",
    _FIELDS[1],
    type=FloatRange(0),
    help="Minimum seconds between flushes triggered by requests (default: the app's setting).",
)
@click.option(
    "--export-interval",
    _FIELDS[2],
    type=FloatRange(0, min_open=True),
    help="Seconds between periodic flushes (default: the app's setting).",
)
@click.option(
    "--max",
    "max_dollars",
    metavar="DOLLARS",
    type=FloatRange(0),
    help="Fail if the monthly total exceeds this amount.",
)
@click.option("--against", metavar="FILE|URL|-", help="Fail if metrics or dimensions were added since this document.")
@json_option("the estimate")
@traceback_option
@click.pass_context
def command(
    context: click.Context,
    /,
    source: str | None,
    metrics: int | None,
    against: str | None,
    *,
    as_json: bool,
    **given: Any,
) -> None:
    """Estimate the monthly cost of your metrics, and find savings.

    Pass the metrics from a preview, a demo or a running app (--from), or only their number (--metrics). CloudWatch
    charges for metrics and, depending on the output, for API calls or logs. The estimate assumes that all processes
    publish the same metrics, which CloudWatch bills only once.

    \b
        flask --app shop cloudwatch preview --json | flask cloudwatch cost --from - --processes 40
        python -m otel_cloudwatch_flask cost --from https://shop.example/_cloudwatch/data.json
        python -m otel_cloudwatch_flask cost --metrics 120 --processes 40 --flush interval

    In CI, --max fails the job if the total exceeds a limit. --against compares the metrics with those in another
    document, and fails the job if a metric name or dimension is new, or if a name has more metrics than before:

    \b
        flask cloudwatch cost --from seen.json --against main.json --max 30

    Prices are for us-east-1, without the free tier. Each metric is assumed to have data in every hour.

    Exit status: 0 on success, 1 if a --max or --against check fails, 2 if the cost cannot be estimated.
    """  # noqa: D301 - click takes \b for "do not wrap"
    if (source is None) == (metrics is None):
        raise click.UsageError("Pass either --from FILE or --metrics NUMBER.", context)
    if against is not None and source is None:
        raise click.UsageError("--against compares metrics, so it requires --from.", context)
    result = _estimated(load_user_app(context, is_needed=False), source, metrics, against, given)
    problems = [
        *_over_max(context, result, given["max_dollars"]),
        *(f"Compared with {against}: {each}" for each in result.growth),
    ]
    if as_json:
        echo_json({**result.as_json(), "problems": problems})
    else:
        result.show()
    for problem in problems:
        click.secho(problem, fg="red", err=True)
    context.exit(EXIT_PROBLEM if problems else 0)


def _estimated(
    user_app: UserApp, source: str | None, metrics: int | None, against: str | None, given: Mapping[str, Any]
) -> "_Result":
    # The app's settings are the defaults, so that the estimate is for the app as it is configured.
    flush, *seconds = (user_app.value(name.upper()) if given[name] is None else given[name] for name in _FIELDS)
    fleet = Fleet(given["processes"], given["rate"], *seconds)
    document = Document(()) if source is None else read_document(source)
    every = billed(document.series)
    number = len(every) if metrics is None else metrics
    flush_bytes = emf_bytes(document.series) if metrics is None else number * EMF_BYTES_PER_METRIC
    rates = _flush_rates(fleet, document.requests_per_second).items()
    costs = {
        "api": {policy: monthly_cost(metrics=number, requests_per_second=rate) for policy, rate in rates},
        "emf": {
            policy: monthly_cost(metrics=number, log_bytes_per_second=rate * flush_bytes) for policy, rate in rates
        },
    }
    grown = [] if against is None else growth(billed(read_document(against).series), every)
    rules = by_rule(every, user_app.value("RULES"))
    return _Result(number, fleet, flush, user_app.value("OUTPUT"), costs, every, rules, grown)


def _over_max(context: click.Context, result: "_Result", most: float | None) -> Iterator[str]:
    cost = result.chosen
    if most is None:
        return
    if cost is None:
        raise click.UsageError(
            f'--max requires --rate, because the cost of flush="{result.flush}" depends on it.', context
        )
    if cost.dollars > most:
        yield f"${cost.dollars:,.2f} a month exceeds --max {most:g}." + largest_share(result.metrics)


def _flush_rates(fleet: Fleet, rate_in_data: float | None) -> dict[str, float]:
    """Map each flush policy to the number of flushes per second, except policies whose number is unknown.

    ``rate_in_data`` is the rate of one process in the document, or ``None`` if it is unknown. If it is given, the
    result has an additional entry: the rate if every process flushes at that rate.
    """
    rates: dict[str, float | None] = {policy: fleet.calls_per_second(policy) for policy in POLICIES}
    if rate_in_data is not None:
        rates[_AS_IN_DATA] = rate_in_data * fleet.processes
    return {policy: rate for policy, rate in rates.items() if rate is not None}


@dataclass(frozen=True, slots=True)
class _Result:
    """An estimate that can be printed as text or as JSON."""

    number: int
    fleet: Fleet
    flush: FlushPolicy
    output: Output
    costs: Mapping[str, Mapping[str, MonthlyCost]]
    metrics: Sequence[Metric]
    rules: Sequence[Contribution]
    growth: Sequence[Growth]

    @property
    def chosen(self) -> MonthlyCost | None:
        return self.costs[self.output].get(self.flush)

    def as_json(self) -> dict[str, Any]:
        api, emf = ({policy: cost.document() for policy, cost in costs.items()} for costs in self.costs.values())
        return {
            "metrics": self.number,
            "fleet": asdict(self.fleet),
            "flush": self.flush,
            "output": self.output,
            "dollars_per_month": api,
            "dollars_per_month_emf": emf,
            "by_metric": list(map(asdict, by_metric(self.metrics))),
            "by_dimension": list(map(asdict, by_dimension(self.metrics))),
            "by_rule": list(map(asdict, self.rules)),
            "growth": list(map(asdict, self.growth)),
        }

    def show(self) -> None:
        processes = f"{self.fleet.processes} process{'es' * (self.fleet.processes > 1)}"
        click.secho(f"Monthly cost of {counted(self.number, 'metric')} from {processes}", bold=True)
        self._show_policies()
        # Dropping a dimension saves nothing if it merges no series, for example if the dimension has a single value.
        dimensions = [each for each in by_dimension(self.metrics) if each.saved_metrics]
        _show_part("By metric name", by_metric(self.metrics), ("metric",))
        _show_part("By dimension", dimensions, ("metric", "dimension", "values"))
        _show_part("By rule and rollup", self.rules, ("rule",))
        click.echo(f"\nPrices: us-east-1, without the free tier; {PRICES_URL}")

    def _show_policies(self) -> None:
        rows = [self._row(output, *each) for output, costs in self.costs.items() for each in costs.items()]
        head = ["  flush", "output", "metrics $", "calls", "delivery $", "total $", "vs. current"]
        echo_table(head, rows, right=range(2, 7))
        click.echo("* = current setting. The emf rows assume that every flush writes every metric.")
        if "sync" not in self.costs["api"]:
            click.echo("Pass --rate to estimate sync.")

    def _row(self, output: str, policy: str, cost: MonthlyCost) -> list[str]:
        figures = [cost.metrics_dollars, cost.requests_dollars + cost.logs_dollars, cost.dollars]
        metrics, delivery, total = (f"{figure:,.2f}" for figure in figures)
        mark, difference = "  ", ""
        if cost is self.chosen:
            mark = "* "
        elif self.chosen:
            difference = f"{cost.dollars - self.chosen.dollars:+,.2f}"
        return [mark + policy, output, metrics, f"{cost.requests:,.0f}", delivery, total, difference]


def _show_part(title: str, contributions: Sequence[Contribution], columns: Sequence[str]) -> None:
    if not contributions:
        return
    click.echo()
    click.secho(title, bold=True)
    rows = []
    for each in contributions[:_ROWS_SHOWN]:
        cells = [escaped(str(getattr(each, column)), 60) for column in columns]
        rows.append([*cells, f"{each.metrics:,}", f"{each.saved_metrics:,}", f"{each.saved_dollars:,.2f}"])
    # Of ``columns``, only "values" holds numbers, so it is right-aligned like the columns that follow.
    first = len(columns) - columns.count("values")
    echo_table([*columns, "metrics", "removed if dropped", "saved $"], rows, right=range(first, len(columns) + 3))
    if len(contributions) > _ROWS_SHOWN:
        click.echo(f"... {len(contributions) - _ROWS_SHOWN} more rows; use --json to see all.")
