"""Notify: what a service manager hears."""

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage.processes.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify") if request.param == "path" else f"\0moorage-notify-{os.getpid()}")
        sock.settimeout(10)
        yield sock


def environ_of(manager: socket.socket, **more: str) -> dict[str, str]:
    name = manager.getsockname()
    return {"NOTIFY_SOCKET": name if isinstance(name, str) else "@" + name[1:].decode(), **more}


def heard(manager: socket.socket) -> list[str]:
    return manager.recv(4096).decode().split("\n")


def test_manager_hears_every_word(manager: socket.socket) -> None:
    notifier = Notifier(environ_of(manager, WATCHDOG_USEC="3000000"))
    notifier.ready("4 workers\nand none too many")
    assert heard(manager) == ["READY=1", "STATUS=4 workers and none too many"]
    notifier.ready()
    assert heard(manager) == ["READY=1"]
    notifier.stopping()
    assert heard(manager) == ["STOPPING=1"]
    notifier.status("draining")
    assert heard(manager) == ["STATUS=draining"]
    notifier.main_pid(812)
    assert heard(manager) == ["MAINPID=812"]
    notifier.watchdog()
    assert heard(manager) == ["WATCHDOG=1"]


def test_reload_begins_with_the_time_of_the_manager_s_clock(manager: socket.socket) -> None:
    Notifier(environ_of(manager)).reloading()
    first, second = heard(manager)
    assert first == "RELOADING=1"
    assert second.startswith("MONOTONIC_USEC=")
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert abs(int(second.partition("=")[2]) / 1e6 - uptime) < 60


def test_variables_are_gone_so_that_no_child_speaks_for_the_service(manager: socket.socket) -> None:
    environ = environ_of(manager, WATCHDOG_USEC="1", WATCHDOG_PID="1", PATH="/bin")
    Notifier(environ)
    assert environ == {"PATH": "/bin"}


def test_notifier_without_a_manager_does_nothing(caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier({"WATCHDOG_USEC": "2000000"})
    for say in (notifier.ready, notifier.reloading, notifier.stopping, notifier.watchdog):
        say()
    notifier.status("x")
    notifier.main_pid(1)
    assert notifier.watchdog_seconds is None
    assert caplog.records == []


@pytest.mark.parametrize("address", ["vsock:2:1", "@", "/nowhere/notify", "/" + "a" * 200, "/a\0b"])
def test_manager_that_cannot_be_told_is_one_warning(address: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "moorage"):
        notifier = Notifier({"NOTIFY_SOCKET": address})
        notifier.ready()
        notifier.stopping()
    assert len(caplog.records) == 1


def test_word_that_the_full_socket_did_not_take_comes_with_a_later_one(manager: socket.socket) -> None:
    notifier = Notifier(environ_of(manager))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                other.sendto(b"noise", manager.getsockname())
    notifier.ready()
    notifier.status("a")
    notifier.status("a")
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            assert manager.recv(100) == b"noise"
    notifier.status("b")
    assert heard(manager) == ["READY=1", "STATUS=a", "STATUS=b"]
    notifier.stopping()
    assert heard(manager) == ["STOPPING=1"]


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_watchdog_is_fed_twice_in_its_time_when_it_is_ours(
    manager: socket.socket, variables: dict[str, str], seconds: float | None
) -> None:
    notifier = Notifier(environ_of(manager, **variables))
    assert notifier.watchdog_seconds == seconds
    if seconds is None:
        notifier.watchdog()
        notifier.stopping()
        assert heard(manager) == ["STOPPING=1"]
