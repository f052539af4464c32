"""TCP addresses: names, ports, families, and the sentence for what cannot be bound."""

import errno
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from moorage.config import ListenerSettings, parse_address
from moorage.errors import BindError
from moorage.tcp_address import bind_error, open_tcp, set_inherited_options

Open = Callable[..., list[socket.socket]]
NOWHERE = "203.0.113.1"  # RFC 5737: documentation, nobody's


@pytest.fixture
def opening() -> Iterator[Open]:
    opened: list[socket.socket] = []

    def opening(bind: str, **settings: Any) -> list[socket.socket]:
        sockets = open_tcp(parse_address(bind), ListenerSettings(bind=bind, **settings))
        opened.extend(sockets)
        return sockets

    yield opening
    for sock in opened:
        sock.close()


def fake_names(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Whatever name is asked for, it has these addresses."""

    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (one, port, 0, 0))
            if ":" in one
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port))
            for one in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_name_gives_a_socket_for_each_address_on_one_port(opening: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_names(monkeypatch, "::1", "127.0.0.1", "127.0.0.1", "127.0.0.2")
    sockets = opening("somewhere:0")
    port = sockets[0].getsockname()[1]
    found = [sock.getsockname()[:2] for sock in sockets]
    assert found == [("127.0.0.1", port), ("127.0.0.2", port), ("::1", port)]


def test_name_whose_second_address_has_the_port_taken_tries_another(
    opening: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_names(monkeypatch, "127.0.0.1", "127.0.0.2")
    real = socket.socket.bind
    taken: list[Any] = []

    def bind(sock: socket.socket, address: Any, /) -> None:
        if address[0] == "127.0.0.2" and len(taken) < 3:
            taken.append(address)
            raise OSError(errno.EADDRINUSE, "in use")
        real(sock, address)

    monkeypatch.setattr(socket.socket, "bind", bind)
    sockets = opening("somewhere:0")
    assert len(taken) == 3
    assert sockets[0].getsockname()[1] == sockets[1].getsockname()[1]


def test_name_addresses_that_this_host_lacks_are_passed_over(opening: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_names(monkeypatch, NOWHERE, "127.0.0.1")
    assert [sock.getsockname()[0] for sock in opening("somewhere:0")] == ["127.0.0.1"]


def test_address_that_this_host_lacks_is_one_sentence(opening: Open) -> None:
    with pytest.raises(BindError, match=rf"cannot listen on {NOWHERE}:0: this host has no such address; 0\.0\.0\.0"):
        opening(f"{NOWHERE}:0")


def test_name_that_is_not_found_is_one_sentence(opening: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(BindError, match=r"the name 'nowhere' is not found \(Name or service not known\)"):
        opening("nowhere:0")


def test_v6_socket_leaves_v4_to_others(opening: Open) -> None:
    [v6] = opening("[::]:0")
    [v4] = opening(f"0.0.0.0:{v6.getsockname()[1]}")
    assert v4.getsockname()[1] == v6.getsockname()[1]


def test_port_without_permission_says_the_ways_out() -> None:
    error = bind_error(parse_address("0.0.0.0:80"), 80, PermissionError(errno.EACCES, "Permission denied"))
    assert str(error).startswith(
        "cannot listen on 0.0.0.0:80: the system does not let this user have port 80; take one"
    )
    assert "CAP_NET_BIND_SERVICE" in str(error)


def test_unknown_failure_keeps_the_system_s_words() -> None:
    error = bind_error(parse_address("0.0.0.0:80"), 80, OSError(errno.ENOBUFS, "No buffer space available"))
    assert str(error) == "cannot listen on 0.0.0.0:80: No buffer space available; choose another address with `bind`"


def test_addresses_of_a_name_are_bound_all_or_none(opening: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    [taken] = opening("127.0.0.2:0")
    port = taken.getsockname()[1]
    fake_names(monkeypatch, "127.0.0.1", "127.0.0.2")
    with pytest.raises(BindError, match=f"cannot listen on somewhere:{port}: it is in use"):
        opening(f"somewhere:{port}")
    monkeypatch.undo()
    opening(f"127.0.0.1:{port}")


def test_options_are_changed_on_a_socket_that_listens(opening: Open) -> None:
    [sock] = opening("127.0.0.1:0")
    set_inherited_options(sock, ListenerSettings(nodelay=False, keepalive=None, user_timeout=0.0001))
    assert not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1  # milliseconds, and never none at all
