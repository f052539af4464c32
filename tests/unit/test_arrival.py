"""Arrival: header and handshake in pieces of any size, every end, and nothing left behind."""

import gc
import select
import ssl
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from moorage.arrival import Arrival
from moorage.connection import Connection
from moorage.events import Cause, ConnectionClosed, Phase, SetupFailed, TlsEstablished
from moorage.refusal import LINGERING_REFUSED
from moorage.state import PROXY, TLS
from moorage.transport.proxy import ProxyParser
from moorage.transport.tls import Session
from support.arrivals import PEER, Arriving, FakeDoor, Place
from support.certificates import client_context
from support.sockets import read_all, reset, shrink

CLIENT = ("198.51.100.7", 5000)
HEADER = b"PROXY TCP4 198.51.100.7 203.0.113.9 5000 443\r\n"
BLOCK = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([198, 51, 100, 7, 203, 0, 113, 9]) + b"\x13\x88\x01\xbb"
#: a checksum that is wrong
BROKEN = BLOCK[:14] + b"\x00\x13" + BLOCK[16:] + b"\x03\x00\x04bad!"
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
UNSPECIFIED = b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0"


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    places: list[Place] = []

    def make(*arguments: Any, **settings: Any) -> Place:
        places.append(Place(*arguments, **settings))
        monkeypatch.setattr("moorage.arrival.monotonic", places[-1].watch.clock)
        return places[-1]

    yield make
    for one in places:
        one.close()


def is_passed_on(arriving: Arriving) -> bool:
    """Whether it is set up, with nothing of the setup left."""
    assert not arriving.is_parked
    assert arriving.place.live_timers() == 0
    assert arriving.connection.cause is None
    return arriving.place.done == [arriving.connection]


# The PROXY header


def test_header_says_who_the_client_is(place: Any) -> None:
    one = place("required").arrive()
    assert one.connection.state is PROXY
    one.send(HEADER + b"hello")
    assert is_passed_on(one)
    assert one.connection.peer == CLIENT
    assert one.connection.local == ("203.0.113.9", 443)
    assert (one.connection.proxy.source, one.connection.proxy.via) == (CLIENT, PEER)
    assert one.connection._buffer == b"hello"
    assert one.connection.bytes_received == 5


@pytest.mark.parametrize("header", [HEADER, BLOCK, LOCAL], ids=["line", "block", "local"])
def test_header_may_come_byte_by_byte(place: Any, header: bytes) -> None:
    one = place("required").arrive()
    one.send_bytewise(header + b"x")
    assert is_passed_on(one)
    assert one.connection._buffer == b""


@pytest.mark.parametrize("cut", range(1, len(HEADER)))
def test_header_may_be_cut_anywhere(place: Any, cut: int) -> None:
    one = place("optional").arrive()
    one.send(HEADER[:cut])
    assert one.place.done == []
    one.send(HEADER[cut:] + b"rest")
    assert is_passed_on(one)
    assert (one.connection.peer, one.connection._buffer) == (CLIENT, b"rest")


@pytest.mark.parametrize("header", [LOCAL, b"PROXY UNKNOWN\r\n"], ids=["local", "unknown"])
def test_header_that_names_nobody_leaves_the_real_peer(place: Any, header: bytes) -> None:
    one = place("required").arrive()
    one.send(header)
    assert is_passed_on(one)
    assert one.connection.peer == PEER
    assert one.connection.proxy.via == PEER


def test_header_from_a_stranger_is_refused_before_a_byte_is_read(place: Any) -> None:
    one = place("required").arrive(peer=("203.0.113.5", 1))
    assert one.failed(Cause.PROXY_ERROR) == "203.0.113.5 is not in proxy_trusted, and a PROXY header is required"
    assert one.closed().phase is Phase.PROXY


def test_stranger_without_a_header_is_served_where_it_is_optional(place: Any) -> None:
    one = place("optional").arrive(peer=("203.0.113.5", 1))
    one.send(b"GET")
    assert is_passed_on(one)
    assert (one.connection.peer, one.connection._buffer, one.connection.proxy) == (("203.0.113.5", 1), b"GET", None)


