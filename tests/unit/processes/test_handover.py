"""Handover: what a service manager or the program before passed on, and what goes to the next."""

import logging
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from moorage.errors import BindError, InheritError
from moorage.processes import handover
from moorage.processes.handover import Inherited, encode, pass_on

US = str(os.getpid())


@pytest.fixture
def first(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Two listening sockets side by side, and the first descriptor to look at."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    fds = [fd for fd in range(200, 260) if not Path(f"/proc/self/fd/{fd}").exists()][:2]
    for sock, fd in zip(sockets, fds, strict=True):
        os.dup2(sock.fileno(), fd)
        sock.close()
    monkeypatch.setattr(handover, "FIRST", fds[0])
    yield fds[0]
    for fd in fds:
        with suppress(OSError):
            os.close(fd)


def given(count: object = 2, names: str | None = "web:admin", pid: str = US) -> dict[str, str]:
    """The environment that promises these."""
    environ = {"LISTEN_PID": pid, "LISTEN_FDS": str(count), "LISTEN_PIDFDID": "7", "PATH": "/bin"}
    return environ if names is None else {**environ, "LISTEN_FDNAMES": names}


def test_addresses_that_are_left_are_told_as_bind_writes_them() -> None:
    left = Inherited([(encode("unix:/run/x:y"), 90), (encode("127.0.0.1:80"), 91), ("control", 92), ("unknown", 93)])
    assert left.addresses() == ["unix:/run/x:y", "127.0.0.1:80"]


def test_sockets_are_known_by_their_names_and_go_no_further(first: int) -> None:
    environ = given()
    inherited = Inherited.take(environ)
    assert environ == {"PATH": "/bin"}
    assert not os.get_inheritable(first)
    assert not os.get_inheritable(first + 1)
    assert inherited.named("admin") == [first + 1]
    assert inherited.named("admin") == []
    assert inherited.named("web") == [first]


def test_sockets_of_one_name_come_together(first: int) -> None:
    assert Inherited.take(given(names="web:web")).named("web") == [first, first + 1]


def test_sockets_without_names_are_unknown(first: int) -> None:
    assert Inherited.take(given(names=None)).claim("systemd:unknown") == [first, first + 1]


def test_environment_without_a_promise_gives_nothing() -> None:
    assert Inherited.take({}).claim("127.0.0.1:80") == []


def test_promise_to_another_process_is_ignored_and_forgotten(first: int) -> None:
    environ = given(pid="1")
    inherited = Inherited.take(environ)
    assert environ == {"PATH": "/bin"}
    assert inherited.named("web") == []
    assert os.get_inheritable(first)
    with pytest.raises(BindError, match=rf"systemd:web: no socket .* LISTEN_PID is 1 and this is process {US}.*`exec`"):
        inherited.claim("systemd:web")


def test_address_is_claimed_by_its_text_its_name_or_its_number(first: int) -> None:
    inherited = Inherited.take(given(names=f"{encode('127.0.0.1:80')}:web"))
    assert inherited.claim("127.0.0.1:81") == []
    assert inherited.claim("127.0.0.1:80") == [first]
    assert inherited.claim("127.0.0.1:80") == []
    assert inherited.claim(f"fd://{first + 1}") == [first + 1]
    assert inherited.claim("fd://3") == []


def test_name_that_was_not_passed_on_is_a_sentence_with_those_that_were(first: int) -> None:
    with pytest.raises(BindError, match=r"^cannot listen on systemd:wbe: no socket .*; there is web, admin$"):
        Inherited.take(given()).claim("systemd:wbe")
    with pytest.raises(BindError, match="there is none, so start it by its socket unit"):
        Inherited().claim("systemd:web")


def test_socket_that_nobody_claims_is_closed_with_one_warning(first: int, caplog: pytest.LogCaptureFixture) -> None:
    inherited = Inherited.take(given())
    inherited.claim("systemd:admin")
    with caplog.at_level(logging.WARNING, "moorage"):
        inherited.close_rest()
        inherited.close_rest()
    assert len(caplog.records) == 1
    assert f"web (fd {first})" in caplog.text
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(first)
    os.fstat(first + 1)


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        (given("many"), "'many', which is no number"),
        (given("-1"), "'-1', which is no number"),
        (given(2, "web"), "promises 2 sockets and LISTEN_FDNAMES names 1"),
        (given(999_999_999, None), "which is not open"),
    ],
)
def test_promise_that_is_not_kept_is_one_sentence(first: int, environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(InheritError, match=sentence) as caught:
        Inherited.take(environ)
    assert "\n" not in str(caught.value)


def test_descriptor_that_is_promised_and_missing_is_one_sentence(first: int) -> None:
    os.close(first + 1)
    with pytest.raises(InheritError, match=rf"descriptor {first + 1} \(admin\), which is not open"):
        Inherited.take(given())


def test_descriptor_that_is_no_socket_is_one_sentence_and_stays(first: int) -> None:
    with open(os.devnull, "rb") as file:
        os.dup2(file.fileno(), first)
    with pytest.raises(InheritError, match=rf"descriptor {first} \(web\), which is none"):
        Inherited.take(given())
    assert stat.S_ISCHR(os.fstat(first).st_mode)


def test_sockets_are_passed_on_in_the_order_of_their_names() -> None:
    environ, fds = pass_on(
        {"127.0.0.1:80": [8, 5], "unix:/run/ä b": [7], "control": [3]}, {**given(), "HOME": "/", "PATH": "/bin"}
    )
    assert fds == [8, 5, 7, 3]
    assert environ == {
        "HOME": "/",
        "PATH": "/bin",
        "LISTEN_FDS": "4",
        "LISTEN_FDNAMES": "127.0.0.1%3A80:127.0.0.1%3A80:unix%3A%2Frun%2F%C3%A4%20b:control",
    }


def test_nothing_to_pass_on_is_a_promise_of_nothing() -> None:
    environ, fds = pass_on({}, {})
    assert fds == []
    assert Inherited.take({**environ, "LISTEN_PID": US}).named("") == []
