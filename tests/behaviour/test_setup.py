"""Setup: PROXY headers and TLS handshakes of friends, strangers, the slow and the mute, under every runner."""

import ssl
import threading
from typing import Any

import pytest

from moorage import Connection
from moorage.events import Cause, Phase, RefusalObserved
from support.certificates import certificates, client_context
from support.client import Client
from support.house import Background, House, Journal, Open
from support.sockets import open_fds
from support.waiting import eventually

LOOPBACK = {"proxy_trusted": ("127.0.0.1", "::1")}
REQUIRED = {"proxy_protocol": "required", **LOOPBACK}
OPTIONAL = {"proxy_protocol": "optional", **LOOPBACK}
TLS = {"tls_cert": certificates().server.cert, "tls_key": certificates().server.key}

LINE = b"PROXY TCP4 198.51.100.7 203.0.113.9 5000 443\r\n"
BLOCK = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([198, 51, 100, 7, 203, 0, 113, 9]) + b"\x13\x88\x01\xbb"
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
CLAIMED = b"('198.51.100.7', 5000) ('203.0.113.9', 443)\n"

plain = pytest.mark.security("plain")
tls = pytest.mark.security("tls")
tcp4 = pytest.mark.families("tcp4")
both = pytest.mark.families("tcp4", "unix")


def echo(conn: Connection) -> None:
    while data := conn.recv(8192):
        conn.sendall(data)


def introduce(conn: Connection) -> None:
    """Whom the handler takes the client for, then an echo."""
    conn.sendall(f"{conn.peer} {conn.local}\n".encode())
    echo(conn)


class Peer:
    """A TLS client whose flights the test carries over a plain socket."""

    def __init__(self, client: Client, context: ssl.SSLContext | None = None) -> None:
        self.client = client
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = (context or client_context()).wrap_bio(self._in, self._out, server_hostname="localhost")

    def flight(self) -> bytes:
        """What it says next, after all that it has heard."""
        self._goes_on()
        return self._out.read()

    def last_flight(self) -> bytes:
        """What ends the handshake, after the server's part has come."""
        while not self._goes_on():
            self._hear()
        return self._out.read()

    def encrypted(self, data: bytes) -> bytes:
        self.session.write(data)
        return self._out.read()

    def receive(self, size: int) -> bytes:
        """Exactly so many bytes of plain text."""
        data = b""
        while len(data) < size:
            try:
                data += self.session.read(size - len(data))
            except ssl.SSLWantReadError:
                self._hear()
        return data

    def ask(self, data: bytes) -> bytes:
        self.client.sendall(self.encrypted(data))
        return self.receive(len(data))

    def shake_hands(self) -> None:
        self.client.sendall(self.flight())
        self.client.sendall(self.last_flight())

    def _goes_on(self) -> bool:
        try:
            self.session.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def _hear(self) -> None:
        data = self.client.recv(65536)
        assert data, "the server has left"
        self._in.write(data)


def send_bytewise(client: Client, data: bytes) -> None:
    for byte in data:
        client.sendall(bytes([byte]))


def know_that_the_watch_has_turned(opened: House, header: bytes = b"") -> None:
    """Whatever was sent before was seen: a client that came later was served."""
    with Client(opened.server.address) as client:
        if opened.place.security == "tls":
            peer = Peer(client)
            client.sendall(header)
            peer.shake_hands()
            assert peer.ask(b"x") == b"x"
        else:
            client.sendall(header + b"x")
            assert client.line()
            assert client.receive(1) == b"x"


def tickets_out(opened: House) -> int:
    taken: int = opened.server._gate.taken  # type: ignore[attr-defined]  # that of a server alone
    return taken


def ends(opened: House, count: int) -> list[tuple[Cause, Phase]]:
    """How the next so many connections ended, sorted."""
    return sorted((event.cause, event.phase) for event in (opened.end() for _ in range(count)))


