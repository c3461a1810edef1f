"""The command line: ``python -m otel_cloudwatch_flask``, and ``flask cloudwatch`` with the user's app."""

from typing import Any, Final

import click

from otel_cloudwatch_flask.commands.shared.usage import LazyGroup
from otel_cloudwatch_flask.version import __version__

_COMMANDS: Final = ("alarms", "cost", "dashboard", "demo", "doctor", "policy", "preview")
_SETTINGS: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"]}


@click.group(cls=LazyGroup, names=_COMMANDS, context_settings=_SETTINGS)
@click.version_option(__version__, prog_name="otel-cloudwatch-flask")
def main() -> None:
    """Metrics of Flask apps in Amazon CloudWatch.

    \b
    To begin with:
      demo       see it work, on this machine
      doctor     find what is missing here
    With your app, as flask --app YOUR_APP cloudwatch COMMAND:
      preview    see what CloudWatch would get
      cost       reckon what that costs
      dashboard, alarms, policy: what your account needs

    Each command says more with --help.
    """  # noqa: D301 - click takes \b for "do not wrap"


@click.group("cloudwatch", cls=LazyGroup, names=_COMMANDS, context_settings=_SETTINGS)
def flask_commands() -> None:
    """Metrics in Amazon CloudWatch: doctor, preview, cost, and more.

    The app is the one that flask was told of, as in flask --app shop cloudwatch preview. It is loaded with a dry run:
    nothing that it measures meanwhile is sent.
    """