@pytest.mark.parametrize(
    "begin",
    [HEADER, b"PROXY ", BLOCK[:12], BROKEN, b"PROXY TCP9"],
    ids=["line", "word", "signature", "checksum", "bad"],
)
def test_stranger_with_a_header_is_refused_where_it_is_optional(place: Any, begin: bytes) -> None:
    one = place("optional").arrive(peer=("203.0.113.5", 1))
    one.send(begin)
    assert one.failed(Cause.PROXY_ERROR) == "a PROXY header came from 203.0.113.5, which is not in proxy_trusted"


def test_nobody_is_trusted_when_nobody_is_named(place: Any) -> None:
    one = place("required", trusted=()).arrive()
    assert "not in proxy_trusted" in one.failed(Cause.PROXY_ERROR)


def test_peer_on_a_unix_socket_is_trusted(place: Any) -> None:
    one = place("required", trusted=()).arrive("unix", peer="")
    one.send(HEADER)
    assert is_passed_on(one)
    assert one.connection.peer == CLIENT
    assert one.connection.proxy.via == ""


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4 x y 1 2\r\n", b"\r\n\r\n\0\r\nQUIT\n\x31\0\0\0"]
)
def test_garbage_in_the_place_of_a_header_is_refused(place: Any, garbage: bytes) -> None:
    one = place("required").arrive()
    one.send(garbage)
    assert "PROXY" in one.failed(Cause.PROXY_ERROR)


def test_end_in_the_middle_of_a_header_is_its_error(place: Any) -> None:
    one = place("required").arrive()
    one.send(b"PROXY TCP4")
    one.leave()
    assert "after 10 bytes" in one.failed(Cause.PROXY_ERROR)


def test_end_before_it_is_decided_leaves_the_bytes_to_the_handler(place: Any) -> None:
    one = place("optional").arrive()
    one.send(b"PRO")
    one.leave()
    assert is_passed_on(one)
    assert one.connection._buffer == b"PRO"


# Who may come in


def test_claimed_client_gets_the_ticket_of_the_door(place: Any) -> None:
    one = place("required", door=FakeDoor()).arrive()
    one.send(HEADER)
    assert one.place.door.asked == [CLIENT]
    assert one.connection._ticket.inner is one.ticket
    one.connection.release()
    assert one.ticket.given_back == 1


@pytest.mark.parametrize(
    ("sent", "asked", "is_peer"),
    [
        (HEADER, CLIENT, False),
        (BLOCK, CLIENT, False),
        (b"PROXY TCP4 192.0.2.1 203.0.113.9 4711 443\r\n", PEER, False),  # what a header says is nobody's own word
        (b"PROXY UNKNOWN\r\n", PEER, True),
        (UNSPECIFIED, PEER, True),
        (b"GET /", PEER, True),
    ],
    ids=["line", "block", "itself", "unknown", "unspecified", "no header"],
)
def test_door_is_told_whether_it_has_seen_this_address_before(
    place: Any, sent: bytes, asked: Any, is_peer: bool
) -> None:
    one = place("optional", door=FakeDoor()).arrive()
    one.send(sent)
    assert (one.place.door.asked, one.place.door.told) == ([asked], [is_peer])
    assert is_passed_on(one)


def test_door_is_told_that_who_leaves_before_it_is_decided_is_the_peer(place: Any) -> None:
    one = place("optional", door=FakeDoor()).arrive()
    one.send(b"PRO")
    one.leave()
    assert (one.place.door.asked, one.place.door.told) == ([PEER], [True])


def test_health_check_of_the_load_balancer_is_no_client_of_the_door(place: Any) -> None:
    one = place("required", door=FakeDoor(Cause.REFUSED_RATE)).arrive()
    one.send(LOCAL)
    assert one.place.door.asked == one.place.door.told == []
    assert is_passed_on(one)


def test_claimed_client_that_a_rule_denies_is_closed_at_once(place: Any) -> None:
    one = place("required", door=FakeDoor(Cause.DENIED), overflow="refuse", overflow_message=b"busy").arrive()
    one.send(HEADER)
    assert one.left(Cause.DENIED).peer == CLIENT
    assert read_all(one.peer) == b""


