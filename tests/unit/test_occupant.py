"""Occupant: who listens there, in words."""

import os
import socket
from pathlib import Path

from moorage.occupant import describe_process, occupant_of_peer, occupant_of_port

OURSELVES = f"{Path('/proc/self/comm').read_text().strip()} (pid {os.getpid()})"


def test_occupant_of_a_listening_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert occupant_of_port(listener.getsockname()[1]) == OURSELVES


def test_occupant_of_a_listening_v6_port_is_named() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        assert occupant_of_port(listener.getsockname()[1]) == OURSELVES


def test_occupant_of_a_free_port_is_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert occupant_of_port(port) is None


def test_occupant_of_a_unix_peer_is_named() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert occupant_of_peer(ours) == OURSELVES


def test_occupant_of_an_unconnected_unix_socket_is_nobody() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        assert occupant_of_peer(sock) is None


def test_process_that_is_gone_is_its_number() -> None:
    assert describe_process(2**22 + 1) == f"pid {2**22 + 1}"  # above the largest pid that Linux gives
