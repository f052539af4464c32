"""Unit tests of `moorage.socketserver.listening`."""

import os
import socket
import socketserver as stdlib
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from moorage.socketserver.listening import BACKLOG, Listening, has_input, is_tls
from support.sockets import pair


class Server(stdlib.TCPServer):
    """The standard library's, with our setting."""

    keepalive: Any = (60, 15, 4)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), stdlib.BaseRequestHandler) as server:
        yield server


def connect(server: Any) -> socket.socket:
    return socket.create_connection(server.server_address)


def backlog_of(sock: socket.socket) -> int:
    """tcpi_sacked of a listening socket."""
    return int.from_bytes(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)[28:32], "little")


def test_listener_does_not_block_in_a_loop_and_python_still_shows_its_timeout(server: Server) -> None:
    Listening().prepare(server, in_loop=False, setup_timeout=None)
    assert os.get_blocking(server.fileno())
    Listening().prepare(server, in_loop=True, setup_timeout=None)
    assert not os.get_blocking(server.fileno())
    assert server.socket.gettimeout() is None
    with pytest.raises(BlockingIOError):
        server.get_request()


def test_accepted_sockets_inherit_keepalive_and_block(server: Server) -> None:
    Listening().prepare(server, in_loop=True, setup_timeout=None)
    with connect(server):
        request, _ = server.get_request()
        with request:
            assert request.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert request.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
            assert request.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 15
            assert request.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 4
            assert os.get_blocking(request.fileno())


def test_keepalive_that_the_program_set_is_left_alone(server: Server) -> None:
    server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    server.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 7)
    Listening().prepare(server, in_loop=False, setup_timeout=None)
    assert server.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7


@pytest.mark.parametrize("keepalive", [None, True])
def test_keepalive_of_none_or_of_another_kind_is_not_set(server: Server, keepalive: Any) -> None:
    server.keepalive = keepalive
    Listening().prepare(server, in_loop=False, setup_timeout=None)
    assert server.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


def test_backlog_is_raised_where_the_program_chose_none(server: Server) -> None:
    assert backlog_of(server.socket) == 5
    Listening().prepare(server, in_loop=False, setup_timeout=None)
    assert backlog_of(server.socket) > 5
    assert backlog_of(server.socket) <= BACKLOG


def test_backlog_that_the_program_chose_is_left_alone() -> None:
    class Own(Server):
        request_queue_size = 7

    with Own(("127.0.0.1", 0), stdlib.BaseRequestHandler) as server:
        Listening().prepare(server, in_loop=False, setup_timeout=None)
        assert backlog_of(server.socket) == 7


def test_listener_that_was_replaced_is_prepared_too(server: Server) -> None:
    listening = Listening()
    listening.prepare(server, in_loop=True, setup_timeout=None)
    server.socket.close()
    server.socket = socket.create_server(("127.0.0.1", 0))
    listening.prepare(server, in_loop=True, setup_timeout=None)
    assert not os.get_blocking(server.fileno())


@pytest.mark.parametrize("replacement", [None, "closed", "datagram"])
def test_listener_that_is_none_is_left_alone(server: Server, replacement: str | None) -> None:
    server.socket.close()
    if replacement == "datagram":
        server.socket = socket.socket(type=socket.SOCK_DGRAM)
    elif replacement is None:
        server.socket = None  # type: ignore[assignment]
    Listening().prepare(server, in_loop=True, setup_timeout=1.0)
    if replacement is None:
        server.socket = socket.socket()


def test_accepted_sockets_have_the_setup_timeout_until_they_are_admitted(server: Server) -> None:
    listening = Listening()
    listening.prepare(server, in_loop=True, setup_timeout=10.0)
    with connect(server):
        request, _ = server.socket.accept()
        with request:
            assert request.gettimeout() == pytest.approx(10.0)
            listening.admit(request)
            assert request.gettimeout() is None


def test_timeout_that_the_program_set_on_a_request_is_left_alone(server: Server) -> None:
    listening = Listening()
    listening.prepare(server, in_loop=True, setup_timeout=10.0)
    with pair() as (ours, _):
        for timeout in (10.0, 5.0, 0.0):
            ours.settimeout(timeout)
            listening.admit(ours)
            assert ours.gettimeout() == timeout
    listening.admit((b"data", None))


def test_plain_socket_is_no_tls() -> None:
    with socket.socket() as sock:
        assert not is_tls(sock)
    assert not is_tls(None)


def test_input_is_data_or_an_end() -> None:
    with pair() as (ours, theirs):
        assert not has_input(ours)
        theirs.sendall(b"x")
        assert has_input(ours)
        ours.recv(1)
        theirs.close()
        assert has_input(ours)


def test_tls_listener_that_was_prepared_before_still_defers_the_handshake(server: Server) -> None:
    with ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).wrap_socket(server.socket, server_side=True) as listener:
        server.socket = listener
        listening = Listening()
        listening.prepare(server, in_loop=False, setup_timeout=None)
        assert listening.defers_handshake
        assert vars(listener)["do_handshake_on_connect"] is False
        listening.prepare(server, in_loop=True, setup_timeout=None)
        assert listening.defers_handshake
        server.socket = socket.create_server(("127.0.0.1", 0))
        listening.prepare(server, in_loop=True, setup_timeout=None)
        assert not listening.defers_handshake


def test_tls_listener_whose_handshake_the_program_defers_itself_is_left_alone(server: Server) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False) as listener:
        server.socket = listener
        listening = Listening()
        listening.prepare(server, in_loop=True, setup_timeout=None)
        assert not listening.defers_handshake
