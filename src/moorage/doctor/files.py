"""Files: rules, settings, logs and sockets, and who may write, read or replace them.

Owns      the checks of modes and owners along a whole path: who may write in a folder can exchange what is in it.
Promises  what the mode says is what is judged; a file system's own access lists are not asked.
"""

import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from ..config import Configuration, parse_address
from ..errors import OperatorError, SettingError
from ..observe.control_path import AUTO, check_folder, control_paths
from ..rules import load_rules
from ..unix_path import owner_of
from .finding import Finding, Where, listeners_of, of_server
from .machine import Account, Machine

READ, WRITE, ENTER = 4, 2, 1


def check_account(configuration: Configuration, machine: Machine) -> Iterator[Finding]:
    """Who serves."""
    server = configuration.server
    if machine.account is None:
        name = "group" if server.user is None else "user"
        yield of_server(configuration, name).error(
            "this host does not know that user or group",
            f"`useradd --system {server.user or server.group}`, or another",
        )
    elif server.user is not None and machine.starter not in (0, machine.account.uid):
        yield of_server(configuration, "user").error(
            f"only root can become {server.user}, and this is user {machine.starter}",
            "start it as root, or leave `user` to the service manager (User=)",
        )
    elif machine.account.uid == 0:
        yield of_server(configuration, "user").warning(
            "clients are served as root: a mistake in the handler is a mistake of root's",
            "user = a user of its own, or User= in the service's unit",
        )


def check_rules(configuration: Configuration, machine: Machine) -> Iterator[Finding]:
    """The file of rules, as it is now, and who may change it."""
    for listener in listeners_of(configuration):
        path, where = listener.settings.rules_file, listener.where("rules_file")
        if path is None:
            continue
        try:
            load_rules(listener.settings)
        except SettingError as error:
            yield where.error(str(error), f"correct {path}")
            continue
        if writer := writers(machine, path):
            yield where.warning(f"{writer.what}: whoever can write there lets himself in", writer.fix)
        if machine.account is not None and is_readable(machine, machine.account, path) is False:
            yield where.warning(
                f"{machine.account.name} may not read {path}: changes are not seen while the server runs",
                f"`chgrp {min(machine.account.groups)} {path} && chmod g+r {path}`, its folders too",
            )


def check_settings_file(configuration: Configuration, machine: Machine) -> Iterator[Finding]:
    """Who may change the settings of a server that root starts."""
    if configuration.file is None or machine.starter != 0:
        return
    if writer := writers(machine, os.path.abspath(configuration.file)):
        yield Where("settings file", str(configuration.file), "read at the start and at a reload").warning(
            f"{writer.what}: whoever can write there decides what root starts", writer.fix
        )


def check_log(configuration: Configuration, machine: Machine) -> Iterator[Finding]:
    """The log is opened by who serves, and again when it is rotated."""
    path, account = configuration.server.log_file, machine.account
    if path is None or account is None:
        return
    folder = os.path.dirname(os.path.abspath(path))
    with suppress(OSError):
        if not account.may(machine.stat(path), WRITE):
            yield of_server(configuration, "log_file").error(
                f"{account.name} may not write to {path}", f"`chown {account.uid} {path}`"
            )
        return
    try:
        found = machine.stat(folder)
    except OSError as error:
        yield of_server(configuration, "log_file").error(f"{folder}: {error.strerror}", f"`mkdir -p {folder}`")
        return
    if not account.may(found, WRITE | ENTER):
        yield of_server(configuration, "log_file").error(
            f"{account.name} may not make a file in {folder}",
            f"`chown {account.uid} {folder}`, or LogsDirectory= in the unit",
        )


