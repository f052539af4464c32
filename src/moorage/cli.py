"""The command line: `moorage serve`, `control`, `run`, `check`, `version`.

Owns      the commands, whose flags are made from the settings, and the sentence on standard error.
Promises  an operator's mistake is one sentence and status 2, never a traceback; `run` puts our
          `socketserver` in its place before the program or anything it imports is loaded.
Refuses   to hold logic of its own: whatever a program can want is in a room below.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING
from difflib import get_close_matches
from typing import Any

import click

from .config import Configuration, ListenerSettings, ProgramSettings, ServerSettings
from .config.resolve import DEFAULT, read
from .config.settings import SHARED_SETTINGS
from .config.sources import Layer, flag, from_flags
from .config.values import Settings, field_of, kind, names, show
from .config.version import VERSION
from .errors import OperatorError

Action = Callable[[], int]

FINE, WRONG = 0, 2
#: what a shell makes of a program that ends by SIGINT
INTERRUPTED = 130

#: how a value is named in the help of a flag
METAVARS = {
    "count": "NUMBER", "networks": "NETWORKS", "paths": "PATHS", "rate": "RATE", "words": "WORDS", "octal": "MODE", "payload": "TEXT", "size": "SIZE", "text": "TEXT", "time": "TIME",
    "triple": "IDLE/INTERVAL/PROBES", "workers": "NUMBER|auto",
}  # fmt: skip

TARGET_HELP = "TARGET is module:attr, path/to/file.py:attr, or a built-in service such as echo."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit status."""
    try:
        answer = commands().main(_arguments(arguments), prog_name="moorage", standalone_mode=False)
        if not callable(answer):
            return int(answer or FINE)
        action: Action = answer
    except click.exceptions.ClickException as error:
        return _say(_sentence(error))
    except click.exceptions.Abort:  # Ctrl-C while a target is imported
        return INTERRUPTED
    except OperatorError as error:
        return _say(str(error))
    return action()  # outside the `try`: what a program raises is its own


def commands() -> click.Group:
    """The commands; the reference page is made from them."""
    group = click.Group(
        "moorage",
        help="Runs socketserver handlers in production.",
        commands=[_serve_command(), _control_command(), _run_command(), _check_command(), _version_command()],
    )
    return click.version_option(VERSION, message="%(prog)s %(version)s")(group)


# --- the commands ------------------------------------------------------------------------------------


def _serve_command() -> click.Command:
    return click.Command(
        "serve",
        callback=_serve,
        params=[_target(required=True), _config_option(), *_setting_options(), _bind_option()],
        help=f"Serve a handler.\n\n{TARGET_HELP}",
        short_help="Serve a handler.",
    )


def _serve(target: str, config: str | None, bind: Sequence[str], **flags: str | bool | None) -> Action:
    layer = from_flags(flags, bind)
    from .processes.serve import serve_target

    def action() -> int:
        try:
            return serve_target(target, layer, config)
        except OperatorError as error:
            return _say(str(error))

    return action


def _control_command() -> click.Command:
    from .processes.asking import COMMANDS

    lines = "\n".join(f"{name:9} {meaning}" for name, meaning in COMMANDS.items())
    return click.Command(
        "control",
        callback=_control,
        params=[
            click.Argument(["command"], type=click.Choice(list(COMMANDS)), metavar="COMMAND"),
            *(_option(ServerSettings, name) for name in ("name", "control")),
            click.Option(["--json", "as_json"], is_flag=True, help="Print the answer as JSON."),
            _config_option(),
        ],
        help=f"Ask something of a running server, over its control socket.\n\n\b\n{lines}",
        short_help="Ask something of a running server.",
    )


def _control(command: str, config: str | None, as_json: bool, **flags: str | bool | None) -> int:
    import json

    from .processes import asking

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
        _say(f"{error} (the settings file is passed over)")
        return settings


class _RunCommand(click.Command):
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


