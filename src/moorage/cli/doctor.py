"""Doctor: `moorage doctor`, which says before the start what will go wrong.

Owns      the command and its exit status: 0 when nothing is worse than a note, 1 for warnings and errors, 2 for
          settings that cannot be read.
Promises  nothing is opened that a server which runs would mind.
"""

from collections.abc import Sequence

import click

from ..config.resolve import read
from ..config.sources import from_flags
from .options import bind_option, config_option, setting_options


def doctor_command() -> click.Command:
    """The command."""
    return click.Command(
        "doctor",
        callback=_doctor,
        params=[
            config_option(),
            *setting_options(),
            bind_option(),
            click.Option(["--json", "as_json"], is_flag=True, help="Print the findings as JSON."),
        ],
        help="Compare the settings with this machine, and say what will go wrong and how to put it right.\n\n"
        "Run it as the user who starts the server. The status is 0 when nothing is worse than a note, else 1.",
        short_help="Say before the start what will go wrong.",
    )


def _doctor(config: str | None, bind: Sequence[str], as_json: bool, **flags: str | bool | None) -> int:
    from .. import doctor
    from ..runners import check_runner

    configuration = read(from_flags(flags, bind), config)
    check_runner(configuration.server)
    machine = doctor.read_machine(configuration.server.user, configuration.server.group)
    findings = doctor.examine(configuration, machine)
    for line in [doctor.as_json(findings)] if as_json else doctor.as_text(findings):
        click.echo(line)
    return doctor.status(findings)
