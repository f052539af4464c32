"""Resolve: from layers to the settings of one server, and where each of them came from.

Owns      the precedence (defaults < file < environment < flags or arguments), and `Listener`.
Promises  every value is checked before any socket is opened; what a listener says of itself wins over
          what is said for all listeners.
Refuses   contradictions; see there.
Why       `Server(...)` reads arguments only, because a program that embeds it must get what it wrote;
          `serve()` and the command line read the file and the environment too, for their operator.
"""

import os
import resource
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import SettingError
from .address import parse_address
from .contradictions import check
from .settings import MOST_FIBERS, SPARE_FILES, ListenerSettings, ProgramSettings, ServerSettings
from .sources import (
    LISTENER_NAMES,
    PROGRAM_NAMES,
    SERVER_NAMES,
    Layer,
    Options,
    check_names,
    from_environment,
    from_file,
)
from .values import Given, Settings, convert, names, shown

DEFAULT = "default"
_BINDS = 'write "host:port", ("host", port), Listener(...), or a list of these'


class Listener:
    """A listener with settings of its own: `Listener("[::]:443", nodelay=False)`.

    What is not given here comes from what the server says for all its listeners.
    """

    def __init__(self, bind: object, **options: object) -> None:
        place = "an argument of Listener"
        check_names(options, LISTENER_NAMES, place)
        self.given: Options = {name: Given(value, place) for name, value in {"bind": _text(bind), **options}.items()}
        _listener(self.given)

    def __repr__(self) -> str:
        return f"Listener({', '.join(f'{name}={given.value!r}' for name, given in self.given.items())})"


@dataclass(frozen=True)
class Configuration:
    """The settings in force, and the place of each that is not a default.

    `common` is what holds for listeners that say nothing themselves.
    """

    server: ServerSettings
    listeners: tuple[ListenerSettings, ...]
    common: ListenerSettings = field(default_factory=ListenerSettings)
    program: ProgramSettings = field(default_factory=ProgramSettings)
    places: Mapping[str, str] = field(default_factory=dict)
    listener_places: tuple[Mapping[str, str], ...] = ()
    file: Path | None = None


def resolve(bind: object, options: Mapping[str, object]) -> tuple[ServerSettings, tuple[ListenerSettings, ...]]:
    """The settings of `Server(handler, bind, **options)`: arguments only, no file, no environment."""
    configuration = combine([from_arguments(bind, options)])
    return configuration.server, configuration.listeners


def read(
    layer: Layer, path: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None
) -> Configuration:
    """The settings of `serve()` and the command line: `layer` over the environment over the file."""
    environ = os.environ if environ is None else environ
    chosen = path or environ.get("MOORAGE_CONFIG")
    return combine([from_file(Path(chosen) if chosen else None, Path.cwd()), from_environment(environ), layer])


def from_arguments(bind: object, options: Mapping[str, object]) -> Layer:
    """The layer of keyword arguments."""
    check_names(options, SERVER_NAMES | LISTENER_NAMES, "an argument")
    given = {name: Given(value, f"the argument {name}") for name, value in options.items()}
    if bind is None:
        return Layer("arguments", given)
    binds = bind if isinstance(bind, list) else [bind]
    if not binds:
        raise SettingError(f"bind = [] (the argument bind) will not do: {_BINDS}")
    return Layer("arguments", given, tuple(map(_from_bind, binds)))


def combine(layers: list[Layer]) -> Configuration:
    """One configuration from layers, the later ones stronger."""
    options: dict[str, Given] = {}
    listeners: tuple[Options, ...] = ({},)
    for layer in layers:
        options.update(layer.options)
        listeners = layer.listeners or listeners
    server, common, program = (
        {name: given for name, given in options.items() if name in known}
        for known in (SERVER_NAMES, LISTENER_NAMES, PROGRAM_NAMES)
    )
    merged = [{**common, **listener} for listener in listeners]
    configuration = Configuration(
        server=_sized(_build(ServerSettings, server), server),
        listeners=tuple(map(_listener, merged)),
        common=_build(ListenerSettings, common),
        program=_build(ProgramSettings, program),
        places={name: given.place for name, given in options.items()},
        listener_places=tuple({name: given.place for name, given in listener.items()} for listener in merged),
        file=next((layer.path for layer in layers if layer.path), None),
    )
    check(configuration.server, configuration.listeners)
    return configuration


def check_order(handler: object, bind: object) -> None:
    """Say so when the arguments come in the order of the standard library."""
    if isinstance(handler, (tuple, str, list, Listener)) and callable(bind):
        name = getattr(bind, "__name__", "Handler")
        raise SettingError(
            f"the handler comes first and the address second, other than in socketserver: "
            f"write Server({name}, {handler!r})"
        )


def _from_bind(bind: object) -> Options:
    if isinstance(bind, Listener):
        return bind.given
    if isinstance(bind, ListenerSettings):  # settings resolved before: taken as they are
        return {name: Given(getattr(bind, name), "a listener's settings") for name in names(ListenerSettings)}
    return {"bind": Given(_text(bind), "the argument bind")}


def _text(bind: object) -> object:
    """An address tuple of the socket module as text; anything else as it is."""
    match bind:
        case (str(host), int(port)):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return bind


def _build(settings: Settings, options: Options) -> Any:
    return settings(**{name: convert(settings, name, given) for name, given in options.items()})


def _sized(settings: ServerSettings, given: Options) -> ServerSettings:
    """With as many connections as this process may have files, where fibers make that the only limit."""
    if settings.runner != "fibers" or "max_connections" in given:
        return settings
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = MOST_FIBERS if hard == resource.RLIM_INFINITY else min(MOST_FIBERS, hard - SPARE_FILES)
    return replace(settings, max_connections=max(1, files))


def _listener(options: Options) -> ListenerSettings:
    bind = options.get("bind")
    if bind is not None and not isinstance(bind.value, str):
        raise SettingError(f"bind = {shown(bind.value)} ({bind.place}) will not do: {_BINDS}")
    listener: ListenerSettings = _build(ListenerSettings, options)
    parse_address(listener.bind, bind.place if bind else DEFAULT)
    return listener
