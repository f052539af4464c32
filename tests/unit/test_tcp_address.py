"""TCP addresses: names, ports, families, and the sentence for what cannot be bound."""

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from moorage.config import ListenerSettings, parse_address
from moorage.errors import BindError
from moorage.tcp_address import bind_error, open_tcp, set_options, unchangeable

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


def accepted_by(listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    client = socket.create_connection(listener.getsockname(), timeout=10)
    listener.settimeout(10)
    return client, listener.accept()[0]


def sizes_of(sock: socket.socket) -> tuple[int, int]:
    """Without what the kernel adds for its own book-keeping: it doubles what it is given."""
    return tuple(sock.getsockopt(socket.SOL_SOCKET, option) // 2 for option in (socket.SO_RCVBUF, socket.SO_SNDBUF))  # type: ignore[return-value]  # two


def test_buffers_are_inherited_by_accepted_sockets(opening: Open) -> None:
    [listener] = opening("127.0.0.1:0", receive_buffer=20_000, send_buffer=30_000)
    client, sock = accepted_by(listener)
    with client, sock:
        assert sizes_of(sock) == (20_000, 30_000)


def test_small_buffer_keeps_a_flood_at_the_sender(opening: Open) -> None:
    """The kernel takes what the buffers hold, and no more: with its own choice it would be megabytes."""
    [listener] = opening("127.0.0.1:0", receive_buffer=4096)
    client, sock = accepted_by(listener)
    with client, sock:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        client.setblocking(False)
        sent = 0
        with suppress(BlockingIOError):
            while sent < 1 << 20:
                sent += client.send(bytes(4096))
        assert sent < 256 * 1024


def test_buffers_that_are_not_named_are_left_to_the_kernel(opening: Open) -> None:
    [plain], [one] = opening("127.0.0.1:0"), opening("127.0.0.2:0", receive_buffer=20_000)
    with socket.socket() as fresh:
        assert sizes_of(plain) == sizes_of(fresh)
        assert sizes_of(one)[1] == sizes_of(fresh)[1]


def test_client_that_says_nothing_is_left_in_the_kernel(opening: Open) -> None:
    [listener] = opening("127.0.0.1:0", defer_accept=9.5)
    assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) >= 10  # in steps of the kernel's
    listener.settimeout(0.2)
    with socket.create_connection(listener.getsockname(), timeout=10) as client:
        with pytest.raises(TimeoutError):
            listener.accept()
        client.sendall(b"x")
        listener.settimeout(10)
        sock, _ = listener.accept()
        with sock:
            assert sock.recv(1) == b"x"


def test_client_that_spoke_is_accepted_at_once_though_another_is_deferred(opening: Open) -> None:
    [listener] = opening("127.0.0.1:0", defer_accept=60)
    listener.settimeout(10)
    with (
        socket.create_connection(listener.getsockname(), timeout=10),
        socket.create_connection(listener.getsockname(), timeout=10) as second,
    ):
        second.sendall(b"x")
        sock, addr = listener.accept()
        with sock:
            assert addr == second.getsockname()


def test_fast_open_gives_its_cookie_and_takes_data_in_the_first_packet(opening: Open) -> None:
    if not int(Path("/proc/sys/net/ipv4/tcp_fastopen").read_text()) & 2:
        pytest.skip("net.ipv4.tcp_fastopen does not let servers: only the option can be seen here")
    [listener] = opening("127.0.0.1:0", fast_open=7)
    listener.settimeout(10)
    for _ in range(2):  # the first one fetches the cookie
        with socket.socket() as client:
            client.sendto(b"x", socket.MSG_FASTOPEN, listener.getsockname())
            sock, _addr = listener.accept()
            with sock:
                assert sock.recv(1) == b"x"


def test_fast_open_is_set_with_its_queue_and_off_by_default(opening: Open) -> None:
    [listener], [plain] = opening("127.0.0.1:0", fast_open=7), opening("127.0.0.2:0")
    assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN) == 7
    assert plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN) == 0
    assert plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) == 0


def test_options_that_are_off_again_are_taken_back(opening: Open) -> None:
    [listener] = opening("127.0.0.1:0", fast_open=7, defer_accept=9)
    set_options(listener, ListenerSettings())
    assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN) == 0
    assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) == 0


class OldKernel(socket.socket):
    """Knows neither of them."""

    def setsockopt(self, level: int, option: int, *value: Any) -> None:
        if (level, option) in NEW_OPTIONS:
            raise OSError(errno.ENOPROTOOPT, "Protocol not available")
        super().setsockopt(level, option, *value)

    def getsockopt(self, level: int, option: int, *size: Any) -> Any:
        if (level, option) in NEW_OPTIONS:
            raise OSError(errno.ENOPROTOOPT, "Protocol not available")
        return super().getsockopt(level, option, *size)


NEW_OPTIONS = {(socket.IPPROTO_TCP, socket.TCP_FASTOPEN), (socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT)}


@pytest.mark.parametrize("name", ["fast_open", "defer_accept"])
def test_option_that_the_kernel_refuses_is_one_sentence(
    opening: Open, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(socket, "socket", OldKernel)
    sentence = (
        rf"^cannot listen on 127\.0\.0\.1:0: this kernel refuses {name} = 3 \(Protocol not available\): leave it out$"
    )
    with pytest.raises(BindError, match=sentence) as raised:
        opening("127.0.0.1:0", **{name: 3})
    assert raised.value.errno == errno.ENOPROTOOPT
    opening("127.0.0.1:0")


def test_settings_that_an_open_socket_keeps_are_named() -> None:
    sized = ListenerSettings(receive_buffer=20_000, send_buffer=20_000)
    assert unchangeable(socket.AF_INET, sized, ListenerSettings()) == ["receive_buffer", "send_buffer"]
    assert unchangeable(socket.AF_INET, ListenerSettings(), sized) == []
    assert unchangeable(socket.AF_INET, ListenerSettings(), ListenerSettings(v6only=False)) == []
    assert unchangeable(socket.AF_INET6, ListenerSettings(), ListenerSettings(v6only=False)) == ["v6only"]


def test_options_are_changed_on_a_socket_that_listens(opening: Open) -> None:
    [sock] = opening("127.0.0.1:0")
    set_options(sock, ListenerSettings(nodelay=False, keepalive=None, user_timeout=0.0001))
    assert not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1  # milliseconds, and never none at all
