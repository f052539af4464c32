"""Control: `moorage control`, which asks a running server.

Owns      the command, and how an answer is printed.
Promises  a mistake in the settings file keeps nobody from stopping a server.
"""

import os

import click

from ..config import ServerSettings
from ..config.resolve import read
from ..config.sources import Layer, from_flags
from ..errors import OperatorError
from .options import config_option, option
from .saying import FINE, say


def control_command() -> click.Command:
    """The command."""
    from ..processes.asking import COMMANDS

    lines = "\n".join(f"{name:9} {meaning}" for name, meaning in COMMANDS.items())
    return click.Command(
        "control",
        callback=_control,
        params=[
            click.Argument(["command"], type=click.Choice(list(COMMANDS)), metavar="COMMAND"),
            *(option(ServerSettings, name) for name in ("name", "control")),
            click.Option(["--json", "as_json"], is_flag=True, help="Print the answer as JSON."),
            config_option(),
        ],
        help=f"Ask something of a running server, over its control socket.\n\n\b\n{lines}",
        short_help="Ask something of a running server.",
    )


def _control(command: str, config: str | None, as_json: bool, **flags: str | bool | None) -> int:
    import json

    from ..processes import asking

    settings = _read_if_it_can_be(from_flags(flags), config)
    answer = asking.ask(command, settings.name, settings.control)
    told = [json.dumps(answer, indent=2)] if as_json else asking.as_table(answer)
    for line in told or [f"{command}: the server was told; its log says how it goes"]:
        click.echo(line)
    return FINE


def _read_if_it_can_be(layer: Layer, config: str | None) -> ServerSettings:
    """The settings; a mistake in the file must not keep anybody from stopping the server."""
    try:
        return read(layer, config).server
    except OperatorError as error:
        if config is not None:
            raise
        settings = read(layer, os.devnull).server
        say(f"{error} (the settings file is passed over)")
        return settings
