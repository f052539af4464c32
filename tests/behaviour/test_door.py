"""Who may come in: what clients see of rules, rates and shedding, and that the numbers say the same."""

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from moorage import Connection
from moorage.events import Cause, ConnectionRefused, RefusalObserved, RulesLoaded, RulesRejected
from support.client import SOON, Client
from support.house import House, Open, Place
from support.serving import Serving
from support.waiting import eventually

pytestmark = pytest.mark.security("plain")  # whoever is turned away is so before TLS; where it matters, tests say so

HANDLERS = Path(__file__).parent.parent / "support" / "deploy_handlers.py"
RUNNERS = ["threads", "fibers"]
NEVER = 0.001  # a second: nobody waits so long here
BUSY = b"421 busy\r\n"
METRIC = re.compile(r'moorage_(\w+?)_total(?:\{cause="(\w+)"\})? (\d+)')

Come = Callable[..., socket.socket]


def greet(conn: Connection) -> None:
    conn.sendall(b"!")
    while data := conn.recv(8192):
        conn.sendall(data)


@pytest.fixture
def come() -> Iterator[Come]:
    """A client who comes from this address of the loopback network."""
    with ExitStack() as stack:

        def come(address: Any, source: str = "127.0.0.1") -> socket.socket:
            client = socket.create_connection(address, SOON, source_address=(source, 0))
            return stack.enter_context(client)

        yield come


def is_in(client: socket.socket) -> bool:
    """Whether this client is greeted; otherwise it hears nothing but the end."""
    try:
        said = client.recv(100)
    except ConnectionResetError:
        return False
    assert said in (b"", b"!"), said
    return said == b"!"


