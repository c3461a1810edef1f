"""``doctor``: diagnose an app's configuration, AWS access, server and instrumentation."""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path
from typing import Final

import click

from otel_cloudwatch_flask.commands.doctor_checks.audit import Recorded, audit_checks
from otel_cloudwatch_flask.commands.doctor_checks.auto_instrumentation import auto_instrumentation_checks
from otel_cloudwatch_flask.commands.doctor_checks.aws import Target, aws_checks
from otel_cloudwatch_flask.commands.doctor_checks.check import Check, Status
from otel_cloudwatch_flask.commands.doctor_checks.instrumentation import duplicate_checks, instrumentation_checks
from otel_cloudwatch_flask.commands.doctor_checks.server import server_checks
from otel_cloudwatch_flask.commands.doctor_checks.settings import settings_checks
from otel_cloudwatch_flask.commands.shared import aws
from otel_cloudwatch_flask.commands.shared.command import EXIT_PROBLEM, Command, CommandError, echo_json, json_option
from otel_cloudwatch_flask.commands.shared.user_app import UserApp, load_user_app, namespaces_of, traceback_option
from otel_cloudwatch_flask.errors import ConfigurationError
from otel_cloudwatch_flask.terminal import counted, escaped

_SIGNS: Final[Mapping[Status, str]] = {"ok": "✓", "problem": "✗", "unknown": "?"}
_ASCII_SIGNS: Final[Mapping[Status, str]] = {"ok": "+", "problem": "!", "unknown": "?"}
_COLORS: Final[Mapping[Status, str | None]] = {"ok": "green", "problem": "red", "unknown": None}


@click.command(cls=Command)
@click.option("--send", "sends", is_flag=True, help="Publish one data point to check the permission.")
@click.option("--namespace", help="Namespace for --send (default: the app's).")
@click.option("--audit", "source", metavar="URL|FILE", help="Compare a live page's data.json with CloudWatch.")
@click.option("--verbose", is_flag=True, help="Also show settings with default values.")
@json_option("the checks")
@traceback_option
@click.pass_context
def command(
    context: click.Context, namespace: str | None, source: str | None, *, sends: bool, verbose: bool, as_json: bool
) -> None:
    """Find problems that keep metrics from arriving.

    Checks the settings, access to AWS, the server and the instrumentation, and looks for causes of duplicate metrics.
    Marks each finding as ok (✓), a problem (✗) or uncertain (?), and says how to fix problems. AWS keys and tokens are
    masked.

    \b
        flask --app shop cloudwatch doctor --send
        python -m otel_cloudwatch_flask doctor

    --send publishes one data point of the metric otel_cloudwatch_flask.doctor, which CloudWatch bills for one hour.
    Without --send, or if OUTPUT is emf, doctor publishes nothing.

    --audit compares what a process recorded, according to its live page, with what CloudWatch has stored. The audit
    requires the cloudwatch:GetMetricData and cloudwatch:ListMetrics permissions, and costs $0.01 per 1,000 metrics.

    \b
        flask --app shop cloudwatch doctor --audit http://127.0.0.1:5000/_cloudwatch/data.json

    Exit status: 0 if there are no problems, 1 if there are, 2 if the --audit data cannot be read.
    """  # noqa: D301 - click takes \b for "do not wrap"
    recorded = None if source is None else Recorded.read(source)
    checks = _checks(context, namespace, recorded, sends=sends)
    is_healthy = not any(check.status == "problem" for check in checks)
    if as_json:
        echo_json({"healthy": is_healthy, "checks": [asdict(check) for check in checks]})
    else:
        _show(checks, verbose=verbose)
    context.exit(0 if is_healthy else EXIT_PROBLEM)


def _checks(context: click.Context, namespace: str | None, recorded: Recorded | None, *, sends: bool) -> list[Check]:
    """Run the checks, and redact secrets from their findings and remedies."""
    environ = os.environ.copy()  # without the dry-run mode in which the app is loaded
    sections: list[tuple[str, Iterable[Check]]] = []
    try:
        user_app = load_user_app(context)
    except CommandError as error:
        # Most checks work without the app, and one of them may explain why it cannot be loaded.
        user_app = UserApp(environ=environ)
        sections.append(("App", [Check("problem", error.message)]))
    sections += _sections(user_app, namespace, recorded, sends=sends)
    found = [replace(check, section=section) for section, checks in sections for check in checks]
    # Messages from boto3 and AWS may repeat secrets, so every finding and remedy is redacted here.
    hidden = aws.secrets(user_app.environ, user_app.keys.values())
    return [
        replace(check, finding=aws.redacted(check.finding, hidden), remedy=aws.redacted(check.remedy, hidden))
        for check in found
    ]


def _sections(
    user_app: UserApp, namespace: str | None, recorded: Recorded | None, *, sends: bool
) -> Iterator[tuple[str, Iterable[Check]]]:
    """Yield the title of each section with its checks, which run when they are iterated over."""
    region, output = user_app.value_or_default("REGION"), user_app.value_or_default("OUTPUT")
    target = Target(user_app.client, user_app.keys, region, namespace or _namespace(user_app))
    if output == "emf":
        finding = "OUTPUT=emf writes metrics as log lines, so no credentials or Region are needed."
        yield "AWS", [Check("ok", finding)]
    else:
        yield "AWS", aws_checks(target, sends=sends)
    if recorded is not None:
        yield "Audit", audit_checks(target, recorded)
    flush = user_app.value_or_default("FLUSH")
    yield "Server", server_checks(user_app.environ, Path.cwd(), flush=flush, output=output)
    yield "Instrumentation", instrumentation_checks(user_app)
    yield "Auto-instrumentation", auto_instrumentation_checks(user_app.environ)
    yield "Duplicates", duplicate_checks(user_app.environ)
    yield "Settings", settings_checks(user_app)


def _namespace(user_app: UserApp) -> str | None:
    try:
        return next(iter(namespaces_of(user_app)), None)
    except ConfigurationError:  # reported by the settings checks
        return None


def _show(checks: Sequence[Check], *, verbose: bool) -> None:
    """Print the checks by section, starting with the sections that have problems.

    Settings left at their defaults are printed only if ``verbose`` is true.
    """
    signs = _SIGNS if (sys.stdout.encoding or "").lower().startswith("utf") else _ASCII_SIGNS
    with_problems = {check.section for check in checks if check.status == "problem"}
    shown = [check for check in checks if verbose or not check.is_default]
    # The sort is stable: it moves the sections with problems to the front and otherwise keeps the order.
    shown.sort(key=lambda check: check.section not in with_problems)
    for section, group in groupby(shown, lambda check: check.section):
        click.secho(section, bold=True)
        for check in sorted(group, key=lambda check: check.status != "problem"):
            sign = click.style(signs[check.status], fg=_COLORS[check.status])
            click.echo(f"  {sign} {escaped(f'{check.finding} {check.remedy}'.rstrip())}")
    click.echo(_summary(checks, hidden=len(checks) - len(shown)))


def _summary(checks: Sequence[Check], *, hidden: int) -> str:
    problems = [check.status for check in checks].count("problem")
    verdict = counted(problems, "problem") if problems else "no problems"
    more = f" Pass --verbose to see {counted(hidden, 'setting')} with default values." if hidden else ""
    return f"\n{len(checks)} checks: {verdict}.{more}"
