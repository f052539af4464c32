"""TCP address: the sockets that a host and a port mean.

Owns      the way from `host:port` to sockets that listen; the options that their accepted sockets inherit.
Promises  a name gives a socket for each of its addresses, IPv4 first, all on one port, also where the kernel
          chooses it; all are bound or none; what cannot be bound is one sentence with the way out.
Refuses   SO_REUSEPORT: closing one of several such listeners resets the clients in its backlog.
Note      addresses that this host lacks are passed over as long as one is left, since /etc/hosts names ::1
          also where IPv6 is off.
"""

import errno
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .config import Address, ListenerSettings
from .errors import BindError
from .occupant import occupant_of_port
from .unix_path import cannot_listen, in_use

#: with port 0 the port that the kernel chose for one address may be taken on the next
PORT_TRIES = 16
#: this host does not have such an address, or not the whole family
ABSENT = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
FAMILIES = (socket.AF_INET, socket.AF_INET6)  # in the order of `addresses`: (host, port) is what most expect first


def open_tcp(address: Address, settings: ListenerSettings) -> list[socket.socket]:
    """One socket for each address that the host part means, all on one port."""
    resolved = _resolve(address)
    for _ in range(PORT_TRIES - 1 if address.port == 0 and len(resolved) > 1 else 0):
        try:
            return _bind_all(address, resolved, settings)
        except BindError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    return _bind_all(address, resolved, settings)


def _resolve(address: Address) -> list[tuple[socket.AddressFamily, Any]]:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BindError(
            f"cannot listen on {address}: the name {address.host!r} is not found ({reason}); "
            "give an address of this host, or 0.0.0.0 for all of them"
        ) from error
    unique = dict.fromkeys((family, sockaddr) for family, _, _, _, sockaddr in found if family in FAMILIES)
    return sorted(unique, key=lambda pair: FAMILIES.index(pair[0]))


def _bind_all(
    address: Address, resolved: list[tuple[socket.AddressFamily, Any]], settings: ListenerSettings
) -> list[socket.socket]:
    with ExitStack() as bound:
        sockets: list[socket.socket] = []
        port = address.port
        absent: OSError | None = None
        for family, sockaddr in resolved:
            try:
                sock = _bind_tcp(family, (sockaddr[0], port, *sockaddr[2:]), settings)
            except OSError as error:
                if error.errno not in ABSENT:
                    raise bind_error(address, port, error) from error
                absent = error
                continue
            bound.callback(sock.close)
            sockets.append(sock)
            port = sock.getsockname()[1]
        if not sockets:
            assert absent is not None
            raise bind_error(address, port, absent) from absent
        bound.pop_all()
        return sockets


def _bind_tcp(family: int, sockaddr: Any, settings: ListenerSettings) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # rebind while old connections are in TIME_WAIT
        if family == socket.AF_INET6:  # said explicitly: /proc/sys/net/ipv6/bindv6only decides otherwise
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, settings.v6only)
        set_inherited_options(sock, settings)
        sock.bind(sockaddr)
        sock.listen(settings.backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def set_inherited_options(sock: socket.socket, settings: ListenerSettings) -> None:
    """What Linux copies from a listening socket to those it accepts."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, settings.nodelay)
    if settings.keepalive is not None:
        idle, interval, probes = settings.keepalive
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, probes)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, settings.keepalive is not None)
    milliseconds = 0 if settings.user_timeout is None else max(1, round(settings.user_timeout * 1000))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def bind_error(address: Address, port: int, error: OSError) -> BindError:
    """What went wrong, in a sentence."""
    if error.errno == errno.EADDRINUSE:
        return in_use(str(address), occupant_of_port(port))
    if error.errno in (errno.EACCES, errno.EPERM):
        reason = (
            f"the system does not let this user have port {port}; take one of {_first_free_port()} or above, "
            "grant CAP_NET_BIND_SERVICE, or let the service manager open the socket (systemd:name)"
        )
    elif error.errno in ABSENT:
        reason = "this host has no such address; 0.0.0.0 is all of IPv4, [::] all of IPv6"
    else:
        reason = f"{error.strerror or error}; choose another address with `bind`"
    return cannot_listen(str(address), error.errno, reason)


def _first_free_port() -> int:
    """The lowest port that needs no privilege."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        return 1024
