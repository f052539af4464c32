"""The metrics endpoint: what a scraper, a load balancer and everybody else is told."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from moorage.errors import OperatorError
from moorage.observe.answering import ANSWER_SECONDS, MOST_CLIENTS, REQUEST_LIMIT
from moorage.observe.endpoint import MetricsEndpoint
from support.answering import Caller, Turner
from support.sockets import open_fds, reset


class House:
    """What the endpoint asks for."""

    def __init__(self) -> None:
        self.is_ready = True
        self.numbers = b"moorage_open 5\n"
        self.error: Exception | None = None

    def tell(self) -> bytes:
        if self.error is not None:
            raise self.error
        return self.numbers


@pytest.fixture
def turner() -> Iterator[Turner]:
    turner = Turner()
    yield turner
    turner.watch.close()


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
def endpoint(turner: Turner, house: House) -> Iterator[MetricsEndpoint]:
    endpoint = MetricsEndpoint("127.0.0.1:0", turner.watch, house.tell, lambda: house.is_ready, clock=turner.clock)
    yield endpoint
    endpoint.close()


@pytest.fixture
def call(turner: Turner, endpoint: MetricsEndpoint) -> Iterator[Callable[[], Caller]]:
    callers: list[Caller] = []

    def call() -> Caller:
        callers.append(Caller(turner, endpoint.listeners[0].address))
        turner.settle()
        return callers[-1]

    yield call
    for caller in callers:
        caller.sock.close()


@pytest.fixture
def ask(call: Callable[[], Caller]) -> Callable[[bytes], tuple[int, dict[str, str], bytes]]:
    def ask(request: bytes) -> tuple[int, dict[str, str], bytes]:
        caller = call()
        caller.send(request)
        return read(caller.reply())

    return ask


Ask = Callable[[bytes], tuple[int, dict[str, str], bytes]]


def read(reply: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a reply."""
    head, _, body = reply.partition(b"\r\n\r\n")
    line, *headers = head.decode("ascii").split("\r\n")
    version, status, reason = line.split(" ", 2)
    assert version == "HTTP/1.0"
    assert reason
    return int(status), dict(header.split(": ", 1) for header in headers), body


def test_metrics_are_told_with_their_type_and_length(ask: Ask, house: House) -> None:
    status, headers, body = ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n")
    assert (status, body) == (200, house.numbers)
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert headers["Content-Length"] == str(len(house.numbers))
    assert headers["Connection"] == "close"


@pytest.mark.parametrize(("is_ready", "status"), [(True, 200), (False, 503)])
def test_ready_is_told_by_its_status(ask: Ask, house: House, is_ready: bool, status: int) -> None:
    house.is_ready = is_ready
    assert ask(b"GET /ready HTTP/1.0\r\n\r\n")[0] == status


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /metrics?x=1 HTTP/1.1", 200),
        (b"GET / HTTP/1.1", 404),
        (b"GET /metrics/ HTTP/1.1", 404),
        (b"POST /metrics HTTP/1.1", 405),
        (b"DELETE /nowhere HTTP/1.1", 405),
        (b"GET /metrics", 400),
        (b"GET /metrics HTTP/2.0", 400),
        (b"get /metrics HTTP/1.1", 400),
        (b"GET  /metrics HTTP/1.1", 400),
        (b"GET http://x/metrics HTTP/1.1", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"\x00\xff\xfe", 400),
    ],
)
def test_request_line_has_its_status(ask: Ask, request_line: bytes, status: int) -> None:
    found, headers, body = ask(request_line + b"\r\nHost: x\r\n\r\n")
    assert found == status
    assert headers["Content-Length"] == str(len(body))
    assert ("Allow" in headers) == (status == 405)


def test_head_is_the_reply_without_its_body(ask: Ask, house: House) -> None:
    status, headers, body = ask(b"HEAD /metrics HTTP/1.1\r\n\r\n")
    assert (status, body) == (200, b"")
    assert headers["Content-Length"] == str(len(house.numbers))


