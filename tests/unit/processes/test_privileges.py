"""Privileges: what is left of root in a process that gave it up; each in a child, which cannot take it back."""

import grp
import json
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moorage.errors import PrivilegeError
from moorage.processes import privileges
from moorage.processes.privileges import drop

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
USER = "nobody"


def in_child(call: Callable[[], Any]) -> Any:
    """What the call returns, or the sentence it raises, in a process of its own."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = call()
        except PrivilegeError as error:
            answer = f"PrivilegeError: {error}"
        except BaseException as error:
            answer = repr(error)
        os.write(write, json.dumps(answer).encode())
        os._exit(0)
    os.close(write)
    with open(read, "rb") as file:
        answer = json.loads(file.read())
    os.waitpid(pid, 0)
    return answer


def identity() -> dict[str, Any]:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "uids": os.getresuid(),
        "gids": os.getresgid(),
        "groups": os.getgroups(),
        "effective": int(status["CapEff"], 16),
        "permitted": int(status["CapPrm"], 16),
    }


def dropped(user: str | None, group: str | None = None) -> Any:
    def call() -> Any:
        drop(user, group)
        return identity()

    return in_child(call)


def refusal(call: Callable[[], Any]) -> str:
    answer = in_child(call)
    assert isinstance(answer, str)
    return answer


@as_root
@pytest.mark.parametrize("by", ["name", "number"])
def test_root_becomes_the_user_with_its_groups_and_nothing_else(by: str) -> None:
    entry = pwd.getpwnam(USER)
    now = dropped(USER if by == "name" else str(entry.pw_uid))
    assert now == {
        "uids": [entry.pw_uid] * 3,
        "gids": [entry.pw_gid] * 3,
        "groups": os.getgrouplist(USER, entry.pw_gid),
        "effective": 0,
        "permitted": 0,
    }


@as_root
def test_root_cannot_be_regained() -> None:
    def call() -> str:
        os.setgroups([0, 1])
        drop(USER, None)
        os.setuid(0)
        return "root again"

    assert refusal(call) == repr(PermissionError(1, "Operation not permitted"))


@as_root
def test_group_of_the_settings_wins_over_that_of_the_user() -> None:
    other = next(entry for entry in grp.getgrall() if entry.gr_gid not in {0, pwd.getpwnam(USER).pw_gid})
    for group in (other.gr_name, str(other.gr_gid)):
        now = dropped(USER, group)
        assert (now["gids"], now["groups"]) == ([other.gr_gid] * 3, [other.gr_gid])


@as_root
def test_user_without_a_name_needs_a_group() -> None:
    assert "set `group` too" in refusal(lambda: drop("54321", None))
    now = dropped("54321", "54322")
    assert (now["uids"], now["gids"], now["groups"]) == ([54321] * 3, [54322] * 3, [54322])


@as_root
def test_group_alone_leaves_the_user() -> None:
    now = dropped(None, "54322")
    assert (now["uids"], now["gids"], now["groups"]) == ([0] * 3, [54322] * 3, [54322])


@as_root
def test_root_that_is_wished_for_stays() -> None:
    assert dropped("root")["uids"] == [0] * 3


@as_root
def test_who_is_the_user_already_stays_and_may_not_become_another() -> None:
    def again() -> str:
        drop(USER, None)
        drop(USER, None)
        drop(None, None)
        drop("daemon", None)
        return "daemon"

    nobody = pwd.getpwnam(USER).pw_uid
    assert refusal(again) == (
        f"PrivilegeError: cannot become user 'daemon': this process runs as user {nobody}, and only root can; "
        "start it as root, or leave `user` and `group` to the service manager"
    )


@as_root
def test_proof_that_fails_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "setresuid", lambda *_: None)
    assert "not all of its numbers changed: this process does not serve like that" in refusal(lambda: drop(USER, None))


@as_root
def test_root_that_waits_in_the_saved_number_is_found() -> None:
    def call() -> None:
        nobody = pwd.getpwnam(USER).pw_uid
        os.setresgid(*[pwd.getpwnam(USER).pw_gid] * 3)
        os.setresuid(nobody, nobody, 0)
        drop(USER, None)

    assert "cannot become user 'nobody'" in refusal(call)


@as_root
@pytest.mark.parametrize("text", ["", "CapEff:\t0\n", "CapEff:\t0\nCapPrm:\t0000000000000400\n"])
def test_capability_that_is_left_or_not_told_is_a_flaw(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fd = os.memfd_create("status")  # which anybody may read
    os.write(fd, text.encode())
    monkeypatch.setattr(privileges, "STATUS", f"/proc/self/fd/{fd}")
    assert "capabilities are left" in refusal(lambda: drop(USER, None))
    os.close(fd)


@pytest.mark.parametrize(
    ("user", "group", "sentence"),
    [
        ("absent-user", None, "there is no user 'absent-user' on this host: make it, or choose another with `user`"),
        ("nobody", "absent-group", "there is no group 'absent-group' on this host"),
        (None, "absent-group", "there is no group 'absent-group' on this host"),
        ("4294967295", None, "there is no user '4294967295'"),
        ("-1", None, "there is no user '-1'"),
    ],
)
def test_name_that_nobody_has_is_one_sentence(user: str | None, group: str | None, sentence: str) -> None:
    with pytest.raises(PrivilegeError, match=sentence):
        drop(user, group)


def test_process_that_is_not_root_cannot_and_says_so() -> None:
    def call() -> None:
        if os.geteuid() == 0:
            os.setresuid(54321, 54321, 54321)
        drop("daemon", None)

    assert "this process runs as user" in refusal(call)


def test_nothing_wished_for_changes_nothing() -> None:
    before = identity()
    drop(None, None)
    assert identity() == before
