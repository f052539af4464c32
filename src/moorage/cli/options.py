"""Options: the flags of the command line, made from the settings.

Owns      which flag a setting has, what it takes, and the help of it.
Promises  a flag for every setting of a command, named as the setting; what is a list can be given several times.
"""

from dataclasses import MISSING

import click

from ..config import ListenerSettings, ProgramSettings, ServerSettings
from ..config.settings import SHARED_SETTINGS
from ..config.sources import LIST_NAMES, flag
from ..config.values import Settings, field_of, kind, names, show

#: how a value is named in the help of a flag
METAVARS = {
    "count": "NUMBER", "networks": "NETWORKS", "octal": "MODE", "paths": "PATHS", "payload": "TEXT", "rate": "RATE",
    "size": "SIZE", "text": "TEXT", "time": "TIME", "triple": "IDLE/INTERVAL/PROBES", "words": "WORDS",
    "workers": "NUMBER|auto",
}  # fmt: skip

TARGET_HELP = "TARGET is module:attr, path/to/file.py:attr, or a built-in service such as echo."


def setting_options() -> list[click.Option]:
    """A flag for each setting but `bind`, which can be given several times."""
    return [
        option(settings, name) for settings in (ServerSettings, ListenerSettings) for name in names(settings)
        if name != "bind"
    ]  # fmt: skip


def option(settings: Settings, name: str) -> click.Option:
    """The flag of one setting."""
    what, field = kind(settings, name), field_of(settings, name)
    default = show(settings, name, field.default) if field.default is not MISSING else ""
    text = f"{field.metadata['help'].replace('`', '')}  [{default}]"
    if what.name == "flag":
        return click.Option([f"{flag(name)}/--no-{flag(name)[2:]}"], default=None, help=text)
    metavar = METAVARS.get(what.name) or what.accepted.replace(", ", "|").replace(" or ", "|")
    if name in LIST_NAMES:
        return click.Option([flag(name)], metavar=metavar, multiple=True, help=f"{text}; can be given several times")
    return click.Option([flag(name)], metavar=metavar, default=None, help=text)


def program_options() -> list[click.Option]:
    """A flag for each setting that the classes of `moorage.socketserver` have."""
    homes = ((settings, name) for settings in (ServerSettings, ListenerSettings) for name in names(settings))
    shared = [option(settings, name) for settings, name in homes if name in SHARED_SETTINGS]
    return [*shared, *own_program_options()]


def own_program_options() -> list[click.Option]:
    """A flag for each setting that `run` alone has."""
    return [option(ProgramSettings, name) for name in names(ProgramSettings)]


def bind_option() -> click.Option:
    """`--bind`, once for each listener."""
    field = field_of(ListenerSettings, "bind")
    text = f"{field.metadata['help'].replace('`', '')}; settings of this listener follow after commas: "
    text += f"ADDRESS,nodelay=off; can be given several times  [{field.default}]"
    return click.Option(["--bind"], metavar="ADDRESS", multiple=True, help=text)


def config_option() -> click.Option:
    """`--config`."""
    text = "the settings file  [moorage.toml or pyproject.toml here]"
    return click.Option(["--config"], metavar="FILE", default=None, help=text)


def target_argument(required: bool) -> click.Argument:
    """What to serve."""
    return click.Argument(["target"], required=required)