@pytest.mark.parametrize("request_", [b"GET /ready HTTP/1.1\n\n", b"\r\nGET /ready HTTP/1.1\r\n\r\n"])
def test_bare_line_feeds_and_empty_lines_before_are_borne(ask: Ask, request_: bytes) -> None:
    assert ask(request_)[0] == 200


def test_request_in_pieces_is_answered_at_its_end(call: Callable[[], Caller]) -> None:
    caller = call()
    for piece in (b"GET /rea", b"dy HTTP/1.1\r", b"\nHost: x\r\n\r"):
        caller.send(piece)
        assert not caller.is_closed()
    caller.send(b"\n")
    assert read(caller.reply())[0] == 200


def test_head_above_the_limit_is_refused(ask: Ask) -> None:
    assert ask(b"GET /ready HTTP/1.1\r\nX: " + b"x" * REQUEST_LIMIT)[0] == 431


def test_body_that_follows_does_not_destroy_the_reply(ask: Ask) -> None:
    assert ask(b"POST /metrics HTTP/1.1\r\n\r\n" + b"x" * 2000)[0] == 405


def test_numbers_that_cannot_be_told_are_a_500_and_a_line_in_the_log(
    ask: Ask, house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.error = ZeroDivisionError("here")
    assert ask(b"GET /metrics HTTP/1.1\r\n\r\n")[0] == 500
    assert "/metrics could not be answered" in caplog.text
    house.error = None
    assert ask(b"GET /metrics HTTP/1.1\r\n\r\n")[0] == 200


def test_hostile_clients_leave_room_for_a_scraper(call: Callable[[], Caller], turner: Turner, ask: Ask) -> None:
    for number in range(2 * MOST_CLIENTS):
        caller = call()
        if number % 4 == 1:
            caller.send(b"GET /metrics")
        elif number % 4 == 2:
            caller.send(b"\xff" * 100)
        elif number % 4 == 3:
            reset(caller.sock)
    assert ask(b"GET /ready HTTP/1.1\r\n\r\n")[0] == 200
    turner.pass_time(ANSWER_SECONDS + 0.1)
    assert turner.watch._parked == {}


def test_scraper_that_never_reads_a_large_reply_is_cut(
    turner: Turner, call: Callable[[], Caller], house: House, ask: Ask
) -> None:
    house.numbers = b"x" * (8 << 20)
    deaf = call()
    deaf.send(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert ask(b"GET /ready HTTP/1.1\r\n\r\n")[0] == 200
    turner.pass_time(ANSWER_SECONDS + 0.1)
    assert turner.watch._parked == {}


def test_next_program_takes_the_socket_and_its_path_over(turner: Turner, house: House, tmp_path: Path) -> None:
    before = open_fds()
    address = f"unix:{tmp_path}/m"
    old = MetricsEndpoint(address, turner.watch, house.tell, lambda: True, clock=turner.clock)
    passed_on = [os.dup(fd) for fd in old.sockets()]
    new = MetricsEndpoint(address, turner.watch, house.tell, lambda: False, passed_on, turner.clock)
    assert new.sockets() == passed_on
    old.disown()
    new.adopt()
    old.close()
    caller = Caller(turner, f"{tmp_path}/m")
    caller.send(b"GET /ready HTTP/1.1\r\n\r\n")
    assert read(caller.reply())[0] == 503
    assert str(new) == address
    new.close()
    assert os.listdir(tmp_path) == []
    turner.settle()
    assert open_fds() == before


@pytest.mark.parametrize(("address", "reason"), [("9100", "write host:port"), ("192.0.2.1:9", "no such address")])
def test_address_that_cannot_be_had_is_a_sentence(turner: Turner, house: House, address: str, reason: str) -> None:
    with pytest.raises(OperatorError, match=reason):
        MetricsEndpoint(address, turner.watch, house.tell, lambda: True)
