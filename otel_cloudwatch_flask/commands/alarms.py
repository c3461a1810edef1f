"""``alarms``: suggest CloudWatch alarms for CloudFormation, Terraform or the CDK."""

from typing import Any

import click

from otel_cloudwatch_flask.commands.reports.alarm_template import Thresholds, alarms
from otel_cloudwatch_flask.commands.reports.template_formats import FORMATS, echo_output, template_options
from otel_cloudwatch_flask.commands.shared.command import Command, FloatRange
from otel_cloudwatch_flask.commands.shared.series_source import selected_series, series_options
from otel_cloudwatch_flask.terminal import counted


@click.command(cls=Command)
@series_options
@click.option(
    "--failure-percent",
    type=FloatRange(0, 100),
    default=1.0,
    help="Alarm when more than this percentage of a route's responses are 5xx.",
)
@click.option(
    "--min-requests",
    type=click.IntRange(0),
    default=50,
    help="Do not alarm on 5xx if a route has fewer requests than this in 5 minutes.",
)
@click.option(
    "--latency",
    type=FloatRange(0, min_open=True),
    help="Alarm when p99 exceeds this many seconds (default: 2 to 3 times the observed p99 and at least 0.1, or 1 if "
    "no p99 is known).",
)
@click.option(
    "--anomaly-detection",
    "is_learned",
    is_flag=True,
    help="Use CloudWatch anomaly detection for p99 instead of a fixed threshold. This triples the price of the latency "
    "alarms.",
)
@click.option("--routes", type=click.IntRange(1, 100), default=10, help="Maximum number of routes, busiest first.")
@template_options
@click.pass_context
def command(
    context: click.Context, /, failure_percent: float, min_requests: int, latency: float | None, **options: Any
) -> None:
    """Suggest CloudWatch alarms for your app.

    Prints alarms on the 5xx rate and the p99 latency of the busiest routes, and one alarm on missing data. Pass --from
    to read metrics from a preview, a demo or a running app, or --list to read them from CloudWatch. Review the alarms,
    adjust their thresholds, and deploy them:

    \b
        flask --app shop cloudwatch alarms --from seen.json > alarms.json
        aws cloudformation deploy --stack-name shop-alarms --template-file alarms.json \\
            --parameter-overrides TopicArn=arn:aws:sns:eu-central-1:111122223333:on-call

    --list requires the cloudwatch:ListMetrics permission.

    Exit status: 0 on success, 2 on error.
    """  # noqa: D301 - click takes \b for "do not wrap"
    document = selected_series(context, options)
    thresholds = Thresholds(failure_percent, min_requests, latency, options["is_learned"])
    suggested = alarms(document.series, thresholds, routes=options["routes"])
    on_metrics = f"on {counted(suggested.metrics, 'metric')}: ${suggested.dollars:,.2f} a month."
    click.echo(f"{counted(len(suggested.template['Resources']), 'alarm')} {on_metrics}", err=True)
    form, facts = options["form"], {"metrics": suggested.metrics, "dollars_per_month": round(suggested.dollars, 2)}
    echo_output(FORMATS[form](suggested.template), form, as_json=options["as_json"], **facts)
