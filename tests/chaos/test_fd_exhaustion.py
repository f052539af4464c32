"""Out of descriptors: no spin, no flood of log lines, clients wait in the backlog and are served later."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from support.client import SOON, Client
from support.programs import CrowdServer, crowd_server

SPARE = 12
CLIENTS = 30
WINDOW = 2.0  # seconds of starvation that are looked at

Record = Callable[[str, object], None]


def fill(server: CrowdServer, stack: ExitStack) -> tuple[list[Client], list[Client]]:
    """Clients until the server has no descriptor left: those who are served, those who wait."""
    clients = [stack.enter_context(Client(server.address)) for _ in range(CLIENTS)]
    for client in clients:
        client.sendall(b"hello\n")
    waiting = [client for client in clients if client.hears_nothing(0.05)]
    served = [client for client in clients if client not in waiting]
    for client in served:
        assert client.line() == b"hello\n"
    return served, waiting


@pytest.mark.parametrize(
    "runner",
    [
        "threads",
        "inline",
        "forks",
    ],
)
def test_starved_server_sleeps_and_recovers(record_property: Record, runner: str) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(crowd_server(handler="echo_lines", runner=runner, spare_descriptors=SPARE))
        served, waiting = fill(server, stack) if runner != "inline" else starve_inline(server, stack)
        assert waiting, "the server had descriptors enough"
        lines, cpu, begun = len(server.log), server.cpu_seconds(), time.monotonic()
        assert waiting[0].hears_nothing(WINDOW)
        seconds = time.monotonic() - begun
        share = (server.cpu_seconds() - cpu) / seconds
        lines = len(server.log) - lines
        record_property("starved", {"cpu": share, "lines": lines, "seconds": seconds, "served": len(served)})
        print(f"{runner}: {share:.1%} CPU, {lines} lines in {seconds:.1f} s, {len(served)} served meanwhile")
        assert share < 0.05
        assert lines <= seconds + 1
        for client in served:
            client.close()
        for client in waiting:
            assert client.line() == b"hello\n"
            client.close()
        server.wait_for_line("accept works again")
    assert any("accept failed" in line for line in server.log)


def starve_inline(server: CrowdServer, stack: ExitStack) -> tuple[list[Client], list[Client]]:
    """One handler at a time, but all who are accepted have a descriptor."""
    clients = [stack.enter_context(Client(server.address)) for _ in range(CLIENTS)]
    for client in clients:
        client.sendall(b"hello\n")
    assert clients[0].line() == b"hello\n"
    return clients[:1], clients[1:]


def ask(server: CrowdServer) -> bytes:
    try:
        with Client(server.address) as client:
            client.sendall(b"again\n")
            return client.line()
    except ConnectionError:
        return b""


@pytest.mark.parametrize("overflow", ["refuse", "reset"])
def test_starved_server_that_refuses_uses_its_reserve(overflow: str) -> None:
    settings: dict[str, Any] = {
        "overflow": overflow,
        **({"overflow_message": "busy\n"} if overflow == "refuse" else {}),
    }
    with ExitStack() as stack:
        server = stack.enter_context(crowd_server(handler="echo_lines", spare_descriptors=SPARE, **settings))
        clients = [stack.enter_context(Client(server.address)) for _ in range(CLIENTS)]
        answers = []
        for client in clients:
            client.settimeout(5)
            try:
                client.sendall(b"hello\n")
                answers.append(client.line())
            except ConnectionError:
                answers.append(b"")
        assert set(answers) <= {b"hello\n", b"busy\n", b""}
        assert 5 <= answers.count(b"hello\n") < CLIENTS
        for client in clients:
            client.close()
        deadline = time.monotonic() + SOON
        while ask(server) != b"again\n":  # until the server has seen that they left
            assert time.monotonic() < deadline
