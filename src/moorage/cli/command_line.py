"""Command line: from the arguments to the exit status.

Owns      the list of commands, `serve` and `version` among them.
Promises  an operator's mistake is one sentence and status 2, never a traceback.
"""

import sys
from collections.abc import Callable, Sequence

import click

from ..config.sources import from_flags
from ..config.version import VERSION
from ..errors import OperatorError
from .check import check_command
from .control import control_command
from .devcert import devcert_command
from .doctor import doctor_command
from .options import TARGET_HELP, bind_option, config_option, setting_options, target_argument
from .run import run_command
from .saying import FINE, say, sentence_of

Action = Callable[[], int]

#: what a shell makes of a program that ends by SIGINT
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit status."""
    try:
        answer = commands().main(_arguments(arguments), prog_name="moorage", standalone_mode=False)
        if not callable(answer):
            return int(answer or FINE)
        action: Action = answer
    except click.exceptions.ClickException as error:
        return say(sentence_of(error))
    except click.exceptions.Abort:  # Ctrl-C while a target is imported
        return INTERRUPTED
    except OperatorError as error:
        return say(str(error))
    return action()  # outside the `try`: what a program raises is its own


def commands() -> click.Group:
    """The commands; the reference page is made from them."""
    group = click.Group(
        "moorage",
        help="Runs socketserver handlers in production.",
        commands=[
            serve_command(),
            control_command(),
            run_command(),
            check_command(),
            doctor_command(),
            devcert_command(),
            version_command(),
        ],
    )
    return click.version_option(VERSION, message="%(prog)s %(version)s")(group)


def serve_command() -> click.Command:
    """The command."""
    return click.Command(
        "serve",
        callback=_serve,
        params=[target_argument(required=True), config_option(), *setting_options(), bind_option()],
        help=f"Serve a handler.\n\n{TARGET_HELP}",
        short_help="Serve a handler.",
    )


def _serve(target: str, config: str | None, bind: Sequence[str], **flags: str | bool | None) -> Action:
    layer = from_flags(flags, bind)
    from ..processes.serve import serve_target

    def action() -> int:
        try:
            return serve_target(target, layer, config)
        except OperatorError as error:
            return say(str(error))

    return action


def version_command() -> click.Command:
    """The command."""
    return click.Command("version", callback=_version, help="Print the version, and which implementation is in use.")


def _version() -> int:
    import platform

    from .. import twins

    which = "native" if twins.NATIVE else f"pure Python: {twins.WHY}"
    click.echo(
        f"moorage {VERSION} ({platform.python_implementation()} {platform.python_version()}, "
        f"{platform.system()} {platform.release()}, {which})"
    )
    return FINE


def _arguments(arguments: Sequence[str] | None) -> list[str]:
    return list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
