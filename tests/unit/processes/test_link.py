"""Both ends in one process, and one in a forked child for the ends that only a death brings."""

import os
import socket
from collections.abc import Iterator

import pytest

from moorage.errors import InternalError
from moorage.processes.link import (
    LONGEST,
    LONGEST_REASON,
    Drain,
    End,
    Failed,
    Go,
    Leave,
    Link,
    Message,
    Ready,
    Reopen,
    make_links,
)

MESSAGES: list[Message] = [
    Ready(),
    Failed("app.py cannot be imported", is_operator=True),
    Failed("\udcff \N{ANCHOR} \0", is_operator=False),
    Go(),
    Leave(),
    Leave((0, 2)),
    Drain(),
    End(),
    Reopen(),
]


@pytest.fixture
def links() -> Iterator[tuple[Link, Link]]:
    supervisors, workers = make_links()
    yield supervisors, workers
    supervisors.close()
    workers.close()


@pytest.fixture
def raw() -> Iterator[tuple[Link, socket.socket]]:
    """A link, and the bare socket of its other end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield Link(ours), theirs
    ours.close()
    theirs.close()


@pytest.mark.parametrize("message", MESSAGES, ids=repr)
def test_message_arrives_as_it_was_sent(links: tuple[Link, Link], message: Message) -> None:
    assert links[0].send(message)
    assert links[1].receive() == message


def test_messages_arrive_in_order_and_both_ways(links: tuple[Link, Link]) -> None:
    for message in MESSAGES:
        links[0].send(message)
        links[1].send(message)
    assert [links[1].receive() for _ in MESSAGES] == MESSAGES
    assert [links[0].receive() for _ in MESSAGES] == MESSAGES


def test_receive_with_nothing_there_raises_at_once(links: tuple[Link, Link]) -> None:
    with pytest.raises(BlockingIOError):
        links[0].receive()


def test_receive_after_the_other_end_closed_gives_what_was_sent_and_then_none(links: tuple[Link, Link]) -> None:
    links[1].send(Ready())
    links[1].close()
    assert links[0].receive() == Ready()
    assert links[0].receive() is None
    assert links[0].receive() is None


def test_receive_after_the_other_end_closed_with_unread_messages_is_none(links: tuple[Link, Link]) -> None:
    links[0].send(Go())
    links[1].close()
    assert links[0].receive() is None


def test_death_of_the_other_process_is_the_end_of_the_stream(links: tuple[Link, Link]) -> None:
    pid = os.fork()
    if pid == 0:
        links[0].close()
        links[1].send(Ready())
        os._exit(0)
    links[1].close()
    os.waitpid(pid, 0)
    assert links[0].receive_now(5.0) == Ready()
    assert links[0].receive_now(5.0) is None


def test_send_to_an_end_that_is_gone_is_false(links: tuple[Link, Link]) -> None:
    links[1].close()
    assert not links[0].send(Go())


def test_send_to_an_end_that_does_not_read_is_false_and_does_not_block(links: tuple[Link, Link]) -> None:
    sent = 0
    while links[0].send(Reopen()):
        sent += 1
    assert sent > 50


def test_receive_now_waits_for_the_message(links: tuple[Link, Link]) -> None:
    pid = os.fork()
    if pid == 0:
        links[1].close()
        os._exit(0 if links[0].receive_now(5.0) == Go() else 1)
    links[1].send(Go())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_receive_now_with_nothing_said_raises_after_its_timeout(links: tuple[Link, Link]) -> None:
    with pytest.raises(TimeoutError):
        links[0].receive_now(0.01)


@pytest.mark.parametrize("letter", ["x", "\N{ANCHOR}", "\N{SAILBOAT}", "\U0001f6a2"])
def test_reason_that_is_too_long_is_cut(links: tuple[Link, Link], letter: str) -> None:
    assert links[1].send(Failed(letter * LONGEST, is_operator=True))
    failed = links[0].receive()
    assert failed == Failed(letter * (LONGEST_REASON - 3) + "...", is_operator=True)


@pytest.mark.parametrize(
    "datagram",
    [
        b"\xff",
        b"no json",
        b"[]",
        b"null",
        b"{}",
        b'{"kind": "Bogus"}',
        b'{"kind": ["Go"]}',
        b'{"kind": "Go", "more": 1}',
        b'{"kind": "Failed", "reason": "x"}',
        b'{"kind": "Failed", "reason": 1, "is_operator": true}',
        b'{"kind": "Leave", "last": 1}',
        b'{"kind": "Leave", "last": ["0"]}',
        b"[" * 60_000,
    ],
    ids=lambda datagram: repr(datagram[:40]),
)
def test_datagram_that_is_no_message_is_an_error_that_names_it(
    raw: tuple[Link, socket.socket], datagram: bytes
) -> None:
    raw[1].send(datagram)
    with pytest.raises(InternalError) as error:
        raw[0].receive()
    assert repr(datagram[:20])[:-1] in str(error.value)
    assert len(str(error.value)) < 1000


def test_links_do_not_survive_an_exec(links: tuple[Link, Link]) -> None:
    assert [os.get_inheritable(link.fileno()) for link in links] == [False, False]


def test_close_twice_does_nothing(links: tuple[Link, Link]) -> None:
    links[0].close()
    links[0].close()
    assert links[0].fileno() == -1
    assert not links[0].send(Go())