# The TLS handshake


@tls
def test_handshake_may_come_byte_by_byte(house: Open) -> None:
    opened = house(echo)
    peer = Peer(opened.raw_client())
    send_bytewise(peer.client, peer.flight())
    send_bytewise(peer.client, peer.last_flight())
    assert peer.ask(b"hello") == b"hello"
    peer.client.close()
    assert opened.cause() is Cause.PEER_CLOSED
    assert opened.setup_failures() == 0


@tls
def test_what_comes_with_the_last_flight_is_not_lost(house: Open) -> None:
    opened = house(echo, wait_for_data=True)
    peer = Peer(opened.raw_client())
    peer.client.sendall(peer.flight())
    peer.client.sendall(peer.last_flight() + peer.encrypted(b"early bird"))
    assert peer.receive(10) == b"early bird"


@tls
def test_client_that_has_shaken_hands_gets_no_handler_before_its_first_byte(house: Open, journal: Journal) -> None:
    def handle(conn: Connection) -> None:
        journal.write("in")
        echo(conn)

    opened = house(handle, wait_for_data=True)
    peer = Peer(opened.raw_client())
    peer.shake_hands()
    assert journal.stays_empty(0.1)
    assert peer.ask(b"hello") == b"hello"
    assert journal.read() == "in"


@tls
@pytest.mark.parametrize("sent", [b"", b"\x16", b"\x16\x03\x01\x02"])
def test_client_that_does_not_shake_hands_is_ended_by_the_deadline(house: Open, sent: bytes) -> None:
    opened = house(echo, setup_timeout=0.3)
    client = opened.raw_client()
    client.sendall(sent)
    assert client.is_cut()
    event = opened.end()
    assert (event.cause, event.phase) == (Cause.SETUP_DEADLINE, Phase.TLS)
    failure = opened.setup_failure()
    assert (failure.id, failure.cause) == (event.id, Cause.SETUP_DEADLINE)
    assert ("no byte came" in failure.reason) == (not sent)


@tls
def test_client_that_stops_between_two_flights_is_ended_by_the_deadline(house: Open) -> None:
    opened = house(echo, setup_timeout=0.5)
    peer = Peer(opened.raw_client())
    peer.client.sendall(peer.flight())
    peer.last_flight()  # which is not sent
    assert opened.cause() is Cause.SETUP_DEADLINE
    assert opened.setup_failure().reason == "the TLS handshake was begun and not finished"


@tls
def test_plain_http_at_a_port_of_tls_is_an_error_with_its_reason(house: Open) -> None:
    opened = house(echo)
    client = opened.raw_client()
    client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert client.is_cut()
    event = opened.end()
    assert (event.cause, event.phase) == (Cause.TLS_ERROR, Phase.TLS)
    assert opened.setup_failure().reason == "plain HTTP came to a port of TLS (http request)"


@tls
def test_client_that_is_too_old_is_told_by_an_alert(house: Open) -> None:
    opened = house(echo, tls_min_version="1.3")
    context = client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    peer = Peer(opened.raw_client(), context)
    peer.client.sendall(peer.flight())
    with pytest.raises(ssl.SSLError, match="protocol version"):
        peer.last_flight()
    peer.client.close()
    assert opened.cause() is Cause.TLS_ERROR
    assert "tls_min_version" in opened.setup_failure().reason


@tls
@tcp4
@pytest.mark.parametrize("flights", [0, 1])
def test_client_that_resets_in_the_middle_is_no_failure(house: Open, flights: int) -> None:
    opened = house(echo)
    peer = Peer(opened.raw_client())
    if flights:
        peer.client.sendall(peer.flight())
        peer.last_flight()
    peer.client.reset()
    event = opened.end()
    assert (event.cause, event.phase) == (Cause.RESET, Phase.TLS)
    assert opened.setup_failures() == 0


