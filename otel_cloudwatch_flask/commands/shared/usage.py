"""How every command is called: its exit codes, and answers to what it does not know that name what it does."""

import importlib
import json
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import click

from otel_cloudwatch_flask.errors import CloudWatchMetricsError

_F = TypeVar("_F", bound=Callable[..., Any])

EXIT_PROBLEM: Final = 1
"""The command did its work, and found something wrong."""
EXIT_UNUSABLE: Final = 2
"""The command cannot do anything; also click's own for what it cannot read."""
EXIT_INTERRUPTED: Final = 130
"""As a shell says it of a command that Ctrl-C ended."""


class Unusable(click.ClickException):
    """The command cannot do anything; click prints the message after "Error: "."""

    exit_code = EXIT_UNUSABLE


class Command(click.Command):
    """A command that answers an unknown option with those it has."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options and arguments."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            known = [option for parameter in self.get_params(ctx) for option in _long_names(parameter)]
            message = f"There is no option {error.option_name}. Known: {', '.join(sorted(known))}."
            raise click.NoSuchOption(error.option_name, message, ctx=ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; what is wrong with a setting is said without a traceback."""
        try:
            return super().invoke(ctx)
        except CloudWatchMetricsError as error:
            raise Unusable(str(error)) from error


class LazyGroup(click.Group):
    """A group whose commands are imported when they are needed, and that answers an unknown one with those it has.

    ``names`` are those of the commands, which are also those of their modules.
    """

    def __init__(self, *arguments: Any, names: Iterable[str], **keyword_arguments: Any) -> None:
        super().__init__(*arguments, **keyword_arguments)
        self._names = tuple(names)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names, in alphabetical order."""
        return sorted(self._names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import a command; ``None`` if there is none of that name."""
        if cmd_name not in self._names:
            return None
        command: click.Command = importlib.import_module(f"otel_cloudwatch_flask.commands.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments begin with."""
        if args and not args[0].startswith("-") and args[0] not in self._names and not ctx.resilient_parsing:
            ctx.fail(f"There is no command {args[0]!r}. Known: {', '.join(self.list_commands(ctx))}.")
        return super().resolve_command(ctx, args)


def echo_json(value: object) -> None:
    """Print a value for a script."""
    click.echo(json.dumps(value, indent=2))


def json_option(what: str) -> Callable[[_F], _F]:
    """The option ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help=f"Print {what} as JSON, for scripts.")


def _long_names(parameter: click.Parameter) -> list[str]:
    names = [*parameter.opts, *parameter.secondary_opts] if isinstance(parameter, click.Option) else []
    return [name for name in names if name.startswith("--")]
