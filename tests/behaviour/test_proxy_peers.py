"""Behind real load balancers: who the client is, what is said of it, and health checks that nobody hears of."""

import logging
import queue
import re
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from moorage import Connection
from moorage.events import Cause, Phase
from support.certificates import certificates, client_context
from support.client import SOON, Client
from support.house import House, Open, Place
from support.proxies import Proxy, haproxy, nginx
from support.tls_client import TlsClient
from support.waiting import eventually

pytestmark = [
    pytest.mark.runners("threads", "fibers"),
    pytest.mark.families("tcp4", "unix"),
    pytest.mark.security("plain"),
]
#: a Unix socket's peers need not be named: its permissions say who they are
BEHIND: dict[str, Any] = {"proxy_protocol": "required", "proxy_trusted": ["127.0.0.0/8"]}
Make = Callable[..., AbstractContextManager[Proxy]]


def behind_haproxy(address: Any, family: str) -> AbstractContextManager[Proxy]:
    return haproxy(address, "send-proxy", family=family)


def behind_haproxy_v2(address: Any, family: str) -> AbstractContextManager[Proxy]:
    return haproxy(address, "send-proxy-v2", family=family)


def behind_nginx(address: Any, family: str) -> AbstractContextManager[Proxy]:
    return nginx(address, family=family)


MAKERS = pytest.mark.parametrize("make", [behind_haproxy, behind_haproxy_v2, behind_nginx])


class Told:
    """What handlers say of their connections."""

    def __init__(self) -> None:
        self._told: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def handler(self, tell: Callable[[Any], Any]) -> Callable[[Any], None]:
        """An echo that tells something of each connection first."""

        def handle(conn: Any) -> None:
            self._told.put(tell(conn))
            while data := conn.recv(8192):
                conn.sendall(data)

        return handle

    def next(self) -> Any:
        """What was told next."""
        return self._told.get(timeout=SOON)

    def is_empty(self) -> bool:
        """Whether nothing more was told."""
        return self._told.empty()


@pytest.fixture
def told() -> Told:
    return Told()


def front(proxy: Proxy, family: str) -> Client:
    """A client of the load balancer; at one of IPv6, it comes over IPv4."""
    return Client(("127.0.0.1", proxy.address[1])) if family == "dual" else proxy.client()


def client_from(host: str, proxy: Proxy) -> socket.socket:
    """A client of the load balancer with this address."""
    return socket.create_connection(proxy.address, SOON, source_address=(host, 0))