def is_cut(client: socket.socket) -> bool:
    """Whether the end comes before a byte."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def causes(house: House, kind: Any) -> Callable[[int], list[Cause]]:
    """Collects events of this kind; called with their number, it waits until they are there."""
    events = house.server.events.queue(1000, kind)
    return lambda count: [events.get(SOON).cause for _ in range(count)]  # type: ignore[attr-defined]  # of this kind


# --- rules -------------------------------------------------------------------------------------------


@pytest.mark.families("tcp4", "tcp6")
def test_client_of_a_denied_network_is_closed_at_once_and_counted(house: Open) -> None:
    opened = house(greet, deny=["127.0.0.0/8", "::1"], overflow="refuse", overflow_message=BUSY)
    refused = causes(opened, ConnectionRefused)
    assert [opened.client().is_cut() for _ in range(5)] == [True] * 5
    assert refused(5) == [Cause.DENIED] * 5
    assert len(opened.server.connections) == 0


@pytest.mark.families("unix")
def test_client_of_a_unix_socket_has_no_network(house: Open) -> None:
    opened = house(greet, deny=["all"], client_rate=NEVER, client_burst=1, max_per_client=1)
    assert [opened.client().ask(b"") for _ in range(3)] == [b""] * 3
    client = opened.client()
    if opened.server.settings.runner != "inline":
        assert client.receive(1) == b"!"


@pytest.mark.runners(*RUNNERS)
@pytest.mark.families("tcp4")
def test_client_of_another_network_comes_in(house: Open, come: Come) -> None:
    address = house(greet, allow=["127.0.0.0/24"], deny=["127.0.0.128/25", "127.0.0.5"]).server.address
    sources = ["127.0.0.1", "127.0.0.5", "127.0.0.127", "127.0.0.129", "127.0.1.1"]
    assert [is_in(come(address, source)) for source in sources] == [True, False, True, False, False]


@pytest.mark.runners(*RUNNERS)
@pytest.mark.families("tcp4", "tcp6")
def test_rules_file_is_read_again_while_we_serve(house: Open, tmp_path: Path) -> None:
    file, new = tmp_path / "rules", tmp_path / "new"

    def write(text: str) -> None:
        new.write_text(text)
        new.replace(file)

    write("deny 192.0.2.0/24\n")
    opened = house(greet, rules_file=str(file))
    loaded, rejected = (opened.server.events.queue(10, kind) for kind in (RulesLoaded, RulesRejected))
    stays = opened.client()
    assert stays.receive(1) == b"!"
    write("deny all\n")
    eventually(lambda: not is_in(opened.client()), SOON)
    assert loaded.get(SOON) == RulesLoaded(str(file), 2)
    assert stays.ask(b"still here") == b"still here"
    write("deny everybody\n")

    def is_rejected() -> bool:
        assert not is_in(opened.client()), "the rules from before decide"
        return bool(rejected._events)

    eventually(is_rejected, SOON)
    event = rejected.get(SOON)
    assert isinstance(event, RulesRejected)
    assert f"{file}, line 1: 'everybody' is no network" in event.reason
    write("allow all\n")
    eventually(lambda: is_in(opened.client()), SOON)


# --- rates -------------------------------------------------------------------------------------------


@pytest.mark.security("plain", "tls")
@pytest.mark.runners("threads", "fibers", "forks")
@pytest.mark.families("tcp4", "unix")
def test_clients_above_the_rate_wait_and_are_all_served(house: Open) -> None:
    opened = house(greet, accept_rate=20, accept_burst=5)
    begun = time.monotonic()
    clients = [opened.client() for _ in range(15)]
    assert [client.receive(1) for client in clients] == [b"!"] * 15
    assert time.monotonic() - begun >= 0.5 - 0.05, "ten of them had to wait for their turn"


@pytest.mark.runners("threads", "fibers", "forks")
@pytest.mark.families("tcp4", "unix")
def test_clients_above_the_rate_wait_for_no_longer_than_it_says(house: Open) -> None:
    opened = house(greet, accept_rate=100, accept_burst=1)
    assert opened.client().receive(1) == b"!"
    begun = time.monotonic()
    assert opened.client().receive(1) == b"!"
    assert time.monotonic() - begun < 5


@pytest.mark.runners(*RUNNERS)
def test_clients_above_the_rate_are_told_where_they_do_not_wait(house: Open) -> None:
    opened = house(greet, accept_rate=NEVER, accept_burst=3, overflow="refuse", overflow_message=BUSY)
    refused = causes(opened, ConnectionRefused)
    clients = [opened.client() for _ in range(10)]
    assert [client.receive(1) for client in clients[:3]] == [b"!"] * 3
    assert [client.rest() for client in clients[3:]] == [BUSY] * 7
    assert refused(7) == [Cause.REFUSED_RATE] * 7


@pytest.mark.security("tls")
@pytest.mark.runners(*RUNNERS)
@pytest.mark.families("tcp4")
def test_client_that_is_refused_before_tls_is_sent_no_clear_text(house: Open) -> None:
    opened = house(greet, accept_rate=NEVER, accept_burst=1, overflow="refuse", overflow_message=BUSY)
    assert opened.client().receive(1) == b"!"
    with Client(opened.server.address) as refused:
        assert refused.rest() == b""


@pytest.mark.runners(*RUNNERS)
@pytest.mark.families("tcp4")
def test_clients_above_the_rate_are_reset_where_that_is_said(house: Open) -> None:
    opened = house(greet, accept_rate=NEVER, accept_burst=1, overflow="reset")
    assert opened.client().receive(1) == b"!"
    with pytest.raises(ConnectionResetError):
        opened.client().recv(1)


@pytest.mark.runners(*RUNNERS)
@pytest.mark.families("tcp4")
def test_client_that_comes_too_often_is_refused_and_others_are_not(house: Open, come: Come) -> None:
    opened = house(greet, client_rate=NEVER, client_burst=3)
    refused, address = causes(opened, ConnectionRefused), opened.server.address
    assert [is_in(come(address)) for _ in range(6)] == [True] * 3 + [False] * 3
    assert [is_in(come(address, "127.0.0.2")) for _ in range(4)] == [True] * 3 + [False]
    assert refused(4) == [Cause.REFUSED_RATE] * 4


@pytest.mark.runners(*RUNNERS)
@pytest.mark.families("tcp4")
def test_client_that_waits_a_little_comes_in_again(house: Open, come: Come) -> None:
    address = house(greet, client_rate=5, client_burst=1).server.address
    assert is_in(come(address))
    begun = time.monotonic()
    eventually(lambda: is_in(come(address)), SOON)
    assert 0.1 < time.monotonic() - begun < 5


@pytest.mark.runners(*RUNNERS)
@pytest.mark.families("tcp4")
@pytest.mark.parametrize(
    ("prefix", "found"),
    [(32, [True, True, True]), (24, [True, False, True]), (16, [True, False, False])],
)
@pytest.mark.parametrize(
    ("limit", "cause"),
    [({"max_per_client": 1}, Cause.REFUSED_CLIENT), ({"client_rate": NEVER, "client_burst": 1}, Cause.REFUSED_RATE)],
)
def test_client_is_as_many_bits_of_its_address_as_the_settings_say(
    house: Open, come: Come, limit: Any, cause: Cause, prefix: int, found: list[bool]
) -> None:
    opened = house(greet, **limit, client_prefix_v4=prefix)
    refused, address = causes(opened, ConnectionRefused), opened.server.address
    assert [is_in(come(address, source)) for source in ("127.0.0.1", "127.0.0.2", "127.0.1.1")] == found
    assert refused(found.count(False)) == [cause] * found.count(False)


@pytest.mark.runners(*RUNNERS)
@pytest.mark.families("tcp4")
def test_client_that_has_enough_takes_nothing_from_its_rate(house: Open, come: Come) -> None:
    opened = house(greet, max_per_client=1, client_rate=NEVER, client_burst=2)
    refused, address = causes(opened, ConnectionRefused), opened.server.address
    with come(address) as first:
        assert is_in(first)
        assert [is_in(come(address)) for _ in range(5)] == [False] * 5
        assert refused(5) == [Cause.REFUSED_CLIENT] * 5
    opened.cause()
    eventually(lambda: not opened.server.connections, SOON)
    with come(address) as second:
        assert is_in(second), "its second turn is still there"
    opened.cause()
    eventually(lambda: not opened.server.connections, SOON)
    assert not is_in(come(address))
    assert refused(1) == [Cause.REFUSED_RATE]


# --- behind a load balancer --------------------------------------------------------------------------


def claim(client: socket.socket, source: str) -> socket.socket:
    """Say whose connection this is, as a load balancer does."""
    client.sendall(f"PROXY TCP4 {source} 192.0.2.254 4711 20000\r\n".encode())
    return client


@pytest.mark.runners(*RUNNERS)
@pytest.mark.families("tcp4", "unix")
@pytest.mark.parametrize(("most", "burst", "cause"), [(2, 3, Cause.REFUSED_CLIENT), (3, 2, Cause.REFUSED_RATE)])
def test_limits_behind_a_load_balancer_are_of_the_client_that_it_names(
    house: Open, most: int, burst: int, cause: Cause
) -> None:
    opened = house(
        greet, proxy_protocol="required", proxy_trusted=["127.0.0.0/8"], deny=["198.51.100.0/24"],
        client_rate=NEVER, client_burst=burst, max_per_client=most,
    )  # fmt: skip
    clients = [claim(opened.client(), f"192.0.2.{number}") for number in range(10)]
    assert all(map(is_in, clients)), "ten clients of one load balancer"
    same = [is_in(claim(opened.client(), "192.0.2.1")) for _ in range(4)]
    assert same == [True, False, False, False]
    assert [opened.cause() for _ in range(3)] == [cause] * 3
    assert not is_in(claim(opened.client(), "198.51.100.7"))
    assert opened.cause() is Cause.DENIED
    assert len(opened.server.connections) == 11


@pytest.mark.runners(*RUNNERS)
@pytest.mark.families("tcp4")
def test_load_balancer_that_a_rule_denies_is_not_listened_to(house: Open) -> None:
    opened = house(greet, proxy_protocol="required", proxy_trusted=["all"], allow=["192.0.2.0/24"])
    refused = causes(opened, ConnectionRefused)
    assert opened.client().is_cut()
    assert refused(1) == [Cause.DENIED]


# --- only looking ------------------------------------------------------------------------------------


@pytest.mark.runners(*RUNNERS)
@pytest.mark.families("tcp4", "tcp6")
def test_policies_that_only_observe_let_everybody_in_and_count(house: Open) -> None:
    opened = house(
        greet, deny=["all"], client_rate=NEVER, client_burst=2, accept_rate=NEVER, accept_burst=3, max_per_client=4,
        observe_only=["rules", "client_rate", "accept_rate", "max_per_client"],
    )  # fmt: skip
    observed = causes(opened, RefusalObserved)
    clients = [opened.client() for _ in range(5)]
    assert [client.receive(1) for client in clients] == [b"!"] * 5
    found = observed(5 + 3 + 2 + 1)
    assert found.count(Cause.DENIED) == 5
    assert found.count(Cause.REFUSED_RATE) == 3 + 2
    assert found.count(Cause.REFUSED_CLIENT) == 1


@pytest.mark.runners(*RUNNERS)
@pytest.mark.families("tcp4")
@pytest.mark.parametrize("header", [b"", b"PROXY UNKNOWN\r\n", b"PROXY TCP4 198.51.100.1 192.0.2.254 4711 20000\r\n"])
def test_client_that_speaks_for_itself_is_told_of_once_and_one_of_a_load_balancer_twice(
    house: Open, header: bytes
) -> None:
    opened = house(
        greet, proxy_protocol="optional", proxy_trusted=["all"], deny=["all"], observe_only=["rules", "max_per_client"],
        max_per_client=1,
    )  # fmt: skip
    observed = opened.server.events.queue(10, RefusalObserved)
    for number in range(2):
        client = opened.client()
        client.sendall(header or b"x")
        assert client.receive(1) == b"!"
        told = [observed.get(SOON).cause for _ in range(1 + (b"TCP4" in header) + number)]  # type: ignore[attr-defined]  # they have one
        assert told == [Cause.DENIED] * (1 + (b"TCP4" in header)) + [Cause.REFUSED_CLIENT] * number
    assert not observed._events


# --- shedding ----------------------------------------------------------------------------------------


@pytest.mark.security("plain", "tls")
@pytest.mark.runners(*RUNNERS)
@pytest.mark.families("tcp4", "unix")
@pytest.mark.parametrize("overflow", ["wait", "refuse"])
def test_newcomer_takes_the_place_of_the_longest_idle(house: Open, overflow: str) -> None:
    opened = house(greet, max_connections=3, shed_idle=0.2, overflow=overflow)
    clients = [opened.client() for _ in range(3)]
    assert [client.receive(1) for client in clients] == [b"!"] * 3
    for client in (clients[1], clients[0], clients[2]):  # the second was idle for longest, then the first
        assert client.ask(b"here") == b"here"
        assert client.hears_nothing(0.1), "its handler waits again before that of the next is asked"
    assert not select.select(clients, [], [], 0.3)[0]
    newcomers = [opened.client()]
    assert newcomers[0].receive(1) == b"!"
    assert clients[1].is_cut()
    assert opened.cause() is Cause.SHED
    newcomers.append(opened.client())
    assert newcomers[1].receive(1) == b"!"
    assert clients[0].is_cut()
    assert opened.cause() is Cause.SHED
    assert [client.ask(b"still here") for client in (clients[2], *newcomers)] == [b"still here"] * 3


@pytest.mark.security("plain", "tls")
@pytest.mark.runners(*RUNNERS)
@pytest.mark.families("tcp4", "unix")
def test_newcomer_waits_until_somebody_was_idle_for_long_enough(house: Open) -> None:
    opened = house(greet, max_connections=2, shed_idle=0.5)
    clients = [opened.client() for _ in range(2)]
    assert [client.receive(1) for client in clients] == [b"!"] * 2
    newcomer = opened.client()
    assert newcomer.hears_nothing(0.2)
    assert newcomer.receive(1) == b"!"
    assert opened.cause() is Cause.SHED


@pytest.mark.runners(*RUNNERS)
@pytest.mark.families("tcp4")
def test_newcomer_is_refused_where_nobody_is_idle(house: Open) -> None:
    opened = house(greet, max_connections=1, shed_idle=100, overflow="refuse", overflow_message=BUSY)
    stays = opened.client()
    assert stays.receive(1) == b"!"
    assert opened.client().rest() == BUSY
    assert stays.ask(b"still here") == b"still here"


@pytest.mark.security("plain", "tls")
@pytest.mark.runners(*RUNNERS)
@pytest.mark.families("tcp4")
def test_client_that_has_never_said_a_word_is_shed_too(house: Open, place: Place) -> None:
    opened = house(greet, max_connections=1, shed_idle=0.1, wait_for_data=True)
    mute = opened.client()
    newcomer = opened.client()
    newcomer.sendall(b"x")
    assert newcomer.receive(2) == b"!x"
    assert mute.is_cut()
    assert opened.cause() is Cause.SHED


SHORT_OF_DESCRIPTORS = """
import os, resource, sys
from moorage.events import ConnectionClosed
from moorage.server import Server

