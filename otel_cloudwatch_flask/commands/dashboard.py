"""``dashboard``: a CloudWatch dashboard for an app."""

import json
import re
from typing import Any, Final

import click

from otel_cloudwatch_flask.commands.reports.dashboard_body import Dashboard, dashboard
from otel_cloudwatch_flask.commands.shared import aws
from otel_cloudwatch_flask.commands.shared.seen import region_for, seen, seen_options
from otel_cloudwatch_flask.commands.shared.terminal import inert
from otel_cloudwatch_flask.commands.shared.usage import Command, echo_json

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,255}")
"""https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutDashboard.html"""


def _dashboard_name(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not _NAME.fullmatch(value):
        raise click.BadParameter(f"{value!r} is no name; use 1 to 255 characters of A-Z, a-z, 0-9, '-' and '_'.")
    return value


@click.command(cls=Command)
@seen_options
@click.option("--put", "name", callback=_dashboard_name, metavar="NAME", help="Create or replace this dashboard.")
@click.pass_context
def command(
    context: click.Context, /, name: str | None, source: str | None, region: str | None, **listing: Any
) -> None:
    """Make a CloudWatch dashboard for your app.

    Prints the dashboard's body: requests, errors, latency by route (p50, p90, p99), and everything else by its unit.
    It has what was seen in a preview, a demo or a running app, or what CloudWatch lists; of what is listed, the units
    are not known. With --put the dashboard is created; one of the same name is replaced.

    \b
        flask --app shop cloudwatch preview --json > seen.json
        flask cloudwatch dashboard --from seen.json --put Shop
        flask --app shop cloudwatch dashboard --list > body.json

    Needs cloudwatch:ListMetrics for --list, and cloudwatch:PutDashboard for --put. CloudWatch bills $3 a month for each
    dashboard beyond three.

    Exits with 0, or with 2 if there is nothing to show or CloudWatch does not take it.
    """  # noqa: D301 - click takes \b for "do not wrap"
    document = seen(context, source, listing["namespaces"], region, is_listed=listing["is_listed"])
    region = region_for(context, region)
    made = dashboard(document.series, region=region, title=", ".join(document.namespaces))
    _warn_of_what_is_left_out(made)
    if name is None:
        echo_json(made.body)
    else:
        _put(name, made, region)


def _put(name: str, made: Dashboard, region: str) -> None:
    with aws.errors_explained():
        messages = aws.put_dashboard(aws.cloudwatch_client(region), name, json.dumps(made.body))
    for message in messages:
        click.echo(f"CloudWatch says: {inert(message, 400)}", err=True)
    click.echo(
        f"The dashboard {name} is there, with {len(made.body['widgets'])} widgets:\n"
        f"https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}#dashboards/dashboard/{name}"
    )


def _warn_of_what_is_left_out(made: Dashboard) -> None:
    if made.left_out:
        first = inert(made.left_out[0].name, 60)
        click.echo(
            f"{len(made.left_out)} series are not in the dashboard, the first is {first}: there is room for 2500, and "
            "none for dimensions of one or three dots. Keep fewer dimensions, see the command cost.",
            err=True,
        )
