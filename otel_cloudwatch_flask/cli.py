"""The command line, ``python -m otel_cloudwatch_flask``: the commands, their options and exit codes."""

import importlib
import json
from typing import Final

import click

from otel_cloudwatch_flask.version import __version__

EXIT_DIFFERENT: Final = 1
EXIT_UNUSABLE: Final = 2
EXIT_INTERRUPTED: Final = 130
"""As a shell says it of a command that Ctrl-C ended."""

_DEMO_NEEDS: Final = ("moto.moto_server.werkzeug_app", "rich.progress", "waitress")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="otel-cloudwatch-flask")
def main() -> None:
    """Metrics of Flask apps in Amazon CloudWatch."""


@main.command()
@click.option("--seconds", type=click.FloatRange(0.5, 3600), default=5.0, show_default=True, help="How long to visit.")
@click.option("--rate", type=click.FloatRange(1, 2000), default=100.0, show_default=True, help="Visits a second.")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON, for scripts.")
@click.pass_context
def demo(context: click.Context, seconds: float, rate: float, *, as_json: bool) -> None:
    """See a shop's metrics arrive in a CloudWatch on this machine.

    Serves a small shop with real HTTP, visits it for some seconds, then asks CloudWatch what it got, and compares
    that with what the shop and its visitors counted themselves. No AWS account, no credentials, no network.

    Exits with 0 if both sides are equal, 1 if they differ or anything was refused or lost, 2 if the demo cannot
    start, 130 after Ctrl-C.
    """
    try:
        _require_demo_extra()
        context.exit(_run_demo(seconds, rate, as_json=as_json))
    except KeyboardInterrupt:
        click.echo("Stopped.", err=True)
        context.exit(EXIT_INTERRUPTED)


def _run_demo(seconds: float, rate: float, *, as_json: bool) -> int:
    from otel_cloudwatch_flask.demo import report  # noqa: PLC0415 - an optional extra
    from otel_cloudwatch_flask.demo.run import run_demo  # noqa: PLC0415 - slow to import
    from otel_cloudwatch_flask.demo.shop_process import ShopError  # noqa: PLC0415

    try:
        with report.progress(seconds, is_shown=not as_json) as on_progress:
            outcome = run_demo(seconds=seconds, rate=rate, on_progress=on_progress)
    except ShopError as error:
        raise _Unusable(str(error)) from error
    if as_json:
        click.echo(json.dumps(report.as_json(outcome), indent=2))
    else:
        report.show(outcome)
    return EXIT_DIFFERENT if outcome.problems else 0


def _require_demo_extra() -> None:
    try:
        for name in _DEMO_NEEDS:
            importlib.import_module(name)
    except ImportError as error:
        missing = (error.name or name).partition(".")[0]
        raise _Unusable(f'The demo needs {missing}: pip install "otel-cloudwatch-flask[demo]"') from error


class _Unusable(click.ClickException):
    """The command cannot do anything; click prints the message after "Error: "."""

    exit_code = EXIT_UNUSABLE
