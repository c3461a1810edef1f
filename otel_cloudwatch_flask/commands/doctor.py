"""``doctor``: what is set up, what is missing, and what to do about it."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path
from typing import Final

import click

from otel_cloudwatch_flask.commands.doctor_checks.aws import Destination, aws_checks
from otel_cloudwatch_flask.commands.doctor_checks.check import Check, Status
from otel_cloudwatch_flask.commands.doctor_checks.instrumentation import measured_checks, twice_checks
from otel_cloudwatch_flask.commands.doctor_checks.server import server_checks
from otel_cloudwatch_flask.commands.doctor_checks.settings import SECTION, settings_checks
from otel_cloudwatch_flask.commands.shared import aws
from otel_cloudwatch_flask.commands.shared.terminal import inert
from otel_cloudwatch_flask.commands.shared.usage import EXIT_PROBLEM, Command, echo_json, json_option
from otel_cloudwatch_flask.commands.shared.user_app import UserApp, loaded_app, namespaces_of
from otel_cloudwatch_flask.errors import CloudWatchMetricsError, ConfigurationError

_SIGNS: Final[Mapping[Status, str]] = {"right": "✓", "wrong": "✗", "unknown": "?"}
_ASCII_SIGNS: Final[Mapping[Status, str]] = {"right": "+", "wrong": "!", "unknown": "?"}
_COLORS: Final[Mapping[Status, str | None]] = {"right": "green", "wrong": "red", "unknown": None}


@click.command(cls=Command)
@click.option("--send", "sends", is_flag=True, help="Publish one datum, to see whether that is allowed.")
@click.option("--namespace", help="With --send: the namespace of the datum; by default the app's.")
@json_option("the checks")
@click.pass_context
def command(context: click.Context, namespace: str | None, *, sends: bool, as_json: bool) -> None:
    """Find out what is missing before metrics arrive.

    And what to do about it. Looks at every setting and where it comes from; at credentials, Region, endpoint and clock;
    at the server; at what is measured, and what would be published twice. Each line is right (✓), wrong (✗) and
    says what to do, or could not be looked at (?). It prints no keys and no tokens.

    \b
        flask --app shop cloudwatch doctor --send
        python -m otel_cloudwatch_flask doctor

    Nothing is sent, unless you say --send: that publishes the metric otel_cloudwatch_flask.doctor once, which
    CloudWatch bills as a metric for one hour.

    Exits with 0 if nothing is wrong, with 1 if something is.
    """  # noqa: D301 - click takes \b for "do not wrap"
    checks = _checks(context, namespace, sends=sends)
    is_healthy = not any(check.status == "wrong" for check in checks)
    if as_json:
        echo_json({"healthy": is_healthy, "checks": [asdict(check) for check in checks]})
    else:
        _show(checks)
    context.exit(0 if is_healthy else EXIT_PROBLEM)


def _checks(context: click.Context, namespace: str | None, *, sends: bool) -> list[Check]:
    """All of them, without a secret in any."""
    try:
        user_app, app_checks = loaded_app(context), []
    except CloudWatchMetricsError as error:
        user_app, app_checks = UserApp(), [Check("App", "wrong", "The app does not start.", str(error))]
    found = [*app_checks, *_pages(user_app, namespace, sends=sends)]
    hidden = aws.secrets(user_app.environ, user_app.keys_given)
    return [
        replace(check, finding=aws.redacted(check.finding, hidden), remedy=aws.redacted(check.remedy, hidden))
        for check in found
    ]


def _pages(user_app: UserApp, namespace: str | None, *, sends: bool) -> Iterator[Check]:
    yield from settings_checks(user_app)
    yield from aws_checks(Destination.of(user_app, namespace or _namespace(user_app)), sends=sends)
    yield from server_checks(user_app.environ, Path.cwd(), flush=user_app.usable_value("FLUSH"))
    yield from measured_checks(user_app)
    yield from twice_checks(user_app.environ)


def _namespace(user_app: UserApp) -> str | None:
    try:
        return next(iter(namespaces_of(user_app)), None)
    except ConfigurationError:  # the settings' page says it
        return None


def _show(checks: Sequence[Check]) -> None:
    signs = _SIGNS if _can_show("".join(_SIGNS.values())) else _ASCII_SIGNS
    for section, group in groupby(checks, lambda check: check.section):
        click.secho(section, bold=True)
        for check in group:
            sign = click.style(signs[check.status], fg=_COLORS[check.status])
            click.echo(f"  {sign} {inert(f'{check.finding} {check.remedy}'.rstrip())}")
    wrong = [check.status for check in checks].count("wrong")
    of_settings = [check.section for check in checks].count(SECTION)
    verdict = f"{wrong} wrong" if wrong else "nothing is wrong"
    click.echo(f"\n{len(checks)} checks, {of_settings} of them settings: {verdict}.")


def _can_show(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
