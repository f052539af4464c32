"""Deadlines: the recoverable ones lose no byte, the final ones cannot be outlived."""

import socketserver
import time
from collections.abc import Callable

import pytest

from moorage import Connection, ConnectionEnded
from moorage.events import Cause, Phase, RefusalObserved
from moorage.transport import careful
from support.client import SOON
from support.house import Journal, Open

SHORT = 0.1
FAREWELL = 1.0  # what the design gives a handler after a read-side deadline


def echo_lines(conn: Connection) -> None:
    for line in conn.rfile:
        conn.sendall(line)


# Recoverable


def test_timeout_in_a_line_loses_no_byte(house: Open, journal: Journal) -> None:
    def handle(conn: Connection) -> None:
        conn.settimeout(0.05)
        timeouts = 0
        while True:
            try:
                journal.write(conn.rfile.readline())
                return
            except TimeoutError:
                timeouts += 1
                if timeouts == 2:
                    conn.sendall(b"go on")

    client = house(handle).client()
    client.sendall(b"first half, ")
    assert client.receive(5) == b"go on"
    client.sendall(b"second half\n")
    assert journal.read() == "b'first half, second half\\n'"


def test_timeout_of_a_class_setting_is_what_the_handler_catches(house: Open, journal: Journal) -> None:
    class Impatient(socketserver.StreamRequestHandler):
        timeout = 0.05

        def handle(self) -> None:
            try:
                self.rfile.readline()
            except TimeoutError as error:
                journal.write(type(error).__name__)
                self.wfile.write(b"too slow")

    opened = house(Impatient)
    assert opened.client().rest() == b"too slow"
    assert journal.read() == "TimeoutError"
    assert opened.cause() is Cause.HANDLER_DONE


def test_timeout_left_to_the_server_is_quiet(house: Open) -> None:
    class Impatient(socketserver.StreamRequestHandler):
        timeout = 0.05

        def handle(self) -> None:
            self.rfile.readline()

    opened = house(Impatient)
    assert opened.client().rest() == b""
    assert opened.cause() is Cause.IDLE
    assert opened.is_quiet()


def test_deadline_over_many_calls_is_one_for_all(house: Open, journal: Journal) -> None:
    def handle(conn: Connection) -> None:
        begun = time.monotonic()
        try:
            with conn.deadline(0.3):
                while True:
                    conn.sendall(conn.read_exactly(1))
        except TimeoutError as error:
            journal.write(type(error).__name__)
            journal.write(round(time.monotonic() - begun, 1))
        conn.sendall(conn.readline())

    client = house(handle).client()
    dripped = 0
    while journal.is_empty():
        client.sendall(b"x")
        dripped += 1
        client.hears_nothing(0.02)
    assert dripped > 5
    assert journal.read() == "TimeoutError"
    assert 0.3 <= float(journal.read()) <= 0.5
    client.sendall(b"still here\n")
    assert client.rest().endswith(b"still here\n")


# Idle


def test_idle_client_is_ended_and_a_farewell_reaches_it(house: Open) -> None:
    def handle(conn: Connection) -> None:
        try:
            conn.recv(1)
        except ConnectionEnded as error:
            conn.sendall(f"ended: {error.cause}".encode())

    opened = house(handle, idle_timeout=SHORT)
    begun = time.monotonic()
    assert opened.client().rest() == b"ended: idle"
    assert SHORT <= time.monotonic() - begun < SHORT + FAREWELL
    assert opened.cause() is Cause.IDLE


@pytest.mark.tls_families  # long, so over TLS it is left to `make test-full`
@pytest.mark.families("tcp4")
def test_idle_deadline_starts_anew_with_every_byte(house: Open) -> None:
    opened = house(echo_lines, idle_timeout=0.3)
    client = opened.client()
    begun = time.monotonic()
    while time.monotonic() - begun < 0.7:
        assert client.ask(b"ping\n") == b"ping\n"
        assert client.hears_nothing(0.1)
    assert client.rest() == b""