def _run_command() -> click.Command:
    return _RunCommand(
        "run",
        callback=_run,
        params=[
            click.Option(["-m", "module"], metavar="MODULE", help="Run a module, as `python -m` does."),
            _config_option(),
            *_program_options(),
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
    from . import socketserver

    socketserver.install()
    socketserver.configure(_chosen(configuration))
    from .processes.program import find_file, find_module

    found = find_file(program[0], program[1:]) if module is None else find_module(module, program)

    def action() -> int:
        found()
        return FINE

    return action


def _check_command() -> click.Command:
    return click.Command(
        "check",
        callback=_check,
        params=[
            _target(required=False),
            _config_option(),
            *_setting_options(),
            *_own_program_options(),
            _bind_option(),
        ],
        help="Print every setting in force and where it comes from; with TARGET, import it too.",
        short_help="Print the settings in force.",
    )


def _check(target: str | None, config: str | None, bind: Sequence[str], **flags: str | bool | None) -> int:
    from .runners import check_runner

    configuration = read(from_flags(flags, bind), config)
    check_runner(configuration.server)
    if target is not None:
        from .processes.target import load

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


def _version_command() -> click.Command:
    return click.Command("version", callback=_version, help="Print the version, and which implementation is in use.")


def _version() -> int:
    import platform

    from . import twins

    which = "native" if twins.NATIVE else f"pure Python: {twins.WHY}"
    click.echo(
        f"moorage {VERSION} ({platform.python_implementation()} {platform.python_version()}, "
        f"{platform.system()} {platform.release()}, {which})"
    )
    return FINE


# --- flags -------------------------------------------------------------------------------------------


def _setting_options() -> list[click.Option]:
    """A flag for each setting but `bind`, which can be given several times."""
    return [
        _option(settings, name) for settings in (ServerSettings, ListenerSettings) for name in names(settings)
        if name != "bind"
    ]  # fmt: skip


def _option(settings: Settings, name: str) -> click.Option:
    what, field = kind(settings, name), field_of(settings, name)
    default = show(settings, name, field.default) if field.default is not MISSING else ""
    text = f"{field.metadata['help'].replace('`', '')}  [{default}]"
    if what.name == "flag":
        return click.Option([f"{flag(name)}/--no-{flag(name)[2:]}"], default=None, help=text)
    metavar = METAVARS.get(what.name) or what.accepted.replace(", ", "|").replace(" or ", "|")
    return click.Option([flag(name)], metavar=metavar, default=None, help=text)


def _program_options() -> list[click.Option]:
    """A flag for each setting that the classes of `moorage.socketserver` have."""
    homes = ((settings, name) for settings in (ServerSettings, ListenerSettings) for name in names(settings))
    shared = [_option(settings, name) for settings, name in homes if name in SHARED_SETTINGS]
    return [*shared, *_own_program_options()]


def _own_program_options() -> list[click.Option]:
    return [_option(ProgramSettings, name) for name in names(ProgramSettings)]


def _bind_option() -> click.Option:
    field = field_of(ListenerSettings, "bind")
    text = f"{field.metadata['help'].replace('`', '')}; settings of this listener follow after commas: "
    text += f"ADDRESS,nodelay=off; can be given several times  [{field.default}]"
    return click.Option(["--bind"], metavar="ADDRESS", multiple=True, help=text)


def _config_option() -> click.Option:
    text = "the settings file  [moorage.toml or pyproject.toml here]"
    return click.Option(["--config"], metavar="FILE", default=None, help=text)


def _target(required: bool) -> click.Argument:
    return click.Argument(["target"], required=required)


def _chosen(configuration: Configuration) -> dict[str, object]:
    """What somebody has chosen for `run`, without the defaults: the classes have their own."""
    values = vars(configuration.server) | vars(configuration.common) | vars(configuration.program)
    chosen = configuration.places.keys() & {*SHARED_SETTINGS, *names(ProgramSettings)}
    return {name: values[name] for name in chosen}


# --- mistakes ----------------------------------------------------------------------------------------


def _arguments(arguments: Sequence[str] | None) -> list[str]:
    return list(sys.argv[1:] if arguments is None else arguments) or ["--help"]


def _say(sentence: str) -> int:
    try:
        click.echo(f"moorage: {sentence}", err=True)
    except OSError:  # nobody reads standard error: the status says it
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    return WRONG


def _sentence(error: click.ClickException) -> str:
    """One sentence, with the nearest name where there is one."""
    if isinstance(error, click.NoSuchOption):
        known = [name for param in error.ctx.command.params for name in param.opts] if error.ctx else []
        return f"there is no option {error.option_name}{_nearest(error.option_name, known)}"
    message = " ".join(error.format_message().split())
    if isinstance(error, click.MissingParameter) and error.param is not None and error.param.name == "target":
        return f"the target is missing: {TARGET_HELP}"
    return message[:1].lower() + message[1:]


def _nearest(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f": did you mean {near[0]}?" if near else "; `--help` lists all there are"
