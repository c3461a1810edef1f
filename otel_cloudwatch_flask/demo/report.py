"""Format the demo's outcome for a terminal or as JSON. Text is never interpreted as Rich markup."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from otel_cloudwatch_flask.config import DEFAULT_EXPORT_INTERVAL_SECONDS
from otel_cloudwatch_flask.demo.comparison import Comparison
from otel_cloudwatch_flask.demo.comparison_table import ASCII, UNICODE, ComparisonTable, Signs
from otel_cloudwatch_flask.demo.run import Outcome
from otel_cloudwatch_flask.demo.running_shop import RunningShop
from otel_cloudwatch_flask.pricing import PRICES_URL
from otel_cloudwatch_flask.terminal import counted

_POLICIES: Final = {
    "background": 'flush="background" (this demo)',
    "interval": f'flush="interval", {DEFAULT_EXPORT_INTERVAL_SECONDS:.0f} s',
}
_PROBLEMS_SHOWN: Final = 20


@contextmanager
def progress(seconds: float, *, is_shown: bool) -> Iterator[Callable[[RunningShop], None]]:
    """Show a progress bar on standard error, if it is a terminal and ``is_shown`` is true.

    Yields the callback that updates the bar.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), TimeRemainingColumn())
    # In a log file, a progress bar would be noise.
    is_hidden = not (is_shown and console.is_terminal)
    with Bar(*columns, console=console, transient=True, expand=True, disable=is_hidden) as bar:
        task = bar.add_task("Starting the shop", total=None)

        def on_progress(shop: RunningShop) -> None:
            responses, calls = len(shop.traffic.responses), shop.cloudwatch.traffic.put_requests
            text = f"Sending traffic: {responses:,} requests, {calls:,} to CloudWatch"
            bar.update(task, description=text, total=seconds, completed=shop.traffic.elapsed_seconds)

        yield on_progress


def show(outcome: Outcome, console: Console | None = None) -> None:
    """Print the outcome to ``console``. Default: standard output."""
    console = console or Console()
    signs = ASCII if console.options.ascii_only else UNICODE
    console.print(Group(*_parts(outcome, console.width, signs)), highlight=False)


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Convert the outcome to a mapping for JSON. ``problems`` is empty if and only if the demo's exit status is 0."""
    return {
        "equal": not outcome.problems,
        "problems": outcome.problems,
        "seconds": outcome.seconds,
        "requests": outcome.responses,
        "requests_per_second": outcome.responses / outcome.seconds,
        "metrics": list(map(_comparison_as_json, outcome.comparisons)),
        "put_metric_data": asdict(outcome.api),
        "delivery": dict(outcome.delivery),
        "document": dict(outcome.document),
        "dollars_per_month": {policy: cost.document() for policy, cost in outcome.costs.items()},
    }


def _comparison_as_json(comparison: Comparison) -> dict[str, Any]:
    expectation = comparison.expectation
    return {
        "metric": comparison.series.name,
        "dimensions": dict(comparison.series.dimensions),
        "unit": comparison.series.unit,
        "cloudwatch": comparison.found,
        "counted": expectation and dict(expectation.figures),
        "limits": expectation and dict(expectation.limits),
        "counted_by": expectation and expectation.counted_by,
        "differences": list(comparison.differences),
    }


def _parts(outcome: Outcome, width: int, signs: Signs) -> Iterator[RenderableType]:
    yield Text()
    yield Rule(Text("Metrics in CloudWatch, and independent counts", "bold"), align="left", style="dim")
    yield from ComparisonTable(outcome.comparisons, width, signs).parts()
    yield Text()
    yield Rule(Text("Cost", "bold"), align="left", style="dim")
    yield _requests_line(outcome)
    yield Text()
    yield _cost_table(outcome)
    yield Text(f"Prices: us-east-1, without the free tier; {PRICES_URL}", "dim")
    yield Text()
    yield from _verdict(outcome, signs)


def _requests_line(outcome: Outcome) -> Text:
    api = outcome.api
    what, size = "PutMetricData request", api.bytes_received
    if outcome.output == "emf":
        what, size = "EMF line", outcome.delivery["bytes_sent"]
    return Text(
        f"{outcome.responses:,} requests to the shop in {outcome.seconds:.1f} s"
        f" ({outcome.responses / outcome.seconds:.0f}/s) produced {counted(api.put_requests, what)}"
        f" with {counted(api.datums, 'data point')}, {size / 1000:,.1f} kB."
    )


def _cost_table(outcome: Outcome) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("per month", no_wrap=True)
    for title in ("metrics", "metrics $", "calls", "logs $" if outcome.output == "emf" else "calls $", "total $"):
        table.add_column(title, justify="right", no_wrap=True)
    for policy, cost in outcome.costs.items():
        table.add_row(
            _POLICIES[policy],
            f"{cost.metrics:,}",
            f"{cost.metrics_dollars:,.2f}",
            f"{cost.requests:,.0f}",
            f"{cost.requests_dollars + cost.logs_dollars:,.2f}",
            Text(f"{cost.dollars:,.2f}", "bold"),
        )
    return table


def _verdict(outcome: Outcome, signs: Signs) -> Iterator[Text]:
    problems = outcome.problems
    if not problems:
        text = f"All numbers match: {len(outcome.comparisons)} series, nothing rejected, nothing lost."
        yield Text(f"{signs.match} {text}", "bold green")
        return
    yield Text(f"{signs.mismatch} Problems: {len(problems)}", "bold red")
    for problem in problems[:_PROBLEMS_SHOWN]:
        yield Text(f"  {problem}")
    if len(problems) > _PROBLEMS_SHOWN:
        yield Text(f"  ... {len(problems) - _PROBLEMS_SHOWN} more; use --json to see all.")