def test_idle_deadline_does_not_count_the_time_of_the_handler(house: Open, journal: Journal) -> None:
    def compute(conn: Connection) -> None:
        conn.readline()
        until = time.monotonic() + 3 * SHORT
        while time.monotonic() < until:
            sum(range(1000))
        conn.sendall(b"done\n")
        conn.sendall(conn.readline())

    client = house(compute, idle_timeout=SHORT).client()
    client.sendall(b"compute\nmore\n")
    assert client.rest() == b"done\nmore\n"


@pytest.mark.tls_families  # long, so over TLS it is left to `make test-full`
@pytest.mark.families("tcp4")
def test_farewell_ends_after_a_second(house: Open, journal: Journal) -> None:
    def talk_on(conn: Connection) -> None:
        begun = time.monotonic()
        try:
            conn.recv(1)
        except ConnectionEnded:
            pass
        try:
            while time.monotonic() - begun < SOON:
                conn.sendall(b"and another thing\n")
        except ConnectionEnded as error:
            journal.write(error.cause)

    client = house(talk_on, idle_timeout=SHORT).client()
    begun = time.monotonic()
    while client.recv(1 << 20):
        pass
    assert journal.read() == "idle"
    assert FAREWELL * 0.9 < time.monotonic() - begun < SHORT + FAREWELL + 1.0
    client.close()


# What a handler swallows


def swallow(conn: Connection) -> None:
    while True:
        try:
            if not conn.recv(100):
                return
        except TimeoutError:
            continue


def swallow_own_timeouts(conn: Connection) -> None:
    conn.settimeout(0.03)
    swallow(conn)


def swallow_and_set_anew(conn: Connection) -> None:
    while True:
        try:
            conn.settimeout(0.03)
            if not conn.rfile.readline():
                return
        except TimeoutError:
            continue


def swallow_nested(conn: Connection) -> None:
    while True:
        try:
            with conn.deadline(0.03):
                if not conn.readline():
                    return
        except OSError:
            continue


@pytest.mark.families("tcp4", "unix")
@pytest.mark.parametrize("handler", [swallow, swallow_own_timeouts, swallow_and_set_anew, swallow_nested])
@pytest.mark.parametrize(
    ("settings", "cause"),
    [({"idle_timeout": SHORT}, Cause.IDLE), ({"lifetime": SHORT}, Cause.LIFETIME)],
    ids=["idle", "lifetime"],
)
def test_swallowed_timeouts_do_not_outlive_a_final_deadline(
    house: Open, handler: Callable[[Connection], None], settings: dict[str, float], cause: Cause
) -> None:
    opened = house(handler, **settings)
    begun = time.monotonic()
    with opened.client() as client:
        assert client.is_cut()
    event = opened.end()
    assert event.cause is cause
    assert time.monotonic() - begun < SHORT + FAREWELL + 0.5
    assert event.handled < SHORT + FAREWELL + 0.5
    assert opened.is_quiet()


@pytest.mark.families("tcp4")
@pytest.mark.parametrize("handler", [swallow, swallow_own_timeouts, swallow_and_set_anew, swallow_nested])
def test_swallowed_timeouts_do_not_hold_up_a_drain(house: Open, handler: Callable[[Connection], None]) -> None:
    opened = house(handler)
    client = opened.client()
    client.sendall(b"a line\n")
    begun = time.monotonic()
    drain = opened.drain(SOON)
    assert client.rest() == b""
    assert drain.result()
    assert time.monotonic() - begun < 2.0


# First data, message, lifetime


@pytest.mark.runners("inline", "threads", "fibers")
def test_mute_client_costs_no_thread_and_is_ended(house: Open, journal: Journal) -> None:
    opened = house(lambda conn: journal.write("ran"), wait_for_data=True, first_data_timeout=SHORT)
    assert opened.client().rest() == b""
    event = opened.end()
    assert (event.cause, event.phase) == (Cause.FIRST_DATA, Phase.WAITING)
    assert journal.is_empty()


def test_client_that_speaks_is_served_while_mute_ones_wait(house: Open) -> None:
    opened = house(echo_lines, wait_for_data=True, first_data_timeout=SOON)
    mute = opened.client()
    client = opened.client()
    assert client.ask(b"hello\n") == b"hello\n"
    client.close()
    assert mute.ask(b"me too\n") == b"me too\n"


