"""The command-line entry points, ``python -m otel_cloudwatch_flask`` and ``flask cloudwatch``."""

from typing import Any, Final

import click

from otel_cloudwatch_flask.commands.shared.command import LazyGroup
from otel_cloudwatch_flask.version import __version__

_SETTINGS: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"], "show_default": True}


@click.group(cls=LazyGroup, context_settings=_SETTINGS)
@click.version_option(__version__, prog_name="otel-cloudwatch-flask")
def main() -> None:
    """Diagnose, preview and price the CloudWatch metrics of Flask apps.

    \b
    Getting started:
      demo       run a demo shop on this machine
      doctor     diagnose this environment
    With your app, as flask --app YOUR_APP cloudwatch COMMAND:
      preview    see what your app would send
      cost       estimate the monthly cost
      dashboard, alarms, scaling, policy: generate AWS resources

    Run COMMAND --help for details.
    """  # noqa: D301 - click takes \b for "do not wrap"


@click.group("cloudwatch", cls=LazyGroup, context_settings=_SETTINGS)
def flask_commands() -> None:
    """Diagnose, preview and price your app's CloudWatch metrics.

    Select the app as for any Flask command, e.g. `flask --app shop cloudwatch preview`. The app is loaded in dry-run
    mode, so it sends nothing to CloudWatch unless it sets DRY_RUN to false itself.
    """
