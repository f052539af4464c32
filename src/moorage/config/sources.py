"""Sources: the places settings are read from, each as one `Layer`.

Owns      where to look (file, environment, flags, arguments) and how a place is named in a sentence.
Promises  an unknown key is a `SettingError` naming the key, its place and the nearest name.
Refuses   to convert values or to decide which layer wins: `resolve` does.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from ..errors import SettingError
from .settings import ListenerSettings, ProgramSettings, ServerSettings
from .values import LISTS, Given, kind, names

Options = Mapping[str, Given]
Binds = TypeVar("Binds")

FILE = "moorage.toml"
PROJECT_FILE = "pyproject.toml"
PREFIX = "MOORAGE_"
#: variables of ours that are no settings
RESERVED = frozenset({"MOORAGE_CONFIG", "MOORAGE_PURE", "MOORAGE_UPGRADE"})
#: what Kubernetes puts into every container when a service is called "moorage"
_KUBERNETES = re.compile(r"MOORAGE_(SERVICE_(HOST|PORT).*|PORT(_.*)?)")

SERVER_NAMES = frozenset(names(ServerSettings))
LISTENER_NAMES = frozenset(names(ListenerSettings)) - {"bind"}
PROGRAM_NAMES = frozenset(names(ProgramSettings))
#: what can be given several times, and then is all of that
LIST_NAMES = frozenset(
    name for settings in (ServerSettings, ListenerSettings) for name in names(settings)
    if kind(settings, name).name in LISTS
)  # fmt: skip
#: what may stand in a file or in the environment, which one operator writes for `serve` and `run` alike
ALL_NAMES = SERVER_NAMES | LISTENER_NAMES | PROGRAM_NAMES


@dataclass(frozen=True)
class Layer:
    """What one place says: settings, and listeners when it names any."""

    name: str
    options: Options = field(default_factory=dict)
    listeners: tuple[Options, ...] | None = None
    path: Path | None = None


def from_file(path: Path | None, directory: Path) -> Layer:
    """The file the operator names, else `moorage.toml` or `[tool.moorage]` in the directory."""
    if path is not None:
        table = _load(path)
        return _from_table(path, _section(table) if path.name == PROJECT_FILE else table)
    if (directory / FILE).is_file():
        return _from_table(directory / FILE, _load(directory / FILE))
    if (directory / PROJECT_FILE).is_file() and (section := _section(_load(directory / PROJECT_FILE))):
        return _from_table(directory / PROJECT_FILE, section)
    return Layer("file")


def from_environment(environ: Mapping[str, str]) -> Layer:
    """Every `MOORAGE_*` variable; `MOORAGE_BIND` holds addresses with blanks between them."""
    options, listeners = {}, None
    for variable, value in sorted(environ.items()):
        if not variable.startswith(PREFIX) or variable in RESERVED or _KUBERNETES.fullmatch(variable):
            continue
        name, place = variable.removeprefix(PREFIX).lower(), f"the variable {variable}"
        if name == "bind":
            listeners = _some(tuple(parse_bind(text, place) for text in value.split()), place)
        elif name in ALL_NAMES and variable.isupper():
            options[name] = Given(value, place, shell=True)
        else:
            raise _unknown(variable, "", _variables())
    return Layer("environment", options, listeners)


def from_flags(options: Mapping[str, object], binds: Iterable[str] = ()) -> Layer:
    """The flags of a command line, by the names of their settings; None and () mean not given."""
    given = {
        name: Given(" ".join(value) if isinstance(value, tuple) else value, f"the flag {flag(name)}", shell=True)
        for name, value in options.items() if value not in (None, ())
    }  # fmt: skip
    listeners = tuple(parse_bind(text, "the flag --bind") for text in binds)
    return Layer("flags", given, listeners or None)


def check_names(options: Iterable[str], known: frozenset[str], place: str) -> None:
    """Every name must be a known one."""
    for name in options:
        if name not in known:
            raise _unknown(name, place, known)


def parse_bind(text: str, place: str) -> Options:
    """One `ADDRESS,name=value,...` of a command line or a variable; a list may be given in several parts."""
    address, *rest = text.split(",")
    options = {"bind": Given(address, place, shell=True)}
    for part in rest:
        name, equals, value = part.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise SettingError(f"{part!r} after the address {address!r} ({place}) will not do: write name=value")
        check_names([name], LISTENER_NAMES, place)
        if name in options and name in LIST_NAMES:
            value = f"{options[name].value} {value}"
        options[name] = Given(value, place, shell=True)
    return options


def flag(name: str) -> str:
    """The flag of a setting."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def _load(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"the settings file {path} cannot be read: {os.strerror(error.errno or 0)}") from None
    except UnicodeDecodeError:
        raise SettingError(f"the settings file {path} is not UTF-8 text") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingError(f"the settings file {path} is not TOML: {error}") from None


def _section(table: Mapping[str, Any]) -> dict[str, Any]:
    tool = table.get("tool", {})
    section = tool.get("moorage", {}) if isinstance(tool, dict) else {}
    return section if isinstance(section, dict) else {}


def _from_table(path: Path, table: Mapping[str, Any]) -> Layer:
    place = f"in {path}"
    check_names(table, ALL_NAMES | {"bind", "listener"}, place)
    options = {name: Given(value, place) for name, value in table.items() if name not in ("bind", "listener")}
    binds = _some(table.get("bind", None), place)
    listeners: list[Options] = [
        {"bind": Given(bind, place)}
        for bind in (binds if isinstance(binds, list) else [] if binds is None else [binds])
    ]
    listeners += _listener_tables(table.get("listener", []), path)
    return Layer("file", options, tuple(listeners) or None, path)


def _listener_tables(tables: object, path: Path) -> Iterable[Options]:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise SettingError(f"listener (in {path}) will not do: write a [[listener]] table for each")
    for number, table in enumerate(tables, 1):
        place = f"in [[listener]] {number} of {path}"
        check_names(table, LISTENER_NAMES | {"bind"}, place)
        if "bind" not in table:
            raise SettingError(f"bind is missing ({place}): say where this listener listens")
        yield {name: Given(value, place) for name, value in table.items()}


def _some(binds: Binds, place: str) -> Binds:
    """The addresses, of which there must be one when there is a place for them."""
    if binds in ([], ()):
        raise SettingError(f"bind ({place}) is empty: name an address, or leave it out")
    return binds


def _variables() -> frozenset[str]:
    return frozenset(map(variable, ALL_NAMES | {"bind"}))


def _unknown(name: str, place: str, known: frozenset[str]) -> SettingError:
    near = get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    where = f" ({place})" if place else ""
    hint = f"did you mean {near[0]}?" if near else "`moorage check` prints every setting there is"
    shown = name if name.isidentifier() else repr(name)
    return SettingError(f"there is no setting {shown}{where}: {hint}")
