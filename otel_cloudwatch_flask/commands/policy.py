"""``policy``: print the least-privilege IAM policy for publishing."""

from collections.abc import Sequence
from typing import Any

import click

from otel_cloudwatch_flask.commands.shared.command import Command, CommandError, echo_json, json_option
from otel_cloudwatch_flask.commands.shared.document import from_option, read_document
from otel_cloudwatch_flask.commands.shared.user_app import load_user_app, namespaces_of, traceback_option
from otel_cloudwatch_flask.config import parse_namespace


def policy_document(namespaces: Sequence[str]) -> dict[str, Any]:
    """Return an IAM policy that allows publishing to ``namespaces`` and nothing else.

    PutMetricData does not support resource-level permissions, so the resource is ``"*"`` and a condition restricts the
    namespace: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/iam-cw-condition-keys-namespace.html.
    """
    # IAM would interpret "${" as the start of a variable:
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html
    literal = [namespace.replace("${", "${$}{") for namespace in namespaces]
    # IAM accepts a list with one item as well, but a string is the usual form.
    allowed = literal[0] if len(literal) == 1 else literal
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
    type=_checked_namespace,
    metavar="TEXT",
    help="Namespace to allow; repeatable.",
)
@from_option
@json_option("the policy or an error")
@traceback_option
@click.pass_context
def command(context: click.Context, /, namespaces: tuple[str, ...], source: str | None, **_as_json: bool) -> None:
    """Print an IAM policy that allows your app to publish.

    The policy allows cloudwatch:PutMetricData in the app's namespaces, or in those given by --namespace or --from.
    Attach the policy to the server's role:

    \b
        aws iam put-role-policy --role-name shop --policy-name metrics \\
            --policy-document "$(flask --app shop cloudwatch policy)"

    The --audit, --list and --put options of other commands require additional permissions; see the help for those
    commands.

    Exit status: 0 on success, 2 on error.
    """  # noqa: D301 - click takes \b for "do not wrap"
    echo_json(policy_document(_namespaces(context, namespaces, source)))


def _namespaces(context: click.Context, given: tuple[str, ...], source: str | None) -> list[str]:
    if given:
        return list(dict.fromkeys(given))
    namespaces = namespaces_of(load_user_app(context)) if source is None else read_document(source).namespaces
    if not namespaces:
        raise CommandError(
            "No namespace is configured: pass --namespace NAME, or run flask --app YOUR_APP cloudwatch policy."
        )
    return namespaces