@pytest.mark.parametrize("cause", [Cause.REFUSED_CLIENT, Cause.REFUSED_RATE])
def test_claimed_client_above_a_limit_gets_the_message(place: Any, cause: Cause) -> None:
    one = place("required", door=FakeDoor(cause), overflow="refuse", overflow_message=b"busy").arrive()
    one.send(HEADER + b"unread")
    assert one.ticket.given_back == 1
    assert [sock for sock, _ in one.place.watch.lingering] == [one.connection._sock]
    assert one.place.sink.of(ConnectionClosed) == []
    assert one.left(cause).phase is Phase.PROXY
    assert read_all(one.peer) == b"busy"


def test_claimed_clients_above_a_limit_hold_no_ticket_and_a_bounded_number_of_descriptors(place: Any) -> None:
    here = place("required", door=FakeDoor(Cause.REFUSED_RATE), overflow="refuse", overflow_message=b"busy")
    many = [here.arrive() for _ in range(LINGERING_REFUSED + 2)]
    for one in many:
        one.send(HEADER)
    assert len(here.watch.lingering) == LINGERING_REFUSED
    assert [one.ticket.given_back for one in many] == [1] * len(many)
    assert [event.id for event in here.sink.of(ConnectionClosed)] == [one.connection.id for one in many[-2:]]
    for one in many:
        one.left(Cause.REFUSED_RATE)
        assert read_all(one.peer) == b"busy"
    assert here.home.forgotten == [*(one.connection for one in many[-2:]), *(one.connection for one in many[:-2])]


def test_claimed_client_above_a_limit_does_not_linger_when_there_is_nothing_to_tell(place: Any) -> None:
    one = place("required", door=FakeDoor(Cause.REFUSED_RATE)).arrive()
    one.send(HEADER)
    assert one.place.watch.lingering == []
    assert one.ticket.given_back == 1
    one.left(Cause.REFUSED_RATE)
    assert read_all(one.peer) == b""


def test_clear_text_is_not_said_where_tls_is_spoken(place: Any) -> None:
    door = FakeDoor(Cause.REFUSED_CLIENT)
    one = place("required", tls=True, door=door, overflow="refuse", overflow_message=b"busy").arrive()
    one.send(HEADER)
    one.left(Cause.REFUSED_CLIENT)
    assert read_all(one.peer) == b""


def test_claimed_client_above_a_limit_is_reset_under_reset(place: Any) -> None:
    one = place("required", door=FakeDoor(Cause.REFUSED_CLIENT), overflow="reset").arrive()
    one.send(HEADER)
    one.left(Cause.REFUSED_CLIENT)
    with pytest.raises(ConnectionResetError):
        one.peer.recv(1)


# The TLS handshake


@pytest.mark.parametrize("bytewise", [False, True])
def test_handshake_is_done_in_pieces_of_any_size(place: Any, bytewise: bool) -> None:
    one = place(tls=True).arrive()
    assert one.connection.state is TLS
    client = one.tls()
    client.shake_hands(bytewise=bytewise)
    assert is_passed_on(one)
    assert one.connection.tls.version == client.made.version() == "TLSv1.3"
    assert one.connection.tls.server_name == "localhost"
    [event] = one.place.sink.of(TlsEstablished)
    assert (event.id, event.peer, event.version) == (one.connection.id, PEER, "TLSv1.3")


def test_what_follows_the_last_flight_is_kept_in_the_session(place: Any) -> None:
    one = place(tls=True).arrive()
    client = one.tls()
    one.send(client.flight())
    while not client.is_done():
        client.hear()
    client.made.write(b"early bird")
    one.send(client.outgoing.read())
    assert is_passed_on(one)
    assert one.connection._tls.has_input
    assert one.connection._tls.read(100) == b"early bird"


def test_header_and_hello_may_come_in_one_packet(place: Any) -> None:
    one = place("required", tls=True).arrive()
    client = one.tls()
    one.send(HEADER + client.flight())
    assert one.connection.state is TLS
    while not client.is_done():
        client.hear()
    one.send(client.outgoing.read())
    assert is_passed_on(one)
    assert one.connection.peer == CLIENT
    assert one.connection.bytes_received == 0
    assert one.place.sink.of(TlsEstablished)[0].peer == CLIENT


