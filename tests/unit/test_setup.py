"""Setup: which listener needs one, whose header is believed, and what a connection gets without one."""

from typing import Any

import pytest

from moorage.config import ListenerSettings
from moorage.events import Events
from moorage.rules import Rules
from moorage.setup import Setup, make_setups
from support.arrivals import BALANCERS, PEER, FakeCertificates, FakeDoor, FakeListener, Place, Settings


def make(listener: FakeListener, events: Events | None = None) -> Setup:
    watch: Any = None
    return Setup(listener, None, Settings(), watch, events or Events(), lambda step, then: None)


def test_only_listeners_with_tls_or_proxy_need_one() -> None:
    plain = FakeListener(ListenerSettings())
    proxy = FakeListener(ListenerSettings(proxy_protocol="optional"), None, Rules(allow=[BALANCERS]))
    tls = FakeListener(ListenerSettings(), FakeCertificates())
    watch: Any = None
    doors = [None, FakeDoor(), None]
    setups = make_setups([plain, proxy, tls], doors, Settings(), watch, Events(), lambda step, then: None)
    assert list(setups) == [proxy, tls]
    assert [setup.door for setup in setups.values()] == [doors[1], None]


@pytest.mark.parametrize(("mode", "is_tls"), [("implicit", True), ("starttls", False)])
def test_handshake_is_made_where_tls_begins_with_the_connection(mode: Any, is_tls: bool) -> None:
    assert make(FakeListener(ListenerSettings(tls_mode=mode), FakeCertificates())).is_tls is is_tls


def test_renewals_of_certificates_are_told_by_the_events_of_the_server() -> None:
    events, certificates = Events(), FakeCertificates()
    make(FakeListener(ListenerSettings(), certificates), events)
    assert certificates.events is events


@pytest.mark.parametrize(
    ("addr", "trusted", "is_trusted"),
    [
        (PEER, (BALANCERS,), True),
        (("203.0.113.1", 1), (BALANCERS,), False),
        (("2001:db8::1", 1, 0, 0), (BALANCERS,), False),
        (PEER, (), False),
        ("", (), True),
        ("", (BALANCERS,), True),
    ],
)
def test_header_is_believed_from_networks_that_are_named_and_from_unix_sockets(
    addr: Any, trusted: tuple[str, ...], is_trusted: bool
) -> None:
    rules = Rules(allow=trusted) if trusted else None
    setup = make(FakeListener(ListenerSettings(proxy_protocol="required"), None, rules))
    assert setup.trusts(addr) is is_trusted


def test_connection_knows_the_certificates_of_its_listener() -> None:
    for mode in ("implicit", "starttls"):
        place = Place(tls=True, mode=mode)
        arriving = place.arrive()
        assert arriving.connection._certificates is place.listener.certificates
        place.close()


def test_each_handshake_gets_the_certificates_of_its_moment() -> None:
    listener = FakeListener(ListenerSettings(), FakeCertificates())
    certificates: Any = listener.certificates
    renewed = FakeCertificates().made
    contexts = [certificates.made, renewed]
    certificates.context = lambda: contexts.pop(0)
    setup = make(listener)
    sessions: list[Any] = [setup.make_session(), setup.make_session()]
    assert [session._object.context for session in sessions] == [certificates.made, renewed]
