"""Network: what the kernel makes of the listeners' settings, and who can reach them.

Owns      the checks of queues, buffers and options against the kernel's limits, and of addresses that are open to all.
Promises  that a server is open to the world is a note: it may be what it is for.
"""

import ipaddress
from collections.abc import Iterator

from ..config import Address, Configuration, parse_address
from .finding import Finding, ListenerCase, listeners_of, of_server
from .machine import Machine

#: tcp_fastopen: the bit that lets servers
FAST_OPEN_SERVER = 2
#: a network of more addresses than these is no set of load balancers
WIDEST = {4: 8, 6: 16}


def check_queues(configuration: Configuration, machine: Machine) -> Iterator[Finding]:
    """The backlog, and the queue of clients whose handshake is not complete."""
    for listener in listeners_of(configuration):
        where, backlog = listener.where("backlog"), listener.settings.backlog
        if machine.somaxconn is not None and backlog > machine.somaxconn:
            tell = where.warning if where.is_chosen else where.note
            yield tell(
                f"the kernel clips the backlog to {machine.somaxconn}: in a burst more clients than that are dropped",
                f"`sysctl -w net.core.somaxconn={backlog}`, or backlog = {machine.somaxconn}",
            )
        if _address(listener).kind == "tcp" and machine.syn_backlog is not None and backlog > machine.syn_backlog:
            tell = where.note if machine.has_syn_cookies else where.warning
            cookies = (
                "; then SYN cookies serve, without their options"
                if machine.has_syn_cookies
                else ", and no SYN cookies help"
            )
            yield tell(
                f"at most {machine.syn_backlog} clients may be in the middle of the TCP handshake{cookies}",
                f"`sysctl -w net.ipv4.tcp_max_syn_backlog={backlog}`",
            )


def check_options(configuration: Configuration, machine: Machine) -> Iterator[Finding]:
    """What the kernel clips or ignores without a word."""
    limits = (
        ("receive_buffer", machine.receive_buffer, "net.core.rmem_max"),
        ("send_buffer", machine.send_buffer, "net.core.wmem_max"),
    )
    for listener in listeners_of(configuration):
        if _address(listener).kind == "unix":
            continue
        for name, most, parameter in limits:
            size = getattr(listener.settings, name)
            if size is not None and most is not None and size > most:
                yield listener.where(name).warning(
                    f"the kernel clips it to {most} bytes", f"`sysctl -w {parameter}={size}`, or a lower {name}"
                )
        bits = machine.fast_open
        if listener.settings.fast_open is not None and bits is not None and not bits & FAST_OPEN_SERVER:
            yield listener.where("fast_open").warning(
                "the kernel does not let servers take data in the first packet",
                f"`sysctl -w net.ipv4.tcp_fastopen={bits | FAST_OPEN_SERVER}`",
            )


def check_ports(configuration: Configuration, machine: Machine) -> Iterator[Finding]:
    """Ports that only root may have."""
    for listener in listeners_of(configuration):
        port = _address(listener).port
        if 0 < port < machine.first_free_port and not machine.may_bind_low:
            yield listener.where("bind").error(
                f"this user may not listen on port {port}",
                f"a port of {machine.first_free_port} or above, AmbientCapabilities=CAP_NET_BIND_SERVICE, or systemd:name",
            )


def check_exposure(configuration: Configuration, machine: Machine) -> Iterator[Finding]:
    """Addresses that others can reach."""
    server = configuration.server
    for listener in listeners_of(configuration):
        settings, address, where = listener.settings, _address(listener), listener.where("bind")
        if address.kind == "unix" and address.path.startswith("@"):
            yield where.note(
                "a name without a path has no permissions: every user of this host may connect", "unix:/path"
            )
        if _is_local(address):
            continue
        has_rules = settings.allow or settings.deny or settings.rules_file or settings.proxy_protocol != "off"
        if _is_everywhere(address) and not has_rules and not settings.tls_cert:
            yield where.note(
                "every network may connect, in plain text and without rules",
                "allow = the networks of your clients, tls_cert, or the address of one interface",
            )
        if server.max_per_client is None:
            yield of_server(configuration, "max_per_client").note(
                f"one client may take all {server.max_connections} places",
                "max_per_client = 100, or what an honest client needs; not where many share one address",
            )
    if server.metrics is not None and not _is_local(parse_address(server.metrics)):
        yield of_server(configuration, "metrics").warning(
            "whoever reaches this address reads the numbers of this server: nobody is asked who he is",
            "metrics = 127.0.0.1:9100, or an address of an inner network behind a firewall",
        )


def check_proxy(configuration: Configuration, machine: Machine) -> Iterator[Finding]:
    """Who may claim to be somebody else."""
    for listener in listeners_of(configuration):
        where, settings = listener.where("proxy_trusted"), listener.settings
        if settings.proxy_protocol == "off":
            if settings.proxy_trusted:
                yield where.note("nobody is asked for a PROXY header", "proxy_protocol = required, or leave it out")
            continue
        address = _address(listener)
        if address.kind in ("tcp", "unix") and _is_local(address):  # of a socket that is passed on we know nothing
            continue
        for text in settings.proxy_trusted:
            if text == "all" or ipaddress.ip_network(text).prefixlen == 0:
                yield where.error(
                    f"{text} lets everybody claim any address, so that rules and limits for clients mean nothing",
                    "proxy_trusted = the addresses of your load balancers",
                )
            elif ipaddress.ip_network(text).prefixlen < WIDEST[ipaddress.ip_network(text).version]:
                yield where.warning(
                    f"{text} is a wide network: whoever has an address there can claim any other",
                    "proxy_trusted = the addresses of your load balancers",
                )


def _address(listener: ListenerCase) -> Address:
    return parse_address(listener.settings.bind)


def _is_everywhere(address: Address) -> bool:
    return address.kind == "tcp" and address.host in ("0.0.0.0", "::")


def _is_local(address: Address) -> bool:
    """Whether only this host reaches it; what the service manager passes on is not known."""
    if address.kind != "tcp":
        return True
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return address.host == "localhost" or address.host.endswith(".localhost")
