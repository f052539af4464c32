"""Run: `moorage run`, which puts our `socketserver` in the place of the standard library's.

Owns      the command, and where the arguments of the program begin.
Promises  ours is in its place before the program or anything it imports is loaded.
"""

from collections.abc import Callable, Sequence

import click

from ..config import Configuration, ProgramSettings
from ..config.resolve import read
from ..config.settings import SHARED_SETTINGS
from ..config.sources import from_flags
from ..config.values import names
from .options import config_option, program_options
from .saying import FINE

Action = Callable[[], int]


class RunCommand(click.Command):
    """`run`: what follows PROGRAM or `-m MODULE` belongs to the program."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._split(ctx, args))

    def _split(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The same arguments with `--` where those of the program begin."""
        with_value = {
            name for param in self.get_params(ctx) if isinstance(param, click.Option) and not param.is_flag
            for name in param.opts
        }  # fmt: skip
        at = 0
        while at < len(args) and args[at].startswith("-") and args[at] not in ("-", "--"):
            is_module = args[at].startswith("-m")
            at += 2 if args[at] in with_value else 1
            if is_module:
                break
        is_marked = at > len(args) or args[at : at + 1] == ["--"]
        return args if is_marked else [*args[:at], "--", *args[at:]]


def run_command() -> click.Command:
    """The command."""
    return RunCommand(
        "run",
        callback=_run,
        params=[
            click.Option(["-m", "module"], metavar="MODULE", help="Run a module, as `python -m` does."),
            config_option(),
            *program_options(),
            click.Argument(["program"], nargs=-1, type=click.UNPROCESSED, metavar="PROGRAM [ARGS]..."),
        ],
        help="Run an unmodified program with the hardened module in the place of socketserver.\n\n"
        "What follows PROGRAM or -m MODULE belongs to the program.",
        short_help="Run an unmodified socketserver program.",
    )


def _run(module: str | None, program: Sequence[str], config: str | None, **flags: str | bool | None) -> Action:
    if module is None and not program:
        raise click.UsageError("what to run is missing: give PROGRAM or -m MODULE")
    configuration = read(from_flags(flags), config)
    from .. import socketserver

    socketserver.install()
    socketserver.configure(_chosen(configuration))
    from ..processes.program import find_file, find_module

    found = find_file(program[0], program[1:]) if module is None else find_module(module, program)

    def action() -> int:
        found()
        return FINE

    return action


def _chosen(configuration: Configuration) -> dict[str, object]:
    """What somebody has chosen for `run`, without the defaults: the classes have their own."""
    values = vars(configuration.server) | vars(configuration.common) | vars(configuration.program)
    chosen = configuration.places.keys() & {*SHARED_SETTINGS, *names(ProgramSettings)}
    return {name: values[name] for name in chosen}
