"""``demo``: see a shop's metrics arrive in a CloudWatch on this machine."""

import contextlib
import importlib
import threading
from functools import partial
from typing import Final

import click

from otel_cloudwatch_flask.commands.shared.usage import (
    EXIT_INTERRUPTED,
    EXIT_PROBLEM,
    Command,
    Unusable,
    echo_json,
    json_option,
)

_COMPARED: Final = (5.0, 100.0)
"""Seconds, and visits a second."""
_SERVED: Final = (3600.0, 20.0)
"""What CloudWatch is told is kept in memory, so visitors do not come for ever."""
_NEEDS: Final = ("moto.moto_server.werkzeug_app", "rich.progress", "waitress")


@click.command(cls=Command)
@click.option("--seconds", type=click.FloatRange(0.5, 3600), help="How long to visit: 5, or with --serve, an hour.")
@click.option("--rate", type=click.FloatRange(1, 2000), help="Visits a second: 100, or with --serve, 20.")
@click.option("--serve", is_flag=True, help="Leave everything running until Ctrl-C, with the live page to look at.")
@json_option("the comparison")
@click.pass_context
def command(context: click.Context, seconds: float | None, rate: float | None, *, serve: bool, as_json: bool) -> None:
    """See a shop's metrics arrive, on this machine.

    Serves a small shop with real HTTP, visits it for some seconds, then asks CloudWatch what it got, and compares
    that with what the shop and its visitors counted themselves. No AWS account, no credentials, no network.

    With --serve nothing is compared: shop, visitors and CloudWatch stay, and so does the shop's live page, which shows
    what it publishes. Its address is printed.

    Exits with 0 if both sides are equal, 1 if they differ or anything was refused or lost, 2 if the demo cannot
    start, 130 after Ctrl-C; with --serve Ctrl-C is the way to end it, and the exit code is 0.
    """
    if serve and as_json:
        raise click.UsageError("--serve compares nothing, so that there is no --json of it.", context)
    default_seconds, default_rate = _SERVED if serve else _COMPARED
    try:
        _require_demo_extra()
        run = _serve if serve else partial(_compare, as_json=as_json)
        context.exit(run(seconds or default_seconds, rate or default_rate))
    except KeyboardInterrupt:
        click.echo("Stopped.", err=True)
        context.exit(EXIT_INTERRUPTED)


def _compare(seconds: float, rate: float, *, as_json: bool) -> int:
    from otel_cloudwatch_flask.demo import report  # noqa: PLC0415 - an optional extra
    from otel_cloudwatch_flask.demo.run import run_demo  # noqa: PLC0415 - slow to import

    with report.progress(seconds, is_shown=not as_json) as on_progress:
        outcome = run_demo(seconds=seconds, rate=rate, on_progress=on_progress)
    if as_json:
        echo_json(report.as_json(outcome))
    else:
        report.show(outcome)
    return EXIT_PROBLEM if outcome.problems else 0


def _serve(seconds: float, rate: float) -> int:
    """Serve until Ctrl-C."""
    from otel_cloudwatch_flask.demo.open_shop import open_shop  # noqa: PLC0415 - an optional extra

    with open_shop(seconds=seconds, rate=rate) as shop:
        click.echo(
            f"The live page  {shop.live_page_url}\n"
            f"The shop       {shop.shop_url}\n"
            f"CloudWatch     {shop.cloudwatch.endpoint_url} (AWS_ENDPOINT_URL_CLOUDWATCH, any credentials)\n"
            f"{rate:g} visits a second come for {seconds / 60:g} minutes. Ctrl-C ends it all."
        )
        with contextlib.suppress(KeyboardInterrupt):  # Python sees to it that the signal ends the wait
            threading.Event().wait()
        click.echo("Stopped.", err=True)
    return 0


def _require_demo_extra() -> None:
    try:
        for name in _NEEDS:
            importlib.import_module(name)
    except ImportError as error:
        missing = (error.name or name).partition(".")[0]
        raise Unusable(f'The demo needs {missing}: pip install "otel-cloudwatch-flask[demo]"') from error
