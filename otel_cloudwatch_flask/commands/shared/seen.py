"""What the commands that need to know an app's series look at: a document, or what CloudWatch lists."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from otel_cloudwatch_flask.commands.shared import aws
from otel_cloudwatch_flask.commands.shared.document import Document, from_option, read_document
from otel_cloudwatch_flask.commands.shared.usage import Unusable
from otel_cloudwatch_flask.commands.shared.user_app import UserApp, loaded_app, namespaces_of

_F = TypeVar("_F", bound=Callable[..., Any])


def seen_options(command: _F) -> _F:
    """The options ``--from``, ``--list``, ``--namespace`` and ``--region``."""
    options: tuple[Callable[[_F], _F], ...] = (
        click.option("--region", help="The Region of the metrics; by default the app's, or boto3's."),
        click.option("--namespace", "namespaces", multiple=True, help="With --list: the namespaces to list."),
        click.option("--list", "is_listed", is_flag=True, help="Ask CloudWatch, with ListMetrics, what there is."),
        from_option(),
    )
    for option in options:
        command = option(command)
    return command


def seen(
    context: click.Context, source: str | None, namespaces: Sequence[str], region: str | None, *, is_listed: bool
) -> Document:
    """The document that the options name; never one without series."""
    if bool(source) == is_listed:
        raise click.UsageError(
            "Say what there is: --from FILE with the output of preview --json, or --list to ask CloudWatch.", context
        )
    document = read_document(source) if source else _listed(context, namespaces, region)
    if not document.series:
        raise Unusable("There is not a single metric: publish some first, or preview other paths.")
    return document


def region_for(context: click.Context, region: str | None) -> str:
    """The Region that is given, or the app's, or boto3's."""
    with aws.errors_explained():
        found = region or UserApp().value("REGION") or loaded_app(context).value("REGION")
        found = found or aws.region_of(aws.cloudwatch_client())
    if not found:
        raise Unusable("No Region is known: give --region, or set AWS_REGION.")
    return str(found)


def _listed(context: click.Context, given: Sequence[str], region: str | None) -> Document:
    namespaces = list(given) or namespaces_of(loaded_app(context))
    if not namespaces:
        raise Unusable("No namespace is known: give --namespace NAME.")
    with aws.errors_explained():
        client = aws.cloudwatch_client(region_for(context, region))
        return Document(tuple(aws.listed_series(client, namespaces)))
