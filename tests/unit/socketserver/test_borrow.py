"""Unit tests of `moorage.socketserver.borrow`."""

import os
import socket
from collections.abc import Iterator

import pytest

from moorage.socketserver.borrow import borrow
from support.sockets import pair


@pytest.fixture
def pidfd() -> Iterator[int]:
    fd = os.pidfd_open(os.getpid())
    yield fd
    os.close(fd)


def test_borrowed_copy_is_the_same_socket(pidfd: int) -> None:
    with pair() as (ours, theirs):
        copy = borrow(pidfd, ours.fileno(), theirs.getsockname())
        if copy is None:
            pytest.skip("this kernel, or its security module, lends nothing")
        with copy:
            copy.shutdown(socket.SHUT_WR)
            assert theirs.recv(1) == b""
            assert not copy.get_inheritable()


def test_descriptor_of_another_client_is_not_lent(pidfd: int) -> None:
    with pair() as (ours, _):
        assert borrow(pidfd, ours.fileno(), ("127.0.0.1", 1)) is None


def test_descriptor_that_is_no_socket_or_not_there_is_not_lent(pidfd: int) -> None:
    with open(os.devnull) as file:
        assert borrow(pidfd, file.fileno(), None) is None
    assert borrow(pidfd, 1_000_000, None) is None
    with socket.socket() as unconnected:
        assert borrow(pidfd, unconnected.fileno(), None) is None


def test_system_without_pidfds_lends_nothing() -> None:
    assert borrow(None, 3, None) is None