@pytest.mark.parametrize("settings", [{}, REQUIRED], ids=["", "proxy"])
def test_health_check_that_connects_and_closes_is_no_failure(house: Open, settings: dict[str, Any]) -> None:
    opened = house(echo, **settings)
    opened.raw_client().close()
    assert opened.cause() is Cause.PEER_CLOSED
    assert opened.setup_failures() == 0
    assert opened.is_quiet()


# The PROXY header


@plain
@both
@pytest.mark.parametrize("header", [LINE, BLOCK], ids=["v1", "v2"])
def test_header_names_the_client_however_it_is_cut(house: Open, header: bytes) -> None:
    opened = house(introduce, **OPTIONAL)
    cuts = range(1, len(header), 1 if opened.place.runner != "forks" else 5)
    clients = [opened.raw_client() for _ in cuts]
    for client, cut in zip(clients, cuts, strict=True):
        client.sendall(header[:cut])
    know_that_the_watch_has_turned(opened, header)
    for client, cut in zip(clients, cuts, strict=True):
        client.sendall(header[cut:] + b"hello")
    for client in clients:
        assert client.line() == CLAIMED
        assert client.receive(5) == b"hello"
        client.close()
    assert {opened.cause() for _ in range(len(clients) + 1)} == {Cause.PEER_CLOSED}


@plain
@tcp4
def test_header_from_a_stranger_is_refused_before_it_is_read(house: Open) -> None:
    opened = house(introduce, proxy_protocol="required", proxy_trusted=("192.0.2.0/24",))
    client = opened.raw_client()
    assert client.is_cut()
    event = opened.end()
    assert (event.cause, event.phase) == (Cause.PROXY_ERROR, Phase.PROXY)
    assert "not in proxy_trusted" in opened.setup_failure().reason


@plain
@tcp4
def test_stranger_is_served_without_a_header_and_refused_with_one_where_it_is_optional(house: Open) -> None:
    opened = house(introduce, proxy_protocol="optional", proxy_trusted=("192.0.2.0/24",))
    honest = opened.raw_client()
    honest.sendall(b"hello")
    assert str(honest.getsockname()[:2])[:-1].encode() in honest.line()
    assert honest.receive(5) == b"hello"
    honest.close()
    liar = opened.raw_client()
    liar.sendall(LINE)
    assert liar.is_cut()
    assert ends(opened, 2) == [(Cause.PEER_CLOSED, Phase.HANDLER), (Cause.PROXY_ERROR, Phase.PROXY)]
    assert "not in proxy_trusted" in opened.setup_failure().reason


@plain
@both
def test_connection_of_the_load_balancer_itself_keeps_its_peer(house: Open) -> None:
    opened = house(introduce, **REQUIRED)
    client = opened.raw_client()
    client.sendall(LOCAL)
    name = "" if opened.place.family == "unix" else client.getsockname()
    assert client.line().startswith(f"{name} ".encode())


@plain
@both
@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4 1.2.3.4\r\n", b"\r\n\r\n\0\r\nQUIT\n\xff\xff\xff\xff"]
)
def test_garbage_in_the_place_of_a_header_is_refused(house: Open, garbage: bytes) -> None:
    opened = house(introduce, **REQUIRED)
    client = opened.raw_client()
    client.sendall(garbage)
    assert client.is_cut()
    event = opened.end()
    assert (event.cause, event.phase) == (Cause.PROXY_ERROR, Phase.PROXY)
    assert "PROXY" in opened.setup_failure().reason


@plain
@both
@pytest.mark.parametrize("sent", [b"", b"PROXY TCP4"])
def test_header_that_does_not_come_is_waited_for_until_the_deadline(house: Open, sent: bytes) -> None:
    opened = house(introduce, **REQUIRED, setup_timeout=0.3)
    client = opened.raw_client()
    client.sendall(sent)
    assert client.is_cut()
    event = opened.end()
    assert (event.cause, event.phase) == (Cause.SETUP_DEADLINE, Phase.PROXY)
    assert "PROXY header" in opened.setup_failure().reason


