"""Options and functions that select series from a document or from CloudWatch, for commands that generate resources."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from otel_cloudwatch_flask.commands.shared import aws
from otel_cloudwatch_flask.commands.shared.command import CommandError
from otel_cloudwatch_flask.commands.shared.document import Document, from_option, read_document
from otel_cloudwatch_flask.commands.shared.user_app import UserApp, load_user_app, namespaces_of, traceback_option

_F = TypeVar("_F", bound=Callable[..., Any])


def series_options(command: _F) -> _F:
    """Add the options ``--from``, ``--list``, ``--namespace``, ``--region`` and ``--traceback``."""
    options: tuple[Callable[[_F], _F], ...] = (
        traceback_option,
        click.option("--region", help="Region of the metrics. Default: the app's, or boto3's."),
        click.option("--namespace", "namespaces", multiple=True, help="With --list: namespace to list; repeatable."),
        click.option("--list", "is_listed", is_flag=True, help="Get the metrics from CloudWatch (ListMetrics)."),
        from_option(),
    )
    for option in options:
        command = option(command)
    return command


def selected_series(context: click.Context, options: Mapping[str, Any]) -> Document:
    """Return the series that the options of :func:`series_options` select.

    Raises ``click.UsageError`` unless exactly one source is selected, and :class:`CommandError` if there are no series.
    """
    source, is_listed = options["source"], options["is_listed"]
    if bool(source) == is_listed:
        raise click.UsageError("Pass either --from FILE (output of preview --json) or --list.", context)
    document = read_document(source) if source else _listed(context, options["namespaces"], options["region"])
    if not document.series:
        raise CommandError("No metrics found: publish some first, or preview other paths.")
    return document


def region_for(context: click.Context, region: str | None) -> str:
    """Return ``region`` or, if it is not given, the Region of the environment, the app or boto3, in that order.

    Raises :class:`CommandError` if no Region is configured.
    """
    with aws.errors_explained():
        # The environment is checked before the app's own settings, so that the app is loaded only if necessary.
        found = region or UserApp().value("REGION") or load_user_app(context).value("REGION")
        found = found or aws.region_of(aws.cloudwatch_client())
    if not found:
        raise CommandError("No Region configured: pass --region, or set AWS_REGION.")
    return str(found)


def _listed(context: click.Context, given: Sequence[str], region: str | None) -> Document:
    namespaces = list(given) or namespaces_of(load_user_app(context))
    if not namespaces:
        raise CommandError("No namespace configured: pass --namespace NAME.")
    with aws.errors_explained():
        client = aws.cloudwatch_client(region_for(context, region))
        return Document(tuple(aws.listed_series(client, namespaces)))
