"""``alarms``: alarms to begin with."""

from typing import Any

import click

from otel_cloudwatch_flask.commands.reports.alarm_template import Thresholds, alarms
from otel_cloudwatch_flask.commands.shared.seen import seen, seen_options
from otel_cloudwatch_flask.commands.shared.usage import Command, echo_json


@click.command(cls=Command)
@seen_options
@click.option(
    "--failure-percent",
    type=click.FloatRange(0, 100),
    default=1.0,
    show_default=True,
    help="Alarm when more than this % of a route's requests are 5xx.",
)
@click.option(
    "--latency",
    type=click.FloatRange(0, min_open=True),
    help="Alarm when p99 exceeds this many seconds. Default: twice the observed p99, at least 0.1; 1 if unknown.",
)
@click.option(
    "--routes", type=click.IntRange(1, 100), default=10, show_default=True, help="The busiest routes get alarms."
)
@click.pass_context
def command(
    context: click.Context, /, failure_percent: float, latency: float | None, routes: int, **options: Any
) -> None:
    """Suggest alarms for your app, for CloudFormation.

    Prints a template in JSON: for each of the busiest routes the share of 5xx and the p99 latency, and one alarm for
    an app that has fallen silent. It has what was seen in a preview, a demo or a running app, or what CloudWatch lists.
    Read it, change the thresholds to what your users mind, and deploy it:

    \b
        flask --app shop cloudwatch alarms --from seen.json > alarms.json
        aws cloudformation deploy --stack-name shop-alarms --template-file alarms.json \\
            --parameter-overrides TopicArn=arn:aws:sns:eu-central-1:111122223333:on-call

    Needs cloudwatch:ListMetrics for --list.

    Exits with 0, or with 2 if there is nothing to watch.
    """  # noqa: D301 - click takes \b for "do not wrap"
    document = seen(
        context, options["source"], options["namespaces"], options["region"], is_listed=options["is_listed"]
    )
    made = alarms(document.series, Thresholds(failure_percent, latency), routes=routes)
    number = len(made.template["Resources"])
    click.echo(f"{number} alarms on {made.metrics} metrics: ${made.dollars:,.2f} a month.", err=True)
    echo_json(made.template)
