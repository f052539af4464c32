"""Check: `moorage check`, which prints the settings in force and where each comes from.

Owns      the command and its columns.
Promises  whatever `serve` would refuse about the settings is refused here, and no socket is opened.
"""

from collections.abc import Sequence
from typing import Any

import click

from ..config import Configuration, ListenerSettings, ProgramSettings, ServerSettings
from ..config.resolve import DEFAULT, read
from ..config.sources import from_flags
from ..config.values import Settings, names, show
from .options import bind_option, config_option, own_program_options, setting_options, target_argument
from .saying import FINE


def check_command() -> click.Command:
    """The command."""
    return click.Command(
        "check",
        callback=_check,
        params=[
            target_argument(required=False),
            config_option(),
            *setting_options(),
            *own_program_options(),
            bind_option(),
        ],
        help="Print every setting in force and where it comes from; with TARGET, import it too.",
        short_help="Print the settings in force.",
    )


def _check(target: str | None, config: str | None, bind: Sequence[str], **flags: str | bool | None) -> int:
    from ..runners import check_runner

    configuration = read(from_flags(flags, bind), config)
    check_runner(configuration.server)
    if target is not None:
        from ..processes.target import load

        load(target)
    for line in report(configuration):
        click.echo(line)
    return FINE


def report(configuration: Configuration) -> list[str]:
    """Every setting in force, its value and its place, in columns."""
    rows = _rows(ServerSettings, configuration.server, configuration.places)
    for listener, places in zip(configuration.listeners, configuration.listener_places, strict=True):
        rows += [("", "", ""), *_rows(ListenerSettings, listener, places)]
    rows += [("", "", ""), *_rows(ProgramSettings, configuration.program, configuration.places)]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = [f"{name:{widths[0]}}  {value:{widths[1]}}  {place}".rstrip() for name, value, place in rows]
    return [f"settings file: {configuration.file or 'none'}", "", *lines]


def _rows(settings: Settings, values: object, places: Any) -> list[tuple[str, str, str]]:
    return [(name, show(settings, name, getattr(values, name)), places.get(name, DEFAULT)) for name in names(settings)]
