"""Privileges: becoming another user, for good.

Owns      the one step from root to the user and group of the settings.
Promises  afterwards all user and group numbers are the new ones, the groups are those of the new user, no
          capability is left and root cannot be regained, which is tried and not believed; who already is that
          user is left as he is; whatever cannot be done is one `PrivilegeError` sentence.
Refuses   to go on half-way: a process that did not pass the proof must not serve.
Why       servers that call setuid first keep root's groups, and those that set only the effective user hand
          root back to whoever takes them over.
"""

import grp
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from ..errors import PrivilegeError

STATUS = "/proc/self/status"
#: proc(5): what this process may do now, and what it could take back
CAPABILITIES = ("CapEff", "CapPrm")


def drop(user: str | None, group: str | None) -> None:
    """Become this user and this group (None: that of the user, or as it is); `PrivilegeError` when it cannot be."""
    if user is None and group is None:
        return
    uid, gid, name = _user(user, group)
    if group is not None:
        gid = _group(group)
    if os.geteuid() != 0:
        _check_already(uid, gid, user, group)
        return
    try:
        if name is None:
            os.setgroups([gid])
        else:
            os.initgroups(name, gid)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise PrivilegeError(
            f"cannot become {_words(user, group)}: {error.strerror}; "
            "this process needs CAP_SETUID and CAP_SETGID, as root has them"
        ) from error
    if uid != 0:
        for flaw in _flaws(uid, gid):
            raise PrivilegeError(f"became {_words(user, group)}, but {flaw}: this process does not serve like that")


def _user(user: str | None, group: str | None) -> tuple[int, int, str | None]:
    """The numbers of the user, and its name where there is one."""
    if user is None:
        return os.geteuid(), os.getegid(), None
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        entry = None
    if entry is None and _is_number(user):
        try:
            entry = pwd.getpwuid(int(user))
        except KeyError:
            if group is None:
                raise PrivilegeError(
                    f"user {user} has no name on this host, and so no group of its own: set `group` too"
                ) from None
            return int(user), 0, None
    if entry is None:
        raise PrivilegeError(f"there is no user {user!r} on this host: make it, or choose another with `user`")
    return entry.pw_uid, entry.pw_gid, entry.pw_name


def _group(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        if _is_number(group):
            return int(group)
    raise PrivilegeError(f"there is no group {group!r} on this host: make it, or choose another with `group`")


def _is_number(text: str) -> bool:
    """Whether it could be one; the highest means "leave it as it is" to the kernel."""
    return text.isascii() and text.isdecimal() and int(text) < (1 << 32) - 1


def _check_already(uid: int, gid: int, user: str | None, group: str | None) -> None:
    """Without root there is nothing to be done, which is fine where nothing needs to be: after an upgrade, say."""
    if set(os.getresuid()) != {uid} or set(os.getresgid()) != {gid}:
        raise PrivilegeError(
            f"cannot become {_words(user, group)}: this process runs as user {os.geteuid()}, and only root can; "
            "start it as root, or leave `user` and `group` to the service manager"
        )
    if _can_become_root():
        raise PrivilegeError(f"this process is {_words(user, group)}, and yet can become root: it does not serve so")


def _flaws(uid: int, gid: int) -> Iterator[str]:
    """What is left of root; nothing when all went well."""
    if set(os.getresuid()) != {uid} or set(os.getresgid()) != {gid}:
        yield "not all of its numbers changed"
    if _can_become_root():
        yield "root can be regained"
    left = _capabilities()
    if left is None:
        yield f"{STATUS} does not tell which capabilities are left"
    elif left:
        yield f"capabilities are left ({left:#x})"


def _can_become_root() -> bool:
    """Tried, on each way there is; where one works this process is root again, and has to end."""
    for numbers in ((0, 0, 0), (-1, 0, -1), (0, -1, -1)):  # all, the effective one, the real one
        try:
            os.setresuid(*numbers)
        except OSError:
            continue
        return True
    try:
        os.setuid(0)
    except OSError:
        return False
    return True


def _capabilities() -> int | None:
    """All capabilities of this process in one number; None where the kernel does not tell."""
    try:
        lines = [line.partition(":") for line in Path(STATUS).read_text().splitlines()]
        found = {name: int(value, 16) for name, _, value in lines if name in CAPABILITIES}
    except (OSError, ValueError):
        return None
    if len(found) < len(CAPABILITIES):
        return None
    return found["CapEff"] | found["CapPrm"]


def _words(user: str | None, group: str | None) -> str:
    return " and ".join([f"user {user!r}"] * (user is not None) + [f"group {group!r}"] * (group is not None))
