"""``scaling``: generate a target-tracking scaling policy on one of an app's metrics."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import click

from otel_cloudwatch_flask.commands.reports.alarm_template import DOLLARS_PER_ALARM_METRIC
from otel_cloudwatch_flask.commands.reports.scaling_template import (
    ALARMS_PER_POLICY,
    STATISTICS,
    ScalableTarget,
    Tracking,
    scaling_template,
)
from otel_cloudwatch_flask.commands.reports.template_formats import FORMATS, echo_output, template_options
from otel_cloudwatch_flask.commands.shared import aws
from otel_cloudwatch_flask.commands.shared.command import Command, CommandError, FloatRange
from otel_cloudwatch_flask.commands.shared.document import SeriesSummary
from otel_cloudwatch_flask.commands.shared.series_source import selected_series, series_options
from otel_cloudwatch_flask.terminal import escaped, listed

_ECS_SERVICE: Final = "ecs:service:DesiredCount"
_ECS_RESOURCE: Final = re.compile(r"service/[^/]+/[^/]+")


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not (name and value):
        raise click.BadParameter(f"{text!r} is invalid; use NAME=VALUE.")
    return name, value


def _known_dimension(value: str) -> str:
    allowed = aws.scalable_dimensions()
    if value not in allowed:
        raise click.BadParameter(f"{value!r} is invalid; use one of {', '.join(allowed)}.")
    return value


@click.command(cls=Command)
@series_options
@click.option("--metric", required=True, metavar="NAME", help="Name of the metric to track.")
@click.option(
    "--dimension",
    "dimensions",
    multiple=True,
    type=_pair,
    metavar="NAME=VALUE",
    help="Dimension of the metric, to select one of several series; repeatable.",
)
@click.option(
    "--statistic", type=click.Choice(STATISTICS), default=STATISTICS[0], help="Statistic of the metric over one minute."
)
@click.option(
    "--target", "value", required=True, type=FloatRange(0, min_open=True), help="Target value of the statistic."
)
@click.option("--resource", required=True, metavar="ID", help="Resource to scale: service/CLUSTER/SERVICE for ECS.")
@click.option(
    "--scalable-dimension",
    type=_known_dimension,
    default=_ECS_SERVICE,
    metavar="NAME",
    help="Property of the resource to scale.",
)
@click.option("--min", "minimum", required=True, type=click.IntRange(0), help="Minimum capacity.")
@click.option("--max", "maximum", required=True, type=click.IntRange(0), help="Maximum capacity.")
@click.option(
    "--scale-out-cooldown",
    "scale_out_seconds",
    type=click.IntRange(0),
    default=60,
    help="Seconds to wait after adding capacity.",
)
@click.option(
    "--scale-in-cooldown",
    "scale_in_seconds",
    type=click.IntRange(0),
    default=300,
    help="Seconds to wait after removing capacity.",
)
@template_options
@click.pass_context
def command(context: click.Context, /, metric: str, dimensions: Sequence[tuple[str, str]], **options: Any) -> None:
    """Generate an autoscaling policy based on one of your metrics.

    Prints an Application Auto Scaling target-tracking policy and its scalable target. The policy adds capacity while
    the metric is above the target, and removes capacity while the metric is below it. Choose a metric that falls when
    capacity is added.

    \b
        flask --app shop cloudwatch preview --json > seen.json
        flask cloudwatch scaling --from seen.json --metric "Requests In Progress" --target 4 \\
            --resource service/shop/web --min 2 --max 20 > scaling.json
        aws cloudformation deploy --stack-name shop-scaling --template-file scaling.json

    --list requires the cloudwatch:ListMetrics permission.

    Exit status: 0 on success, 2 on error.
    """  # noqa: D301 - click takes \b for "do not wrap"
    target = _target(context, options)
    document = selected_series(context, options)
    series = chosen_series(document.series, metric, dimensions)
    tracking = Tracking(*(options[name] for name in ("statistic", "value", "scale_out_seconds", "scale_in_seconds")))
    dollars = ALARMS_PER_POLICY * DOLLARS_PER_ALARM_METRIC
    click.echo(
        f"Keeps the {tracking.statistic} of {escaped(str(series), 200)} at {tracking.value:g} with a capacity of "
        f"{target.minimum} to {target.maximum}. Its {ALARMS_PER_POLICY} alarms cost ${dollars:.2f} a month.",
        err=True,
    )
    form, template = options["form"], scaling_template(series, tracking, target)
    echo_output(FORMATS[form](template), form, as_json=options["as_json"], dollars_per_month=dollars)


def _target(context: click.Context, options: Mapping[str, Any]) -> ScalableTarget:
    target = ScalableTarget(*(options[name] for name in ("resource", "scalable_dimension", "minimum", "maximum")))
    if target.minimum > target.maximum:
        raise click.UsageError(f"--min {target.minimum} exceeds --max {target.maximum}.", context)
    if target.scalable_dimension == _ECS_SERVICE and not _ECS_RESOURCE.fullmatch(target.resource_id):
        allowed = "use service/CLUSTER/SERVICE, or pass --scalable-dimension"
        raise click.UsageError(f"--resource {target.resource_id!r} is not an ECS service; {allowed}.", context)
    return target


def chosen_series(every: Sequence[SeriesSummary], name: str, dimensions: Sequence[tuple[str, str]]) -> SeriesSummary:
    """Return the series with this name and exactly these dimensions, or else the only one with additional dimensions.

    Raises :class:`CommandError`, which lists the available names or series, unless exactly one series is found.
    """
    named = {each.metric: each for each in every if each.name == name}
    if not named:
        raise CommandError(f"No metric is named {name!r}. Available: {_listed(each.name for each in every)}.")
    matching = [each for each in named.values() if {*dimensions} <= {*each.dimensions}]
    found = [each for each in matching if len(each.dimensions) == len({*dimensions})] or matching
    if len(found) == 1:
        return found[0]
    given = escaped(str(SeriesSummary("", name, tuple(dimensions))))
    available = _listed(map(str, found or named.values()))
    raise CommandError(f"{given} matches {len(found)} series; pass --dimension NAME=VALUE for one of: {available}.")


def _listed(texts: Iterable[str]) -> str:
    return listed([escaped(text, 200) for text in sorted(set(texts))])
