"""A program that serves with `forks` in its main thread, and what the outside world does to it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from support.client import SOON, Client

PROGRAM = """
import os, signal, sys, warnings
warnings.simplefilter("error")
from moorage.server import Server

def handler(conn):
    conn.sendall(b"%d\\n" % os.getpid())
    for line in conn.rfile:
        if line == b"exit\\n":
            raise SystemExit(3)
        print("served", line.decode().strip())
        conn.sendall(line)

server = Server(handler, "127.0.0.1:0", runner="forks", drain_quiet=0.1, drain_timeout=20)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: server.drain())
server.bind()
print(server.address[1], flush=True)
server.serve_forever()
print("parent done")
"""


class Program:
    """The program in a process group of its own, as a terminal or a service manager starts it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0
        )
        assert self.process.stdout is not None
        self.address = ("127.0.0.1", int(self.process.stdout.readline()))

    def client(self) -> tuple[Client, int]:
        """A client that is being served, and the pid of its child."""
        client = Client(self.address)
        return client, int(b"".join(iter(lambda: client.receive(1), b"\n")))

    def tell_all(self, signum: int) -> None:
        """A signal to the whole group, as Ctrl-C in a terminal."""
        os.killpg(self.process.pid, signum)

    def end(self) -> tuple[int, list[str], str]:
        out, err = self.process.communicate(timeout=SOON)
        return self.process.returncode, out.decode().splitlines(), err.decode()


@pytest.fixture
def program() -> Iterator[Program]:
    program = Program()
    yield program
    try:
        os.killpg(program.process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    program.process.communicate(timeout=SOON)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signal_to_the_whole_group_drains(program: Program, signum: int) -> None:
    client, _ = program.client()
    assert client.ask(b"one\n") == b"one\n"
    client.send(b"ha")
    program.tell_all(signum)
    assert client.hears_nothing(0.4)
    client.send(b"lf\n")
    assert client.rest() == b"half\n"
    client.close()
    status, out, err = program.end()
    assert (status, err) == (0, "")
    assert sorted(out) == ["parent done", "served half", "served one"]


def test_death_of_the_parent_lets_children_finish(program: Program) -> None:
    client, _ = program.client()
    client.send(b"ha")
    program.process.send_signal(signal.SIGKILL)
    program.process.wait(SOON)
    assert client.hears_nothing(0.4)
    client.send(b"lf\n")
    assert client.rest() == b"half\n"
    client.close()


def test_output_of_children_is_not_lost_and_not_doubled(program: Program) -> None:
    for _ in range(3):
        client, _ = program.client()
        with client:
            client.ask(b"x\n")
    with program.client()[0] as client:
        client.send(b"exit\n")
        assert client.is_cut()
    program.process.send_signal(signal.SIGTERM)
    status, out, err = program.end()
    assert (status, sorted(out)) == (0, ["parent done", "served x", "served x", "served x"])
    assert "SystemExit: 3" in err


def test_port_is_free_although_a_child_outlives_its_parent(program: Program) -> None:
    client, _ = program.client()
    program.process.send_signal(signal.SIGKILL)
    program.process.wait(SOON)
    with socket.create_server(program.address):
        pass
    client.close()
