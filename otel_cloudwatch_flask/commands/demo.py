"""``demo``: run the demo shop against a local CloudWatch emulator, using ``otel_cloudwatch_flask.demo``."""

import contextlib
import importlib
import time
from typing import Final, get_args

import click

from otel_cloudwatch_flask.commands.shared.command import (
    EXIT_PROBLEM,
    Command,
    CommandError,
    FloatRange,
    echo_json,
    json_option,
)
from otel_cloudwatch_flask.config import Output

_COMPARE_DEFAULTS: Final = (5.0, 100.0)
"""The default duration in seconds, and the default number of requests per second."""
_SERVE_DEFAULTS: Final = (3600.0, 20.0)
"""The defaults with ``--serve``. The duration is limited because the emulator keeps every datum in memory."""
_REQUIRED_MODULES: Final = ("rich.progress", "waitress")


@click.command(cls=Command)
@click.option("--seconds", type=FloatRange(0.5, 3600), help="Seconds of traffic (default: 5, or 3600 with --serve).")
@click.option("--rate", type=FloatRange(1, 2000), help="Requests per second (default: 100, or 20 with --serve).")
@click.option("--serve", is_flag=True, help="Keep the shop and its live page running until Ctrl-C.")
@click.option("--output", type=click.Choice(get_args(Output)), default="api", help="Make API calls or write EMF lines.")
@json_option("the comparison or, with --serve, the URLs")
@click.pass_context
def command(
    context: click.Context, seconds: float | None, rate: float | None, *, serve: bool, output: Output, as_json: bool
) -> None:
    """Run a demo shop and check that its metrics arrive.

    Starts a strict CloudWatch emulator and a small shop on this machine, sends HTTP requests to the shop, and compares
    the emulator's numbers with those recorded by the shop and its simulated visitors. The demo needs neither an AWS
    account nor network access.

    With --serve, prints the URLs of the shop, its live page and the emulator, and keeps all three running until you
    press Ctrl-C. Nothing is compared.

    Exit status: 0 if there are no problems, 1 if there are, 2 if the demo cannot run, 130 if you press Ctrl-C
    (0 with --serve).
    """
    default_seconds, default_rate = _SERVE_DEFAULTS if serve else _COMPARE_DEFAULTS
    _require_demo_extra()
    run = _serve if serve else _compare
    context.exit(run(seconds or default_seconds, rate or default_rate, output, as_json=as_json))


def _compare(seconds: float, rate: float, output: Output, *, as_json: bool) -> int:
    from otel_cloudwatch_flask.demo import report  # noqa: PLC0415 - an optional extra
    from otel_cloudwatch_flask.demo.run import run_demo  # noqa: PLC0415 - slow to import

    with report.progress(seconds, is_shown=not as_json) as on_progress:
        outcome = run_demo(seconds=seconds, rate=rate, output=output, on_progress=on_progress)
    if as_json:
        echo_json(report.as_json(outcome))
    else:
        report.show(outcome)
    return EXIT_PROBLEM if outcome.problems else 0


def _serve(seconds: float, rate: float, output: Output, *, as_json: bool) -> int:
    """Keep the shop running until Ctrl-C, with traffic for ``seconds`` seconds."""
    from otel_cloudwatch_flask.demo.running_shop import running_shop  # noqa: PLC0415 - an optional extra

    with running_shop(seconds=seconds, rate=rate, output=output, live_page=True) as shop:
        urls = shop.live_page_url, shop.process.url, shop.cloudwatch.endpoint_url
        if as_json:
            echo_json(dict(zip(("live_page", "shop", "cloudwatch"), urls, strict=True)))
        else:
            click.echo(
                "Live page   {}\nShop        {}\n"
                "CloudWatch  {} (for AWS_ENDPOINT_URL_CLOUDWATCH; any credentials work)\n"
                "Sending {:g} requests/s for {:g} minutes. Press Ctrl-C to stop.".format(*urls, rate, seconds / 60)
            )
        # Ctrl-C is the normal way to end this command. Python may miss a signal that arrives just before a wait
        # begins, so each wait is short.
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(1)
        click.echo("Stopped.", err=True)
    return 0


def _require_demo_extra() -> None:
    # Checked up front, so that a missing package is reported before the shop and the emulator start.
    try:
        for name in _REQUIRED_MODULES:
            importlib.import_module(name)
    except ImportError as error:
        missing = (error.name or name).partition(".")[0]
        raise CommandError(f'The demo requires {missing}. Run pip install "otel-cloudwatch-flask[demo]".') from error