def is_cut(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


def ends(conn: Connection) -> tuple[Any, Any]:
    return conn.peer, conn.local


# Who the client is


@MAKERS
@pytest.mark.parametrize("family", ["tcp4", "tcp6", "dual"])
def test_handler_sees_the_client_in_front_of_the_load_balancer(
    house: Open, told: Told, make: Make, family: str
) -> None:
    opened = house(told.handler(ends), **BEHIND)
    with make(opened.server.address, family) as proxy, front(proxy, family) as client:
        assert client.ask(b"hello") == b"hello"
        assert told.next() == (client.getsockname(), client.getpeername())
        client.say_no_more()
        assert client.rest() == b""
    assert opened.is_quiet()


@MAKERS
def test_client_of_a_unix_socket_in_front_is_called_what_the_load_balancer_is(
    house: Open, told: Told, make: Make, place: Place
) -> None:
    opened = house(told.handler(lambda conn: (conn.peer, conn.proxy.via, conn.proxy.source)), **BEHIND)
    with make(opened.server.address, "unix") as proxy, proxy.client() as client:
        assert client.ask(b"hello") == b"hello"
        peer, via, source = told.next()
    assert peer == via
    assert source is None
    assert (peer == "") if place.family == "unix" else (peer[0] == "127.0.0.1")


@MAKERS
def test_bytes_behind_the_header_are_the_handlers(house: Open, told: Told, make: Make) -> None:
    opened = house(told.handler(ends), **BEHIND)
    message = bytes(range(256)) * 1000
    with make(opened.server.address, "tcp4") as proxy, proxy.client() as client:
        for size in (1, 100_000, 256_000):
            client.sendall(message[:size])
            assert client.receive(size) == message[:size]
        client.say_no_more()
        assert client.rest() == b""
    event = opened.end()
    assert (event.cause, event.bytes_received, event.bytes_sent) == (Cause.PEER_CLOSED, 356_001, 356_001)


@MAKERS
def test_events_and_limits_name_the_client_in_front(house: Open, told: Told, make: Make) -> None:
    opened = house(told.handler(ends), max_per_client=1, overflow="refuse", overflow_message=b"busy", **BEHIND)
    with make(opened.server.address, "tcp4") as proxy:
        with proxy.client() as client:
            assert client.ask(b"hello") == b"hello"
            name = client.getsockname()
            assert proxy.client().rest() == b"busy"
            assert opened.cause() is Cause.REFUSED_CLIENT
        assert opened.end().peer == name
        with proxy.client() as client:
            assert client.ask(b"again") == b"again"


@MAKERS
def test_rules_are_for_the_client_in_front(house: Open, told: Told, make: Make) -> None:
    """And for the load balancer itself, before its header is read: 127.0.0.1 has to be allowed, too."""
    opened = house(told.handler(ends), allow=["127.0.0.1", "127.0.0.7"], **BEHIND)
    with make(opened.server.address, "tcp4") as proxy:
        with client_from("127.0.0.9", proxy) as stranger:
            assert is_cut(stranger)
        event = opened.end()
        assert (event.cause, event.phase, event.peer[0]) == (Cause.DENIED, Phase.PROXY, "127.0.0.9")
        with client_from("127.0.0.7", proxy) as friend:
            friend.sendall(b"hello")
            assert friend.recv(5) == b"hello"


# What is said of it


def fields(conn: Connection) -> tuple[Any, ...]:
    header = conn.proxy
    assert header is not None
    return header.version, header.alpn, header.authority, header.unique_id, header.ssl


def test_unique_id_of_haproxy_arrives_under_a_checksum(house: Open, told: Told) -> None:
    opened = house(told.handler(fields), **BEHIND)
    words, line = "send-proxy-v2 proxy-v2-options unique-id,crc32c", "unique-id-format connection-%ci-%cp"
    with haproxy(opened.server.address, words, front=line) as proxy, proxy.client() as client:
        assert client.ask(b"hello") == b"hello"
        own = "connection-{}-{}".format(*client.getsockname()).encode()
        assert told.next() == (2, None, None, own, None)


@pytest.mark.parametrize("has_certificate", [False, True])
def test_tls_that_ends_at_haproxy_is_told(house: Open, told: Told, has_certificate: bool) -> None:
    files = certificates()
    opened = house(told.handler(fields), **BEHIND)
    context = client_context(files.client if has_certificate else None)
    context.set_alpn_protocols(["echo"])
    options = "ssl,cert-cn,ssl-cipher,cert-sig,cert-key,authority,crc32c"
    bind = f"ssl crt {files.in_one} ca-file {files.ca} verify optional alpn echo"
    server = f"send-proxy-v2 proxy-v2-options {options}"
    with (
        haproxy(opened.server.address, server, bind=bind) as proxy,
        TlsClient(proxy.address, context=context, name="localhost") as client,
    ):
        assert client.ask(b"hello") == b"hello"
        _, alpn, authority, _, said = told.next()
        assert (alpn, authority) == (b"echo", "localhost")
        assert (said.is_tls, said.has_certificate, said.is_verified) == (True, has_certificate, has_certificate)
        assert (said.version, said.cipher) == (client.session.version(), (client.session.cipher() or ("",))[0])
        assert said.key_algorithm.startswith(("EC", "RSA"))


@pytest.mark.security("tls")
@MAKERS
def test_tls_goes_through_the_load_balancer_and_ends_here(house: Open, told: Told, make: Make) -> None:
    opened = house(told.handler(lambda conn: (conn.peer, conn.tls.server_name, conn.tls.version)), **BEHIND)
    with make(opened.server.address, "tcp4") as proxy, TlsClient(proxy.address, name="localhost") as client:
        assert client.ask(b"hello") == b"hello"
        assert told.next() == (client.getsockname(), "localhost", client.session.version())
        client.say_no_more()
        assert client.rest() == b""
    assert opened.cause() is Cause.PEER_CLOSED


@pytest.mark.security("tls")
def test_handshake_that_fails_behind_the_load_balancer_is_the_clients(house: Open, told: Told) -> None:
    opened = house(told.handler(ends), **BEHIND)
    with haproxy(opened.server.address) as proxy, proxy.client() as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert opened.setup_failure().peer == client.getsockname()
    assert opened.cause() is Cause.TLS_ERROR


# Who may say so


@pytest.mark.families("tcp4")
def test_load_balancer_that_is_not_trusted_is_refused(house: Open, told: Told) -> None:
    opened = house(told.handler(ends), proxy_protocol="required", proxy_trusted=["10.0.0.0/8"])
    with haproxy(opened.server.address) as proxy:
        assert proxy.client().is_cut()
    assert "127.0.0.1 is not in proxy_trusted" in opened.setup_failure().reason
    assert (opened.cause(), told.is_empty()) == (Cause.PROXY_ERROR, True)


@MAKERS
def test_optional_header_lets_both_kinds_of_clients_in(house: Open, told: Told, make: Make) -> None:
    opened = house(told.handler(lambda conn: conn.proxy is not None), **{**BEHIND, "proxy_protocol": "optional"})
    with make(opened.server.address, "tcp4") as proxy, proxy.client() as client:
        assert client.ask(b"hello") == b"hello"
        assert told.next() is True
    with opened.client() as client:
        assert client.ask(b"hello") == b"hello"
        assert told.next() is False


# What is written in docs/howto/behind-a-load-balancer.md

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "behind-a-load-balancer.md"


def configurations(begin: str) -> list[str]:
    """The blocks of the page that begin so: with their language, or with the name of a file."""
    return re.findall(rf"^```{begin}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


HAPROXY_CFG = "text\n# haproxy.cfg"


def test_configurations_on_the_page_work(house: Open, told: Told) -> None:
    opened = house(told.handler(lambda conn: (conn.peer, conn.proxy.version)), **BEHIND)
    (plain, _), (stream,) = configurations(HAPROXY_CFG), configurations("nginx")
    for program, page, version in (haproxy, plain, 2), (nginx, stream, 1):
        with program(opened.server.address, page=page) as proxy, proxy.client() as client:
            assert client.ask(b"hello") == b"hello"
            while (said := told.next())[0] != client.getsockname():
                pass  # a health check of HAProxy
            assert said[1] == version


def test_configuration_on_the_page_for_tls_works(house: Open) -> None:
    (code,) = configurations("python")
    names: dict[str, Any] = {}
    exec(code, names)
    files = certificates()
    opened = house(names["handle"], **BEHIND)
    page = configurations(HAPROXY_CFG)[1].replace("/etc/haproxy/site.pem", files.in_one)
    page = page.replace("/etc/haproxy/clients.pem", files.ca)
    with haproxy(opened.server.address, page=page) as proxy:
        with TlsClient(proxy.address, name="localhost") as stranger:
            assert stranger.line() == b"a certificate, please\n"
        with TlsClient(proxy.address, context=client_context(files.client), name="localhost") as client:
            assert client.line() == b"hello device-1 at 127.0.0.1\n"


# Health checks


def is_silent(opened: House, caplog: pytest.LogCaptureFixture) -> bool:
    """Whether no handler, no setup and no line of the log complains."""
    loud = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert loud == []
    return opened.is_quiet() and not opened._setups._events


@pytest.mark.parametrize("words", ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl"])
def test_health_checks_of_haproxy_find_the_server_and_leave_no_complaint(
    house: Open, told: Told, caplog: pytest.LogCaptureFixture, words: str
) -> None:
    opened = house(told.handler(lambda conn: conn.proxy.command), **BEHIND)
    with caplog.at_level(logging.INFO), haproxy(opened.server.address, f"{words} check inter 50ms") as proxy:
        for _ in range(5):
            assert opened.cause() in {Cause.PEER_CLOSED, Cause.RESET}
            assert told.next() == ("PROXY" if words == "send-proxy" else "LOCAL")
        eventually(lambda: proxy.check() == "L4OK")
        assert proxy.is_serving()
    assert is_silent(opened, caplog)


@pytest.mark.families("tcp4")
@pytest.mark.parametrize("words", ["check port {}", "check port {} check-send-proxy", "check port {} observe layer4"])
def test_health_checks_of_haproxy_at_a_port_leave_no_complaint(
    house: Open, told: Told, caplog: pytest.LogCaptureFixture, words: str
) -> None:
    """Without `check-send-proxy` they connect and reset, with no header."""
    opened = house(told.handler(ends), **BEHIND)
    server = f"send-proxy-v2 {words.format(opened.server.address[1])} inter 50ms"
    with caplog.at_level(logging.INFO), haproxy(opened.server.address, server) as proxy:
        eventually(lambda: proxy.check() == "L4OK")
        with proxy.client() as client:
            assert client.ask(b"hello") == b"hello"
        assert proxy.is_serving()
    assert is_silent(opened, caplog)


@pytest.mark.parametrize("lines", ["option tcp-check\n    tcp-check connect", "option tcp-check"])
@pytest.mark.families("tcp4")
def test_health_checks_that_say_nothing_at_all_leave_no_complaint(
    house: Open, told: Told, caplog: pytest.LogCaptureFixture, lines: str
) -> None:
    opened = house(told.handler(ends), **BEHIND)
    server = f"send-proxy check port {opened.server.address[1]} inter 50ms"
    with caplog.at_level(logging.INFO), haproxy(opened.server.address, server, back=lines) as proxy:
        eventually(lambda: proxy.check() in {"L4OK", "L7OK"})
        assert proxy.is_serving()
    assert is_silent(opened, caplog)


@pytest.mark.security("tls")
@pytest.mark.parametrize("words", ["check", "check check-ssl verify none"])
def test_health_checks_of_a_server_with_tls_leave_no_complaint(
    house: Open, told: Told, caplog: pytest.LogCaptureFixture, words: str
) -> None:
    opened = house(told.handler(ends), **BEHIND)
    with caplog.at_level(logging.INFO), haproxy(opened.server.address, f"send-proxy-v2 {words} inter 50ms") as proxy:
        for _ in range(3):
            assert opened.cause() in {Cause.PEER_CLOSED, Cause.RESET, Cause.HANDLER_DONE}
        eventually(lambda: proxy.check() in {"L4OK", "L6OK"})
        assert proxy.is_serving()
    assert is_silent(opened, caplog)


def test_server_that_has_gone_is_noticed(house: Open, told: Told) -> None:
    """What is shown above means something: a check that fails is seen to fail."""
    opened = house(told.handler(ends), **BEHIND)
    with haproxy(opened.server.address, "send-proxy check inter 50ms fall 2") as proxy:
        eventually(lambda: proxy.check() == "L4OK")
        opened.server.close()
        eventually(lambda: not proxy.is_serving())