@tls
@pytest.mark.parametrize("mode", [REQUIRED, OPTIONAL], ids=["required", "optional"])
def test_header_and_hello_may_come_in_one_packet(house: Open, mode: dict[str, Any]) -> None:
    opened = house(introduce, **mode)
    peer = Peer(opened.raw_client())
    peer.client.sendall(LINE + peer.flight())
    peer.client.sendall(peer.last_flight())
    assert peer.receive(len(CLAIMED)) == CLAIMED
    assert peer.ask(b"hello") == b"hello"


@plain
@both
@pytest.mark.runners("threads", "fibers", "forks")
def test_limit_of_a_client_counts_whom_the_header_names(house: Open) -> None:
    opened = house(introduce, **REQUIRED, max_per_client=1)

    def come(host: str) -> Client:
        client = opened.raw_client()
        client.sendall(LINE.replace(b"198.51.100.7", host.encode()))
        return client

    first, other = come("198.51.100.7"), come("198.51.100.8")
    assert first.line() == CLAIMED
    assert other.line()
    assert come("198.51.100.7").is_cut()
    event = opened.end()
    assert (event.cause, event.phase) == (Cause.REFUSED_CLIENT, Phase.PROXY)
    assert event.peer == ("198.51.100.7", 5000)
    first.close()
    assert opened.cause() is Cause.PEER_CLOSED
    assert come("198.51.100.7").line() == CLAIMED


@plain
@both
def test_rule_denies_whom_the_header_names(house: Open) -> None:
    opened = house(introduce, **REQUIRED, deny=("198.51.100.0/24",))
    client = opened.raw_client()
    client.sendall(LINE)
    assert client.is_cut()
    event = opened.end()
    assert (event.cause, event.phase) == (Cause.DENIED, Phase.PROXY)
    know_that_the_watch_has_turned(opened, LINE.replace(b"198.51.100.7", b"192.0.2.1"))


@plain
@both
def test_limit_that_only_observes_lets_the_client_in_and_says_so(house: Open) -> None:
    opened = house(introduce, **REQUIRED, deny=("198.51.100.0/24",), observe_only=("rules",))
    seen = opened.server.events.queue(10, RefusalObserved)
    client = opened.raw_client()
    client.sendall(LINE)
    assert client.line() == CLAIMED
    event = seen.get(20)
    assert event == RefusalObserved(("198.51.100.7", 5000), Cause.DENIED)


# Many


@tls
@pytest.mark.families("tcp4")
def test_stalled_handshakes_do_not_hold_up_a_good_client(house: Open) -> None:
    opened = house(echo, threads=8, max_connections=300)
    stalled = [Peer(opened.raw_client()) for _ in range(200)]
    for number, peer in enumerate(stalled):
        peer.client.sendall(peer.flight()[: None if number % 2 else 100])
    good = Peer(opened.raw_client())
    good.shake_hands()
    assert good.ask(b"hello") == b"hello"
    assert len([thread for thread in threading.enumerate() if thread.name.startswith("moorage-setup")]) <= 2
    last = stalled[-1]
    last.client.sendall(last.last_flight())
    if opened.place.runner != "inline":  # where the good client is served still
        assert last.ask(b"late") == b"late"


@tls
@pytest.mark.runners("threads")
def test_handshakes_are_made_while_every_thread_has_a_handler(house: Open, journal: Journal) -> None:
    def handle(conn: Connection) -> None:
        journal.write("in")
        echo(conn)

    opened = house(handle, threads=1)
    first, second = Peer(opened.raw_client()), Peer(opened.raw_client())
    first.shake_hands()
    assert journal.read() == "in"
    second.shake_hands()
    assert second.session.version() == "TLSv1.3"
    first.client.close()
    assert second.ask(b"hello") == b"hello"


