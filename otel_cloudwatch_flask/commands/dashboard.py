"""``dashboard``: generate a CloudWatch dashboard for an app."""

import json
import re
from typing import Any, Final

import click

from otel_cloudwatch_flask.commands.reports.dashboard_body import Dashboard, dashboard
from otel_cloudwatch_flask.commands.reports.template_formats import FORMATS, echo_output
from otel_cloudwatch_flask.commands.shared import aws
from otel_cloudwatch_flask.commands.shared.command import Command, json_option
from otel_cloudwatch_flask.commands.shared.series_source import region_for, selected_series, series_options
from otel_cloudwatch_flask.terminal import counted, escaped

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,255}")
"""https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutDashboard.html"""

_CONSOLES: Final = {"aws-cn": "console.amazonaws.cn", "aws-us-gov": "console.amazonaws-us-gov.com"}
"""The domains of the consoles outside of the standard partition."""


def _dashboard_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise click.BadParameter(f"{value!r} is invalid; use 1 to 255 characters from A-Z, a-z, 0-9, '-' and '_'.")
    return value


@click.command(cls=Command)
@series_options
@click.option(
    "--put", "name", type=_dashboard_name, metavar="NAME", help="Create or replace the dashboard with this name."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["body", *FORMATS]),
    default="body",
    help="Print the dashboard body, a CloudFormation template, Terraform configuration, or a CDK stack in Python.",
)
@json_option("the dashboard, the number of omitted series, and the URL")
@click.pass_context
def command(context: click.Context, /, name: str | None, form: str, *, as_json: bool, **options: Any) -> None:
    """Generate a CloudWatch dashboard for your app.

    Prints a dashboard body with charts of requests, errors and latency by route, and of the other metrics by unit.
    With --put, creates or replaces a dashboard in CloudWatch instead. The charts search for metrics by name, so they
    also show routes and other dimension values that appear later.

    Pass --from to read metrics from a preview, a demo or a running app, or --list to read them from CloudWatch:

    \b
        flask --app shop cloudwatch preview --json > seen.json
        flask cloudwatch dashboard --from seen.json --put Shop
        flask --app shop cloudwatch dashboard --list > body.json

    --list requires the cloudwatch:ListMetrics permission, and --put requires cloudwatch:PutDashboard. Beyond the free
    tier, a dashboard costs $3 a month.

    Exit status: 0 on success, 2 on error.
    """  # noqa: D301 - click takes \b for "do not wrap"
    document = selected_series(context, options)
    region = region_for(context, options["region"])
    generated = dashboard(document.series, region=region, name="-".join(document.namespaces))
    _warn_of_omitted_series(generated)
    # The warning goes to standard error, so that standard output can be redirected to a file.
    url = None if name is None else _put(name, generated, region)
    output = generated.body if form == "body" else FORMATS[form](generated.template())
    if url is not None and not as_json:
        click.echo(f"Saved dashboard {name} with {counted(len(generated.body['widgets']), 'widget')}:\n{url}")
    else:
        echo_output(output, form, as_json=as_json, omitted=len(generated.omitted), url=url)


def _put(name: str, generated: Dashboard, region: str) -> str:
    """Create or replace the dashboard, print CloudWatch's messages, and return the URL of the dashboard."""
    with aws.errors_explained():
        client = aws.cloudwatch_client(region)
        messages = aws.put_dashboard(client, name, json.dumps(generated.body))
    for message in messages:
        click.echo(f"CloudWatch: {escaped(message, 400)}", err=True)
    console = _CONSOLES.get(client.meta.partition, "console.aws.amazon.com")
    return f"https://{region}.{console}/cloudwatch/home?region={region}#dashboards/dashboard/{name}"


def _warn_of_omitted_series(generated: Dashboard) -> None:
    if generated.omitted:
        first = escaped(generated.omitted[0].name, 60)
        click.echo(
            f"Omitted {len(generated.omitted)} series from the dashboard, starting with {first}: a chart shows at most "
            "500 metrics, and a dashboard at most 500 charts and 2,500 metrics. Run the cost command to see which "
            "dimensions to drop.",
            err=True,
        )