def test_step_has_the_session_alone(place: Any) -> None:
    one = place(tls=True, at_once=False).arrive()
    one.send(one.tls().flight())
    assert not one.is_parked
    one.place.make_step()
    assert one.is_parked
    assert one.place.steps == []


def test_plain_http_fails_and_says_what_it_was(place: Any) -> None:
    one = place(tls=True).arrive()
    one.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert one.failed(Cause.TLS_ERROR) == "plain HTTP came to a port of TLS (http request)"
    assert one.closed().phase is Phase.TLS


def test_alert_is_sent_before_the_close(place: Any) -> None:
    one = place(tls=True).arrive()
    one.place.listener.certificates.made.minimum_version = ssl.TLSVersion.TLSv1_3
    context = client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    client = one.tls(context=context)
    one.send(client.flight() + b"more that nobody reads")
    assert "below tls_min_version" in one.failed(Cause.TLS_ERROR)
    client.incoming.write(read_all(one.peer))
    with pytest.raises(ssl.SSLError, match="protocol version"):
        client.made.do_handshake()


def test_alert_of_the_client_is_a_failure_with_its_reason(place: Any) -> None:
    one = place(tls=True).arrive()
    client = one.tls(context=ssl.create_default_context())
    one.send(client.flight())
    client.hear()
    with pytest.raises(ssl.SSLCertVerificationError):
        client.made.do_handshake()
    one.send(client.outgoing.read())
    assert "does not trust who signed our certificate" in one.failed(Cause.TLS_ERROR)


def test_error_that_is_not_of_tls_fails_one_connection(place: Any) -> None:
    one = place(tls=True).arrive()
    one.place.listener.certificates.context = lambda: 1 / 0
    one.send(one.tls().flight())
    assert one.failed(Cause.TLS_ERROR) == "ZeroDivisionError: division by zero"