def test_first_data_deadline_ends_with_the_first_byte(house: Open) -> None:
    client = house(echo_lines, wait_for_data=True, first_data_timeout=SHORT).client()
    assert client.ask(b"quick\n") == b"quick\n"
    assert client.hears_nothing(2 * SHORT)
    assert client.ask(b"slow\n") == b"slow\n"


def read_line(conn: Connection) -> None:
    conn.readline()


def read_block(conn: Connection) -> None:
    conn.read_exactly(10_000)


def read_until(conn: Connection) -> None:
    conn.read_until(b"\r\n\r\n")


def read_from_file(conn: Connection) -> None:
    conn.rfile.read(10_000)


@pytest.mark.tls_families  # long, so over TLS it is left to `make test-full`
@pytest.mark.parametrize("handler", [read_line, read_block, read_until, read_from_file])
@pytest.mark.families("tcp4")
def test_dripped_message_is_ended(house: Open, handler: Callable[[Connection], None]) -> None:
    opened = house(handler, message_timeout=0.3)
    client = opened.client()
    begun = time.monotonic()
    while client.hears_nothing(0.03) and time.monotonic() - begun < SOON:
        client.sendall(b"x")
    assert 0.3 <= time.monotonic() - begun < 1.0
    client.close()
    assert opened.cause() is Cause.MESSAGE_DEADLINE
    assert opened.is_quiet()


@pytest.mark.tls_families  # long, so over TLS it is left to `make test-full`
@pytest.mark.families("tcp4", "unix")
def test_message_deadline_is_for_each_message(house: Open) -> None:
    client = house(echo_lines, message_timeout=0.3).client()
    for _ in range(4):
        client.sendall(b"first half ")
        assert client.hears_nothing(0.15)
        client.sendall(b"second half\n")
        assert client.line() == b"first half second half\n"


# The rate of a message

