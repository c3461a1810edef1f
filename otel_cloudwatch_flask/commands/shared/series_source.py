"""Options and functions that select series from a document or from CloudWatch, for commands that generate resources."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from otel_cloudwatch_flask.commands.shared import aws
from otel_cloudwatch_flask.commands.shared.command import CommandError
from otel_cloudwatch_flask.commands.shared.document import Document, from_option, read_document
from otel_cloudwatch_flask.commands.shared.user_app import load_user_app, namespaces_of, traceback_option

_F = TypeVar("_F", bound=Callable[..., Any])


def series_options(command: _F) -> _F:
    """Add the options ``--from``, ``--list``, ``--namespace``, ``--region`` and ``--traceback``."""
    options: tuple[Callable[[_F], _F], ...] = (
        traceback_option,
        click.option(
            "--region", help="Region of the metrics (default: the app's setting, or the Region that boto3 resolves)."
        ),
        click.option(
            "--namespace", "namespaces", multiple=True, help="Namespace for --list (default: the app's); repeatable."
        ),
        click.option("--list", "is_listed", is_flag=True, help="Read metrics from CloudWatch."),
        from_option,
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
    """Return ``region`` or, if it is not given, the Region of the app's settings, the environment or boto3.

    Raises :class:`CommandError` if no Region is configured.
    """
    configured = region or load_user_app(context, is_needed=False).value("REGION")
    with aws.errors_explained():
        return str(configured or aws.cloudwatch_client().meta.region_name)


def _listed(context: click.Context, given: Sequence[str], region: str | None) -> Document:
    namespaces = given or namespaces_of(load_user_app(context))
    if not namespaces:
        raise CommandError("No namespace is configured: pass --namespace NAME.")
    region = region_for(context, region)
    with aws.errors_explained():
        return Document(tuple(aws.listed_series(aws.cloudwatch_client(region), namespaces)))
