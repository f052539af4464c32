"""Devcert: `moorage devcert`, which makes certificates for a developer's own machine.

Owns      the command; what it makes is said in `moorage.devcert`.
Promises  files that are there are left alone, unless `--force` says otherwise.
"""

from collections.abc import Sequence

import click

from .saying import FINE


def devcert_command() -> click.Command:
    """The command."""
    return click.Command(
        "devcert",
        callback=_devcert,
        params=[
            click.Option(["--folder"], metavar="FOLDER", default=".", help="Where to write the files.  [.]"),
            click.Option(["--force"], is_flag=True, help="Replace files that are there."),
            click.Argument(["names"], nargs=-1, metavar="[NAME]..."),
        ],
        help="Make a certificate for this machine, and the authority that signs it.\n\n"
        "NAME is a host name or an address; without one it is localhost, 127.0.0.1 and ::1.",
        short_help="Make certificates to develop with.",
    )


def _devcert(names: Sequence[str], folder: str, force: bool) -> int:
    from ..devcert import make

    for line in make(names, folder, force):
        click.echo(line)
    return FINE