GRACE = 0.2
RATE = 2000  # bytes a second: a byte in 30 ms is far below, 200 are far above


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate is asked for after a moment instead of five seconds."""
    monkeypatch.setattr(careful, "RATE_GRACE", GRACE)


@pytest.mark.tls_families  # long, so over TLS it is left to `make test-full`
@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("handler", [read_line, read_block, read_until, read_from_file])
@pytest.mark.families("tcp4")
@pytest.mark.runners("threads", "fibers")
def test_message_below_the_rate_is_ended(house: Open, handler: Callable[[Connection], None]) -> None:
    opened = house(handler, min_rate=RATE)
    client = opened.client()
    begun = time.monotonic()
    client.sendall(b"x")
    while client.hears_nothing(0.03) and time.monotonic() - begun < SOON:
        client.sendall(b"x")
    assert GRACE <= time.monotonic() - begun < GRACE + 1.0
    client.close()
    event = opened.end()
    assert (event.cause, event.phase) == (Cause.MIN_RATE, Phase.HANDLER)
    assert opened.is_quiet()


@pytest.mark.tls_families  # long, so over TLS it is left to `make test-full`
@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("handler", [read_line, read_block])
@pytest.mark.families("tcp4")
@pytest.mark.runners("threads", "fibers")
def test_message_that_came_fast_and_stops_is_ended_when_its_bytes_are_spent(
    house: Open, handler: Callable[[Connection], None]
) -> None:
    opened = house(handler, min_rate=RATE)
    client = opened.client()
    begun = time.monotonic()
    client.sendall(b"x" * (RATE // 2))
    assert client.rest() == b""
    assert GRACE + 0.5 <= time.monotonic() - begun < GRACE + 1.5
    assert opened.cause() is Cause.MIN_RATE


def echo_blocks(conn: Connection) -> None:
    while True:
        conn.sendall(conn.read_exactly(6000))


@pytest.mark.tls_families  # long, so over TLS it is left to `make test-full`
@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("handler", [echo_lines, echo_blocks])
@pytest.mark.families("tcp4")
@pytest.mark.runners("threads", "fibers")
def test_message_above_the_rate_may_take_longer_than_the_grace(
    house: Open, handler: Callable[[Connection], None]
) -> None:
    client = house(handler, min_rate=RATE).client()
    message = b"x" * 5999 + b"\n"
    begun = time.monotonic()
    for start in range(0, len(message), 200):
        client.sendall(message[start : start + 200])
        if start < len(message) - 200:
            assert client.hears_nothing(0.02)
    assert client.receive(len(message)) == message
    assert time.monotonic() - begun > 2 * GRACE


@pytest.mark.usefixtures("hasty")
@pytest.mark.families("tcp4")
@pytest.mark.runners("threads", "fibers")
def test_rate_that_only_observes_is_told_once_and_ends_nobody(house: Open) -> None:
    opened = house(echo_lines, min_rate=RATE, observe_only=("min_rate",))
    seen: list[RefusalObserved] = []
    opened.server.events.subscribe(seen.append, RefusalObserved)
    client = opened.client()
    for message in (b"slow\n", b"and slow again\n"):
        client.sendall(message[:1])
        assert client.hears_nothing(2 * GRACE)
        client.sendall(message[1:])
        assert client.receive(len(message)) == message
    assert [event.cause for event in seen] == [Cause.MIN_RATE]


@pytest.mark.tls_families  # long, so over TLS it is left to `make test-full`
@pytest.mark.usefixtures("hasty")
@pytest.mark.families("tcp4")
@pytest.mark.runners("threads", "fibers")
def test_rate_asks_nothing_between_messages(house: Open) -> None:
    client = house(echo_lines, min_rate=RATE).client()
    for _ in range(2):
        assert client.ask(b"quick\n") == b"quick\n"
        assert client.hears_nothing(2 * GRACE)


@pytest.mark.tls_families  # long, so over TLS it is left to `make test-full`
@pytest.mark.usefixtures("hasty")
@pytest.mark.families("tcp4")
@pytest.mark.runners("threads", "fibers")
def test_deadline_of_the_message_comes_first_where_it_is_shorter(house: Open) -> None:
    opened = house(read_line, min_rate=1, message_timeout=SHORT)
    client = opened.client()
    client.sendall(b"x")
    assert client.rest() == b""
    assert opened.cause() is Cause.MESSAGE_DEADLINE


def test_lifetime_ends_a_busy_connection(house: Open) -> None:
    opened = house(echo_lines, lifetime=0.3)
    begun = time.monotonic()  # before the connection exists, whose life it is
    client = opened.client()
    try:
        while client.ask(b"busy\n") == b"busy\n":
            assert time.monotonic() - begun < SOON
    except ConnectionError:
        pass
    assert 0.3 <= time.monotonic() - begun < 1.0
    client.close()
    assert opened.cause() is Cause.LIFETIME


# Writing


def send_much(conn: Connection) -> None:
    conn.sendall(b"x" * 20_000_000)


@pytest.mark.families("tcp4", "unix")
def test_peer_that_never_reads_is_ended(house: Open) -> None:
    opened = house(send_much, write_timeout=0.3)
    client = opened.client()
    event = opened.end()
    assert event.cause is Cause.WRITE_STALLED
    assert event.handled < 2.0
    client.close()


@pytest.mark.families("tcp4", "unix")
def test_peer_that_reads_slowly_is_not_cut(house: Open, journal: Journal) -> None:
    """Each pause is shorter than the deadline; the time until `poll` calls the socket writable is much longer."""

    def handle(conn: Connection) -> None:
        conn.sendall(b"x" * 8_000_000)
        journal.write("sent")

    opened = house(handle, write_timeout=0.3)
    with opened.client(receive_buffer=64 * 1024) as client:
        read = 0
        begun = time.monotonic()
        while time.monotonic() - begun < 1.0:
            read += len(client.receive(100_000))
            assert journal.stays_empty(0.1)
        assert opened.server.connections[0].cause is None
        assert len(client.rest()) == 8_000_000 - read
    assert journal.read() == "sent"
    assert opened.cause() is Cause.HANDLER_DONE


def test_timeout_of_a_write_may_be_taken_up_again(house: Open, journal: Journal) -> None:
    def handle(conn: Connection) -> None:
        conn.settimeout(0.05)
        rest, timeouts = memoryview(b"x" * 8_000_000), 0
        while rest:
            try:
                rest = rest[conn.send(rest) :]
            except TimeoutError:
                timeouts += 1
                if timeouts == 2:
                    journal.write("waits")

    client = house(handle).client()
    assert journal.read() == "waits"
    assert len(client.rest()) == 8_000_000