def test_certificate_of_a_client_that_cannot_be_decoded_fails_one_connection(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = place(tls=True).arrive()
    monkeypatch.setattr("moorage.transport.tls.Session.info", property(lambda _: 1 / 0))
    one.tls().shake_hands()
    assert one.failed(Cause.TLS_ERROR) == "ZeroDivisionError: division by zero"


def test_flight_that_the_kernel_does_not_take_waits_until_it_does(place: Any) -> None:
    one = place(tls=True).arrive()
    shrink(one.connection._sock, one.peer)
    filler = b"-" * 65536
    filled = 0
    while select.select([], [one.connection._sock], [], 0.05)[1]:
        filled += one.connection._sock.send(filler, 0x40)
    client = one.tls()
    one.send(client.flight())
    assert one.place.watch.masks[one.fd] == select.EPOLLOUT
    assert one.place.watch.look(0.05) == 0
    while filled:
        filled -= len(one.peer.recv(filled))
        one.place.watch.look(0)
    one.place.watch.look(0.05)
    while not client.is_done():
        client.hear()
    one.send(client.outgoing.read())
    assert is_passed_on(one)


def test_tls_that_the_handler_begins_needs_no_setup(place: Any) -> None:
    one = place(tls=True, mode="starttls").arrive()
    assert is_passed_on(one)
    assert one.connection._certificates is one.place.listener.certificates


# Ends


@pytest.mark.parametrize(("proxy", "tls"), [("required", False), ("optional", True), ("off", True)])
def test_peer_that_leaves_without_a_byte_is_no_failure(place: Any, proxy: str, tls: bool) -> None:
    one = place(proxy, tls=tls).arrive()
    one.leave()
    assert one.left(Cause.PEER_CLOSED).phase is (Phase.TLS if proxy == "off" else Phase.PROXY)


@pytest.mark.parametrize(("proxy", "tls"), [("required", False), ("off", True)])
def test_peer_that_resets_without_a_byte_is_no_failure(place: Any, proxy: str, tls: bool) -> None:
    one = place(proxy, tls=tls).arrive()
    reset(one.peer)
    one.place.watch.wait_parked()
    one.left(Cause.RESET)


def test_peer_that_leaves_in_the_middle_of_the_handshake_is_no_failure(place: Any) -> None:
    one = place(tls=True).arrive()
    one.send(one.tls().flight()[:50])
    one.leave()
    one.left(Cause.PEER_CLOSED)


def test_peer_that_is_gone_before_our_flight_is_no_failure(place: Any) -> None:
    one = place(tls=True, at_once=False).arrive()
    one.send(one.tls().flight())
    reset(one.peer)
    select.select([one.connection._sock], [], [], 20)
    one.place.make_step()
    one.left(Cause.RESET)


@pytest.mark.parametrize(
    ("proxy", "sent", "reason"),
    [
        ("required", b"", "no byte came, and a PROXY header was expected"),
        ("required", b"PROXY", "the PROXY header was begun and not finished"),
        ("off", b"", "no byte came, and a TLS handshake was expected"),
        ("off", b"\x16", "the TLS handshake was begun and not finished"),
        ("required", HEADER, "the TLS handshake was begun and not finished"),
    ],
)
def test_setup_takes_no_longer_than_its_deadline(place: Any, proxy: str, sent: bytes, reason: str) -> None:
    one = place(proxy, tls=True, setup_timeout=10).arrive()
    one.place.watch.pass_time(9)
    if sent:
        one.send(sent)
    assert one.connection.cause is None
    one.place.watch.pass_time(1)
    assert one.failed(Cause.SETUP_DEADLINE) == reason
    assert one.closed().phase is (Phase.TLS if proxy == "off" or sent == HEADER else Phase.PROXY)
    assert read_all(one.peer) == b""


def test_setup_without_a_deadline_waits(place: Any) -> None:
    one = place("required", setup_timeout=None).arrive()
    one.place.watch.pass_time(1e6)
    one.send(HEADER)
    assert is_passed_on(one)


def test_deadline_in_the_middle_of_a_step_ends_it_when_it_comes_back(place: Any) -> None:
    one = place(tls=True, at_once=False, setup_timeout=10).arrive()
    one.send(one.tls().flight())
    one.place.watch.pass_time(10)
    assert one.connection.cause is Cause.SETUP_DEADLINE
    assert one.ticket.given_back == 0
    one.place.make_step()
    assert one.failed(Cause.SETUP_DEADLINE) == "the TLS handshake was begun and not finished"


@pytest.mark.parametrize("verb", ["end", "tell"])
@pytest.mark.parametrize(("proxy", "sent"), [("required", b""), ("off", b""), ("off", b"\x16\x03")])
def test_connection_that_is_ended_meanwhile_is_noticed_at_once(place: Any, proxy: str, sent: bytes, verb: str) -> None:
    one = place(proxy, tls=True).arrive()
    if sent:
        one.send(sent)
    getattr(one.connection, verb)()
    one.place.watch.wait_parked()
    one.left(Cause.DRAINED if verb == "tell" else Cause.CLOSED_BY_OPERATOR)


def test_connection_that_is_ended_during_a_step_is_closed_after_it(place: Any) -> None:
    one = place(tls=True, at_once=False).arrive()
    one.send(one.tls().flight())
    one.connection.end(Cause.LIFETIME)
    assert one.ticket.given_back == 0
    one.place.make_step()
    one.left(Cause.LIFETIME)


def test_connection_that_is_ended_is_not_late_as_well(place: Any) -> None:
    one = place(tls=True, setup_timeout=10).arrive()
    one.connection.end(Cause.LIFETIME)
    one.place.watch.pass_time(10)
    one.place.watch.wait_parked()
    one.left(Cause.LIFETIME)


def test_mute_connection_is_quiet_and_one_that_has_begun_is_not(place: Any) -> None:
    one = place("required", tls=True).arrive()
    assert one.connection.quiet_since() == one.connection._opened_at
    one.send(HEADER)
    assert one.connection.quiet_since() is None


def test_ready_socket_without_a_byte_changes_nothing(place: Any) -> None:
    one = place(tls=True).arrive()
    one.place.watch.parked[one.fd](select.EPOLLIN)
    assert one.is_parked
    assert one.connection.quiet_since() is not None
    assert one.place.sink.of(SetupFailed) == []


# What is left of it


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Weak references to all that was made for setups; what is in a cycle stays there."""
    made: list[Any] = []

    def watch(name: str, kind: type[Any]) -> None:
        class Watched(kind):  # type: ignore[misc]  # a class is to be had at run time alone
            __slots__ = () if hasattr(kind, "__weakref__") else ("__weakref__",)

            def __init__(self, *arguments: Any, **more: Any) -> None:
                super().__init__(*arguments, **more)
                made.append(weakref.ref(self))

        monkeypatch.setattr(name, Watched)

    watch("moorage.setup.Arrival", Arrival)
    watch("moorage.arrival.ProxyParser", ProxyParser)
    watch("moorage.transport.tls.Session", Session)
    watch("support.arrivals.Connection", Connection)
    gc.collect()
    gc.disable()
    yield made
    gc.enable()


def left_over(here: Place, kept: list[Any], count: int) -> list[str]:
    """What lives although nobody needs it."""
    assert len(kept) == count
    here.home.forgotten.clear()
    here.watch.timers.clear()  # the cancelled ones, which a real Watch forgets
    here.done.clear()
    return [type(ref()).__mro__[1].__name__ for ref in kept if ref() is not None]


@pytest.mark.parametrize(
    ("proxy", "tls", "sent", "count"),
    [
        ("required", False, b"GET / HTTP/1.1\r\n\r\n", 3),
        ("required", False, BROKEN, 3),
        ("optional", False, b"PROXY TCP9 x\r\n", 3),
        ("off", True, b"GET / HTTP/1.1\r\n\r\n", 3),
        ("required", True, HEADER + b"GET / HTTP/1.1\r\n\r\n", 4),
    ],
    ids=["no header", "checksum", "line", "tls", "both"],
)
def test_failed_setup_leaves_nothing_to_the_garbage_collector(
    place: Any, kept: list[Any], proxy: str, tls: bool, sent: bytes, count: int
) -> None:
    here = place(proxy, tls=tls)
    one = here.arrive()
    one.send(sent)
    assert one.failed(Cause.TLS_ERROR if tls else Cause.PROXY_ERROR)
    del one
    assert left_over(here, kept, count) == []


def test_error_that_has_another_one_behind_it_leaves_nothing_to_the_garbage_collector(
    place: Any, kept: list[Any]
) -> None:
    here = place(tls=True)

    def context() -> Any:
        try:
            raise KeyError("first")
        except KeyError:
            raise ValueError("second")  # noqa: B904  # the context is what is looked at

    here.listener.certificates.context = context
    one = here.arrive()
    one.send(b"\x16")
    assert one.failed(Cause.TLS_ERROR) == "ValueError: second"
    del one
    assert left_over(here, kept, 2) == []


@pytest.mark.parametrize("cause", [Cause.DENIED, Cause.REFUSED_CLIENT])
def test_refused_client_leaves_nothing_to_the_garbage_collector(place: Any, kept: list[Any], cause: Cause) -> None:
    here = place("required", door=FakeDoor(cause), overflow="refuse", overflow_message=b"busy")
    one = here.arrive()
    one.send(HEADER)
    one.left(cause)
    del one
    assert left_over(here, kept, 3) == []


def test_late_setup_leaves_nothing_to_the_garbage_collector(place: Any, kept: list[Any]) -> None:
    here = place(tls=True, setup_timeout=10)
    one = here.arrive()
    one.send(one.tls().flight()[:50])
    here.watch.pass_time(10)
    assert one.failed(Cause.SETUP_DEADLINE)
    del one
    assert left_over(here, kept, 3) == []


def test_finished_setup_leaves_nothing_to_the_garbage_collector(place: Any, kept: list[Any]) -> None:
    here = place("required", tls=True)
    one = here.arrive()
    one.send(HEADER)
    one.tls().shake_hands()
    assert is_passed_on(one)
    one.connection.release()
    del one
    assert left_over(here, kept, 4) == []
