"""Values: from what an operator wrote to what a setting holds, and back.

Owns      the kinds of settings, and the sentence for a value that will not do.
Promises  one `convert` for text, TOML and Python values; anything wrong is a `SettingError` naming the
          setting, its place and what is accepted.
Refuses   a number for an on/off setting, a float for a count: msgspec decides types and ranges.
"""

import os
import shlex
from collections.abc import Callable
from dataclasses import Field, dataclass, fields, replace
from decimal import Decimal
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from ..errors import SettingError
from .forms import NONE, READERS, SECONDS, check_network, check_word, read_payload
from .settings import KEEPALIVE_MOST, KIB, MIB

Settings = type  # ServerSettings, ListenerSettings or ProgramSettings

#: kinds that are lists of words, and what each word has to be
LISTS: dict[str, Callable[[str], None]] = {"networks": check_network, "paths": check_word, "words": check_word}
#: what stands for a network in a program, besides text
_NETWORKS = (IPv4Address, IPv4Network, IPv6Address, IPv6Network)

#: longer values are shown shortened in a sentence
_SHOWN = 60


@dataclass(frozen=True)
class Given:
    """A value as it was given, and where.

    `place` completes "max_connections = 0 (...)".  `shell` says that it comes from a command line or the
    environment, where a backslash is the only way to write a control character.
    """

    value: object
    place: str
    shell: bool = False


@dataclass(frozen=True)
class Kind:
    """What a setting holds: which reader takes its text, and how what is accepted is said."""

    name: str
    type: Any
    optional: bool
    accepted: str


def convert(settings: Settings, name: str, given: Given) -> Any:
    """The value that setting `name` takes from what was given."""
    import msgspec  # here, so that `import moorage` stays free of it

    what = kind(settings, name)
    try:
        value = msgspec.convert(_read(what, given), _constrained(settings, name))
    except (ValueError, msgspec.ValidationError):
        raise _will_not_do(name, given, what.accepted) from None
    if what.name in LISTS:
        _check_words(name, given, what, value)
    return value


def show(settings: Settings, name: str, value: object) -> str:
    """A value as an operator would write it."""
    if value is None:
        return "off"
    if isinstance(value, bool):
        return "on" if value else "off"
    label = kind(settings, name).name
    if label in LISTS and isinstance(value, tuple):
        return shlex.join(value) or "none"
    if isinstance(value, tuple):
        return "/".join(map(str, value))
    if label == "size" and isinstance(value, int):
        return next(f"{value // size}{unit}" for unit, size in _UNITS if value % size == 0)
    if label == "payload" and isinstance(value, bytes):
        return repr(value)[1:]
    if label in ("rate", "time") and isinstance(value, float):
        return _show_rate(value) if label == "rate" else f"{_plain(value)}s"
    return {"octal": "0o{:o}"}.get(label, "{}").format(value)


@cache
def kind(settings: Settings, name: str) -> Kind:
    """The kind of one setting, from its annotation and its unit."""
    hint, field = get_type_hints(settings)[name], field_of(settings, name)
    optional = NoneType in get_args(hint)
    base = next(member for member in get_args(hint) if member is not NoneType) if optional else hint
    label = _BY_UNIT.get(field.metadata["unit"]) or _BY_TYPE.get(base) or _by_origin(base)
    return Kind(label, base, optional, _accepted(label, field, base) + (", or off" if optional else ""))


@cache
def field_of(settings: Settings, name: str) -> Field[Any]:
    """The dataclass field of one setting."""
    return next(field for field in fields(settings) if field.name == name)


@cache
def names(settings: Settings) -> tuple[str, ...]:
    """The names of all settings of one dataclass, in its order."""
    return tuple(field.name for field in fields(settings))


def _by_origin(base: Any) -> str:
    return "choice" if get_origin(base) is Literal else "triple"


def _show_rate(value: float) -> str:
    """With the unit in which it is short: a rate of `1/h` has sixteen digits for each second."""
    return min(_plain(value), *(f"{_plain(value * SECONDS[unit])}/{unit}" for unit in ("m", "h")), key=len)