# The end of the server


def arrive(opened: House, header: bytes = b"") -> list[Client]:
    """A mute client, one that has begun, and one that waits between two flights."""
    mute, begun, waiting = (opened.raw_client() for _ in range(3))
    peer = Peer(waiting)
    begun.sendall(header + peer.flight()[:20])
    waiting.sendall(header + peer.flight() if header else Peer(waiting).flight())
    return [mute, begun, waiting]


@tls
@pytest.mark.parametrize("settings", [{}, REQUIRED], ids=["", "proxy"])
def test_close_in_the_middle_of_setups_leaves_nothing(house: Open, settings: dict[str, Any]) -> None:
    before = open_fds()
    opened = house(echo, **settings)
    clients = arrive(opened, LINE if settings else b"")
    know_that_the_watch_has_turned(opened, LINE if settings else b"")
    assert opened.cause() is Cause.PEER_CLOSED
    opened.server.close()
    assert [cause for cause, _ in ends(opened, 3)] == [Cause.CLOSED_BY_OPERATOR] * 3
    assert opened.setup_failures() == 0
    assert tickets_out(opened) == 0
    for client in clients:
        client.close()
    eventually(lambda: not {fd for fd in open_fds() - before if "socket" in fd or "event" in fd})


@tls
def test_drain_tells_mute_clients_and_lets_the_others_finish(house: Open) -> None:
    opened = house(echo)
    mute, slow = opened.raw_client(), Peer(opened.raw_client())
    hello = slow.flight()
    slow.client.sendall(hello[:100])
    know_that_the_watch_has_turned(opened)
    assert opened.cause() is Cause.PEER_CLOSED
    drain = opened.drain()
    assert mute.is_cut()
    event = opened.end()
    assert (event.cause, event.phase) == (Cause.DRAINED, Phase.TLS)
    slow.client.sendall(hello[100:])
    slow.client.sendall(slow.last_flight())
    assert slow.ask(b"hello") == b"hello"
    slow.client.close()
    assert drain.result()
    assert opened.setup_failures() == 0
    assert tickets_out(opened) == 0


@tls
def test_drain_cuts_whoever_is_still_in_its_setup_at_the_deadline(house: Open) -> None:
    opened = house(echo)
    slow = opened.raw_client()
    slow.sendall(b"\x16\x03\x01\x02")
    know_that_the_watch_has_turned(opened)
    assert opened.cause() is Cause.PEER_CLOSED
    drain = opened.drain(0.3)
    assert slow.is_cut()
    event = opened.end()
    assert (event.cause, event.phase) == (Cause.DRAIN_DEADLINE, Phase.TLS)
    assert not drain.result()
    assert tickets_out(opened) == 0


@tls
def test_lifetime_ends_a_connection_in_its_setup(house: Open) -> None:
    opened = house(echo, lifetime=0.3)
    client = opened.raw_client()
    client.sendall(b"\x16")
    assert client.is_cut()
    event = opened.end()
    assert (event.cause, event.phase) == (Cause.LIFETIME, Phase.TLS)
    assert opened.setup_failures() == 0


@tls
def test_idle_deadline_begins_with_the_handler(house: Open) -> None:
    opened = house(echo, idle_timeout=0.2, setup_timeout=0.6)
    client = opened.raw_client()
    assert client.is_cut()
    assert opened.cause() is Cause.SETUP_DEADLINE


@tls
def test_operator_ends_a_connection_in_its_setup_at_once(house: Open) -> None:
    opened = house(echo)
    client = opened.raw_client()
    [connection] = eventually(lambda: opened.server.connections)
    ending = Background(connection.end)
    assert client.is_cut()
    ending.result()
    event = opened.end()
    assert (event.cause, event.phase) == (Cause.CLOSED_BY_OPERATOR, Phase.TLS)
    assert opened.server.wait_for_connections(0, 20)
