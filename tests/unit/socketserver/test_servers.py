"""Unit tests of `moorage.socketserver.servers`."""

import socket
import socketserver as stdlib

import pytest

from moorage import socketserver
from support.client import Client
from support.old_door_serving import HOST, Echo, serving

NAMES = [name for name in socketserver.__all__ if hasattr(stdlib, name)]


@pytest.mark.parametrize("name", NAMES)
def test_class_is_a_subclass_of_the_standard_librarys(name: str) -> None:
    assert issubclass(getattr(socketserver, name), getattr(stdlib, name))


@pytest.mark.parametrize("name", NAMES)
def test_class_has_the_settings_of_the_standard_librarys(name: str) -> None:
    ours, theirs = getattr(socketserver, name), getattr(stdlib, name)
    changed = {"request_queue_size", "allow_reuse_address", "_threads"}
    for attribute in ("address_family", "socket_type", "allow_reuse_port", "max_packet_size", "timeout",
                      "max_children", "block_on_close", "daemon_threads", "rbufsize", "wbufsize",
                      "disable_nagle_algorithm"):  # fmt: skip
        if hasattr(theirs, attribute) and attribute not in changed:
            assert getattr(ours, attribute) == getattr(theirs, attribute)


def test_restart_finds_its_port_and_a_second_live_server_does_not() -> None:
    server = socketserver.TCPServer(HOST, Echo)
    with serving(server):
        with Client(server.server_address) as client:
            assert client.ask(b"x\n") == b"x\n"
        with pytest.raises(OSError, match="in use"):
            socketserver.TCPServer(server.server_address, Echo)
    with socketserver.TCPServer(server.server_address, Echo):
        pass


def test_second_datagram_server_does_not_take_the_port() -> None:
    with socketserver.UDPServer(HOST, Echo) as server, pytest.raises(OSError, match="in use"):
        socketserver.UDPServer(server.server_address, Echo)


def test_server_is_bound_by_hand_with_options_set_between() -> None:
    server = socketserver.TCPServer(HOST, Echo, bind_and_activate=False)
    server.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server.server_bind()
    server.server_activate()
    with serving(server), Client(server.server_address) as client:
        assert client.ask(b"x\n") == b"x\n"