def greet(conn):
    conn.sendall(b"!")
    while conn.recv(100):
        pass

with Server(greet, "127.0.0.1:0", runner=sys.argv[1], overflow=sys.argv[2], shed_idle=0.2) as server:
    used = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, used + 20))
    server.events.subscribe(lambda event: print(event.cause, flush=True), ConnectionClosed)
    print(server.address[1], flush=True)
    sys.stdin.read()
    server.close()
"""


@pytest.mark.parametrize("overflow", ["wait", "refuse"])
@pytest.mark.parametrize("runner", RUNNERS)
def test_newcomer_gets_the_descriptor_of_the_longest_idle(come: Come, runner: str, overflow: str) -> None:
    command = [sys.executable, "-c", SHORT_OF_DESCRIPTORS, runner, overflow]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            address = ("127.0.0.1", int(process.stdout.readline()))
            inside = [come(address) for _ in range(8)]
            assert all(map(is_in, inside))
            for _ in range(20):  # who comes while nobody is idle is refused, where clients do not wait
                eventually(lambda: is_in(come(address)), SOON)
            assert process.stdout.readline() == "shed\n"
            assert is_cut(inside[0])
        finally:
            process.stdin.close()
            process.wait(SOON)


# --- several workers ---------------------------------------------------------------------------------


class Workers(Serving):
    """A `moorage serve` with workers, and what it counts."""

    def __init__(self, cwd: Path, *arguments: str) -> None:
        self.metrics = cwd / "metrics"
        places = ("--bind", "127.0.0.1:0", "--control", "off", "--metrics", f"unix:{self.metrics}")
        super().__init__(f"{HANDLERS}:echo", *places, "--workers", "2", *arguments, cwd=cwd)

    def counted(self) -> dict[str, int]:
        """Every counter that is not zero; `name:cause` where there is one."""
        with Client(str(self.metrics)) as client:
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            found = METRIC.findall(client.rest().decode())
        return {name + (f":{cause}" if cause else ""): int(number) for name, cause, number in found if int(number)}


def ended(counted: dict[str, int]) -> int:
    """How many connections are over."""
    return sum(number for name, number in counted.items() if name.startswith("ended:"))


Start = Callable[..., Workers]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    servers: list[Workers] = []

    def start(*arguments: str) -> Workers:
        servers.append(Workers(tmp_path, *arguments))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


def served(client: socket.socket) -> int:
    """The process that serves this client; 0 when it is turned away."""
    try:
        return int(client.recv(64) or b"0")
    except ConnectionResetError:
        return 0


@pytest.mark.parametrize("runner", RUNNERS)
def test_rate_of_a_client_is_true_over_all_workers_and_survives_a_reload(start: Start, come: Come, runner: str) -> None:
    server = start("--runner", runner, "--client-rate", "1/h", "--client-burst", "20")
    pids = [int(server.hear(r"worker \d \((\d+)\) is ready")[1]) for _ in range(2)]
    address = server.address()
    first: list[int] = []
    for stopped in pids:  # so that each of them takes ten
        os.kill(stopped, signal.SIGSTOP)
        first += [served(come(address)) for _ in range(10)]
        os.kill(stopped, signal.SIGCONT)
    assert sorted(first) == sorted(pids * 10)
    assert not any(served(come(address)) for _ in range(40))
    assert server.counted()["refused:refused_rate"] == 40
    server.signal(signal.SIGHUP)
    server.hear("reloaded after")
    assert not any(served(come(address)) for _ in range(10))
    assert served(come(address, "127.0.0.2"))


@pytest.mark.parametrize("runner", RUNNERS)
def test_total_rate_is_true_over_all_workers(start: Start, come: Come, runner: str) -> None:
    server = start("--runner", runner, "--accept-rate", "20", "--accept-burst", "10")
    address = server.address()
    begun = time.monotonic()
    clients = [come(address) for _ in range(30)]
    assert all(served(client) for client in clients)
    assert time.monotonic() - begun >= 1.0 - 0.05
    assert server.counted()["accepted"] == 30


def test_numbers_are_what_clients_saw(start: Start, come: Come) -> None:
    server = start(
        "--deny", "127.0.0.2/32 127.0.0.8/29", "--client-rate", "1/h", "--client-burst", "12", "--max-per-client", "10",
        "--overflow", "refuse", "--accept-rate", "1/h", "--accept-burst", "40",
    )  # fmt: skip
    address = server.address()
    denied = [served(come(address, source)) for source in ("127.0.0.2", "127.0.0.9", "127.0.0.15") for _ in range(7)]
    assert not any(denied)
    stay = sum(bool(served(come(address, "127.0.0.3"))) for _ in range(20))
    assert 10 <= stay <= 11, "of two workers each may miss one that the other admits just now"
    left = 0
    for inside in (9, 12):  # before one of them could be above `max_per_client`, all have left
        for _ in range(9):
            with come(address, "127.0.0.4") as client:
                left += bool(served(client))
        assert left == inside
        eventually(lambda inside=inside: ended(server.counted()) == inside, SOON)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
    many = sum(bool(served(come(address, f"127.0.1.{number}"))) for number in range(1, 31))
    counted = server.counted()
    assert counted["accepted"] == stay + left + many == 40
    assert counted["refused:denied"] == 21
    assert counted["refused:refused_client"] == 20 - stay
    assert counted["refused:refused_rate"] == 18 - left + 30 - many
    server.hear("INFO .*refused 127.0.0.2:.*a rule denies this network")
    server.hear("WARNING .*refused 127.0.0.3:.*max_per_client")
    server.hear("WARNING .*refused 127.0.0.4:.*client_rate")


@pytest.mark.parametrize("limit", [("--max-per-client", "1"), ("--client-rate", "1/h", "--client-burst", "1")])
def test_prefix_of_a_client_is_the_same_in_all_workers(start: Start, come: Come, limit: tuple[str, ...]) -> None:
    server = start(*limit, "--client-prefix-v4", "24")
    address = server.address()
    assert served(come(address))
    assert not any(served(come(address, f"127.0.0.{number}")) for number in range(2, 12))
    assert served(come(address, "127.0.1.1"))


def test_reload_that_has_more_connections_than_can_be_counted_says_that_it_needs_a_restart(
    start: Start, come: Come, tmp_path: Path
) -> None:
    file = tmp_path / "moorage.toml"
    file.write_text("max_connections = 10\nmax_per_client = 2\n")
    server = start()
    address = server.address()
    file.write_text("max_connections = 1000\nmax_per_client = 1\n")
    server.signal(signal.SIGHUP)
    server.hear("WARNING .*reloaded after .*; a restart is needed for: max_connections")
    assert served(come(address))
    assert not served(come(address)), "the other setting is taken"


def test_observed_refusals_are_counted_over_all_workers(start: Start, come: Come) -> None:
    server = start("--client-rate", "1/h", "--client-burst", "5", "--observe-only", "client_rate")
    address = server.address()
    assert all(served(come(address)) for _ in range(30))
    counted = server.counted()
    assert (counted["accepted"], counted["observed:refused_rate"]) == (30, 25)
    assert "refused:refused_rate" not in counted
    server.hear("goes on, since this is only observed: clients arrive faster")


def test_newcomer_makes_room_in_workers(start: Start, come: Come) -> None:
    server = start("--max-connections", "6", "--shed-idle", "200ms")
    address = server.address()
    clients = [come(address) for _ in range(6)]
    assert all(served(client) for client in clients)
    assert served(come(address))
    eventually(lambda: server.counted().get("ended:shed"), SOON)
    assert server.counted()["ended:shed"] <= 2, "each worker may close one"
