"""``policy``: the least that a role needs."""

from collections.abc import Sequence
from typing import Any

import click

from otel_cloudwatch_flask.commands.shared.document import from_option, read_document
from otel_cloudwatch_flask.commands.shared.usage import Command, Unusable, echo_json
from otel_cloudwatch_flask.commands.shared.user_app import loaded_app, namespaces_of
from otel_cloudwatch_flask.config import parse_namespace


def policy_document(namespaces: Sequence[str]) -> dict[str, Any]:
    """The IAM policy that allows publishing to these namespaces, and nothing else.

    PutMetricData knows no resources, so that ``"*"`` is the only one to write; the condition narrows it down:
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/iam-cw-condition-keys-namespace.html.
    """
    allowed = namespaces[0] if len(namespaces) == 1 else list(namespaces)
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "PublishMetrics",
                "Effect": "Allow",
                "Action": "cloudwatch:PutMetricData",
                "Resource": "*",
                "Condition": {"StringEquals": {"cloudwatch:namespace": allowed}},
            }
        ],
    }


def _checked(_context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(_checked_namespace, value))


def _checked_namespace(namespace: str) -> str:
    try:
        return parse_namespace(namespace)
    except ValueError as problem:
        raise click.BadParameter(f"{namespace!r} {problem}.") from None


@click.command(cls=Command)
@click.option(
    "--namespace",
    "namespaces",
    multiple=True,
    callback=_checked,
    help="A namespace to publish to; several times for several of them.",
)
@from_option()
@click.pass_context
def command(context: click.Context, namespaces: tuple[str, ...], source: str | None) -> None:
    """Print the IAM policy that publishing needs.

    And no more: it allows cloudwatch:PutMetricData to the namespaces that are given, or that a document names, or else
    to those of the app. Attach it to the role of the server:

    \b
        aws iam put-role-policy --role-name shop --policy-name metrics \\
            --policy-document "$(flask cloudwatch policy)"

    Who runs "dashboard --list" needs cloudwatch:ListMetrics too, and for "dashboard --put" cloudwatch:PutDashboard.

    Exits with 0, or with 2 if no namespace is known.
    """  # noqa: D301 - click takes \b for "do not wrap"
    echo_json(policy_document(_namespaces(context, namespaces, source)))


def _namespaces(context: click.Context, given: tuple[str, ...], source: str | None) -> list[str]:
    named = list(dict.fromkeys(given)) or (read_document(source).namespaces if source else [])
    namespaces = named or namespaces_of(loaded_app(context))
    if not namespaces:
        raise Unusable(
            "No namespace is known: give --namespace NAME, or run flask --app YOUR_APP cloudwatch policy, which asks "
            "the app."
        )
    return namespaces