def check_paths(configuration: Configuration, machine: Machine) -> Iterator[Finding]:
    """Unix sockets: their folders, owners and permissions."""
    for listener in listeners_of(configuration):
        settings, where = listener.settings, listener.where("bind")
        address = parse_address(settings.bind)
        if address.kind != "unix" or address.path.startswith("@"):
            continue
        try:
            owner, _ = owner_of(settings)
        except SettingError as error:
            yield listener.where("unix_user" if "unix_user" in str(error) else "unix_group").error(
                str(error), "a user or group of this host"
            )
            continue
        folder = os.path.dirname(os.path.abspath(address.path))
        try:
            machine.stat(folder)
        except OSError as error:
            yield where.error(f"{folder}: {error.strerror}", f"`mkdir -p {folder}`, or RuntimeDirectory= in the unit")
            continue
        if writer := writers(machine, folder):
            yield where.warning(
                f"{writer.what}: whoever can write there puts a socket of his own in this place",
                writer.fix,
            )
        account = machine.account
        if account is not None and account.uid != machine.starter and owner < 0 and settings.unix_mode & 0o077 == 0:
            yield listener.where("unix_user").warning(
                f"the path belongs to user {machine.starter}, who starts the server, and no other may connect",
                f"unix_user = {account.name}; or unix_group and unix_mode = 0o660 for a group",
            )
        if settings.unix_mode & 0o002:
            yield listener.where("unix_mode").note(
                "every user of this host may connect", "unix_mode = 0o660 and unix_group"
            )


def check_control(configuration: Configuration, machine: Machine) -> Iterator[Finding]:
    """The socket by which the server is commanded."""
    server, where = configuration.server, of_server(configuration, "control")
    if server.control is None:
        yield where.note("`moorage control` cannot ask or reload this server: signals still can", "control = auto")
    elif server.control == AUTO:
        try:
            folder = control_paths(server.name)[0].parent
            if not os.environ.get("RUNTIME_DIRECTORY") and os.path.lexists(folder):
                check_folder(folder)
        except (OperatorError, OSError) as error:
            yield where.warning(f"there will be no control socket: {error}", "control = a path of your own, or off")
    else:
        path = server.control.removeprefix("unix:")
        folder_of = os.path.dirname(os.path.abspath(path))
        try:
            machine.stat(folder_of)
        except OSError as error:
            yield where.error(
                f"{folder_of}: {error.strerror}", f"`mkdir -p {folder_of}`, or RuntimeDirectory= in the unit"
            )
            return
        if not path.startswith("@") and (writer := writers(machine, folder_of)):
            yield where.warning(
                f"{writer.what}: whoever can write there is told your commands in the place of the server",
                writer.fix,
            )


# Modes


class Writer(NamedTuple):
    """Who may write where he should not."""

    what: str
    fix: str


def writers(machine: Machine, path: str) -> Writer | None:
    """The first of a path and its folders that others may write; None when none is.

    In a folder with the sticky bit only the owner of an entry replaces it.
    """
    at = os.path.realpath(path)
    while True:
        with suppress(OSError):
            found = machine.stat(at)
            mode = stat.S_IMODE(found.st_mode)
            is_sticky = stat.S_ISDIR(found.st_mode) and bool(mode & stat.S_ISVTX)
            is_group = bool(mode & stat.S_IWGRP) and found.st_gid != 0
            if (mode & stat.S_IWOTH or is_group) and not is_sticky:
                who = "others" if mode & stat.S_IWOTH else f"the group {found.st_gid}"
                return Writer(f"{at} may be written by {who} (mode {mode:04o})", f"`chmod go-w {shlex.quote(at)}`")
        if at == os.path.dirname(at):
            return None
        at = os.path.dirname(at)


def is_readable(machine: Machine, account: Account, path: str) -> bool | None:
    """Whether this user may read a file, through all its folders; None when it is not there."""
    at = os.path.realpath(path)
    try:
        if not account.may(machine.stat(at), READ):
            return False
        while at != os.path.dirname(at):
            at = os.path.dirname(at)
            if not account.may(machine.stat(at), ENTER):
                return False
    except FileNotFoundError:
        return None
    except OSError:
        return False
    return True