def _plain(value: float) -> str:
    """All digits and no exponent, which nobody could read back."""
    text = format(Decimal(repr(value)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _read_words(what: Kind, given: Given) -> object:
    """What a program gives for a list; text is read by its reader."""
    value = given.value
    if value is None or value is False:
        return ()
    if isinstance(value, (os.PathLike, *_NETWORKS)):
        return (_as_text(value),)
    if isinstance(value, (list, tuple)):
        return tuple(map(_as_text, value))
    return READERS[what.name](value) if isinstance(value, str) else value


def _as_text(item: object) -> object:
    if isinstance(item, os.PathLike):
        return os.fspath(item)
    return str(item) if isinstance(item, _NETWORKS) else item


def _check_words(name: str, given: Given, what: Kind, words: tuple[str, ...]) -> None:
    """Every word of a list; the sentence names the one that will not do."""
    for word in words:
        try:
            LISTS[what.name](word)
        except ValueError:
            raise _will_not_do(name, replace(given, value=word), what.accepted) from None


def _read(what: Kind, given: Given) -> object:
    if what.name in LISTS:
        return _read_words(what, given)
    value = os.fspath(given.value) if isinstance(given.value, os.PathLike) else given.value
    if what.optional and (value is False or (isinstance(value, str) and value.lower() in NONE)):
        return None
    if not isinstance(value, str):
        return value
    return read_payload(value, given.shell) if what.name == "payload" else READERS[what.name](value)


def shown(value: object) -> str:
    """A value that was given, as a sentence shows it."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _will_not_do(name: str, given: Given, accepted: str) -> SettingError:
    return SettingError(f"{name} = {shown(given.value)} ({given.place}) will not do: give {accepted}")


def _accepted(label: str, field: Field[Any], base: Any) -> str:
    limits = field.metadata["limits"]
    if label == "choice":
        *most, last = get_args(base)
        return f"{', '.join(most)} or {last}"
    if label in ("count", "workers"):
        return f"a whole number from {limits['ge']} to {limits['le']}" + (" or auto" if label == "workers" else "")
    if label == "size":
        return f"a size from {limits['ge']} byte{'s' * (limits['ge'] > 1)} to {limits['le'] // MIB}MiB, such as 65536 or 64KiB"
    if label == "time":
        least = "from 0" if limits["gt"] is None else "above 0 and"
        return f"a time {least} up to {limits['le'] / SECONDS['d']:g}d, such as 30, 30s or 5m"
    if label == "rate":
        return (
            f"a number from {_plain(limits['ge'])} to {_plain(limits['le'])} for each second, such as 100, 0.5 or 30/m"
        )
    return _ACCEPTED[label]


@cache
def _constrained(settings: Settings, name: str) -> Any:
    """The type of a setting with its range, for msgspec."""
    import msgspec

    what, limits = kind(settings, name), field_of(settings, name).metadata["limits"]
    base: Any = what.type
    if what.name == "triple":
        members = tuple(Annotated[int, msgspec.Meta(ge=limits["ge"], le=most)] for most in KEEPALIVE_MOST)
        base = tuple.__class_getitem__(members)
    elif any(limit is not None for limit in limits.values()):
        base = Annotated[what.type, msgspec.Meta(**limits)]
    return base | None if what.optional else base


_UNITS = (("GiB", 1024 * MIB), ("MiB", MIB), ("KiB", KIB), ("", 1))
_BY_UNIT = {"s": "time", "bytes": "size", "octal": "octal", "cpus": "workers", "1/s": "rate"} | {
    list: list for list in LISTS
}
_BY_TYPE: dict[Any, str] = {int: "count", bool: "flag", str: "text", bytes: "payload"}
_ACCEPTED = {
    "flag": "on or off",
    "networks": "networks such as 10.0.0.0/8 or 2001:db8::/32 (no bit set behind the prefix), addresses, all, or none",
    "octal": "permissions in octal, such as 0o660",
    "paths": "paths, as a list or with blanks between them, or none",
    "payload": "text or bytes",
    "text": "text without NUL, not empty",
    "triple": "idle/interval/probes, such as 60/15/4, the first two at most 32767 and the third at most 127",
    "words": "words, as a list or with blanks between them, or none",
}
