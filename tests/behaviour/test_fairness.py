"""Fairness among fibers: whoever never has to wait is stopped after a number of steps, and the others have their turn.

No test here looks at a clock: what is counted is how many steps of the greedy one come before another one is served.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from support.client import CHUNK, Client
from support.greed import BYTES, LINE
from support.twin_programs import TwinServer, on_both_twins, twin_server


class Greedy:
    """A client that never stops sending, and reads all that comes."""

    def __init__(self, address: Any, words: str) -> None:
        self._client = Client(address)
        self._client.sendall(f"{words}\n".encode())
        self._over = threading.Event()
        self._sender = threading.Thread(target=self._send)
        self._sender.start()

    def _send(self) -> None:
        try:
            while not self._over.is_set():
                self._client.sendall(LINE * (CHUNK // len(LINE)))
        except OSError:  # the handler has what it wants
            pass

    def result(self) -> dict[str, Any]:
        """What its handler says at the end."""
        last = b""
        while b"\n!" not in last or not last.endswith(b"}\n"):
            data = self._client.recv(CHUNK)
            assert data, "the handler has left without a word"
            last = (last + data)[-20 * BYTES :]
        said: dict[str, Any] = json.loads(last.rpartition(b"\n!")[2])
        return said

    def close(self) -> None:
        self._over.set()
        self._client.close()
        self._sender.join()


@contextmanager
def greedy(server: TwinServer, words: str) -> Iterator[Greedy]:
    client = Greedy(server.address, words)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def fair_server(twin: str) -> Iterator[TwinServer]:
    with twin_server(twin, "support.greed:serve", runner="fibers", drain_quiet=0.05) as server:
        yield server


#: what the greedy one does; each step of it is a call that may be answered from the buffer
WAYS = ["receives", "sends", "answers_lines", "reads_lines", "reads_blocks", "reads_until"]
#: turns that may pass: the one in which it happened, and another until it is seen; a newcomer needs one more each
#: to be accepted and to be given his fiber
TURNS = {"other": 2, "newcomer": 4}


def longest(said: dict[str, Any]) -> float:
    """The longest wait, in turns of one who never waits."""
    assert len(said["waits"]) == BYTES, "somebody was forgotten"
    return float(max(said["waits"]) / (said["budget"] + 1))


@on_both_twins
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("waiting", TURNS)
def test_who_never_waits_is_stopped_for_the_others(twin: str, way: str, waiting: str) -> None:
    with fair_server(twin) as server, greedy(server, f"{way} {waiting}") as client:
        assert longest(client.result()) <= TURNS[waiting]


@on_both_twins
def test_crowd_that_never_waits_delays_the_others_by_one_turn_each(twin: str) -> None:
    crowd = 10
    with fair_server(twin) as server, ExitStack() as stack:
        first = stack.enter_context(greedy(server, "receives other"))
        for _ in range(crowd - 1):
            stack.enter_context(greedy(server, "receives nobody"))
        assert longest(first.result()) <= TURNS["other"] * crowd


@on_both_twins
def test_clients_that_never_read_delay_nobody(twin: str) -> None:
    with fair_server(twin) as server, ExitStack() as stack:
        for _ in range(30):
            mute = stack.enter_context(Client(server.address))
            mute.sendall(b"pours nobody\n")
            assert mute.receive(1) == b"\0"
        first = stack.enter_context(greedy(server, "receives other"))
        assert longest(first.result()) <= TURNS["other"] * 2  # the kernel may take a little more of theirs
