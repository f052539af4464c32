"""Services: what each protocol sends, and when it stops."""

import struct
from collections.abc import Callable

import pytest

from moorage.server import Server
from moorage.services import CHARGEN, EPOCH_1900, SERVICES, daytime_line, time_bytes
from support.client import Client


def serving(name: str) -> Server:
    return Server(SERVICES[name], "127.0.0.1:0", drain_quiet=0.1)


def test_echo_sends_back_what_comes() -> None:
    with serving("echo") as server, Client(server.address) as client:
        assert client.ask(b"hello") == b"hello"
        client.say_no_more()
        assert client.rest() == b""


def test_discard_sends_nothing() -> None:
    with serving("discard") as server, Client(server.address) as client:
        client.sendall(b"x" * 100_000)
        client.say_no_more()
        assert client.rest() == b""


def test_chargen_sends_lines_until_the_client_goes() -> None:
    with serving("chargen") as server:
        with Client(server.address) as client:
            assert client.receive(3 * len(CHARGEN)) == 3 * CHARGEN
        assert server.wait_for_connections(0, 20)


def test_chargen_stops_at_a_drain() -> None:
    with serving("chargen") as server, Client(server.address) as client:
        client.receive(74)
        server.watch.call_soon(server.shutdown)
        assert len(client.rest()) % len(CHARGEN) == len(CHARGEN) - 74


def test_chargen_lines_are_those_of_the_rfc() -> None:
    lines = CHARGEN.split(b"\r\n")[:-1]
    assert len(lines) == 95
    assert {len(line) for line in lines} == {72}
    assert lines[0].startswith(b' !"#$%&')
    assert lines[1].startswith(b'!"#$%&')
    assert lines[94].startswith(b"~ !")


def test_daytime_and_time_answer_without_a_question() -> None:
    with serving("daytime") as server, Client(server.address) as client:
        assert client.rest().endswith(b"-UTC\r\n")
    with serving("time") as server, Client(server.address) as client:
        assert len(client.rest()) == 4


def test_daytime_line_is_the_same_in_every_locale() -> None:
    assert daytime_line(0) == b"Thursday, January 1, 1970 00:00:00-UTC\r\n"


@pytest.mark.parametrize(
    ("unix", "seconds"),
    [(0, EPOCH_1900), (1_000_000_000.9, EPOCH_1900 + 1_000_000_000), (2**32 - EPOCH_1900, 0)],
)
def test_time_counts_from_1900_and_begins_anew_in_2036(unix: float, seconds: int) -> None:
    assert time_bytes(unix) == struct.pack("!I", seconds)


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_service_says_which_rfc_it_follows(service: Callable[..., None]) -> None:
    assert "RFC 86" in (service.__doc__ or "")
