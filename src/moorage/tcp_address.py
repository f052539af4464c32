"""TCP address: the sockets that a host and a port mean.

Owns      the way from `host:port` to sockets that listen; the options that their accepted sockets inherit.
Promises  a name gives a socket for each of its addresses, IPv4 first, all on one port, also where the kernel
          chooses it; all are bound or none; what cannot be bound, and an option that this kernel refuses, is one
          sentence with the way out.
Refuses   SO_REUSEPORT: closing one of several such listeners resets the clients in its backlog.
Note      addresses that this host lacks are passed over as long as one is left, since /etc/hosts names ::1
          also where IPv6 is off.
"""

import errno
import math
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
#: the kernel keeps a size that was set once, and cannot be told to choose again
_SIZES = {"receive_buffer": socket.SO_RCVBUF, "send_buffer": socket.SO_SNDBUF}


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
            except BindError:
                raise
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
        set_options(sock, settings)
        sock.bind(sockaddr)
        sock.listen(settings.backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def set_options(sock: socket.socket, settings: ListenerSettings) -> None:
    """What a listening socket does itself, and what Linux copies from it to those it accepts; raises `BindError`.

    Sizes belong here, before the first client: the scale of the window is said in the first packet.
    """
    _set_inherited(sock, settings)
    for name, option in _SIZES.items():
        if getattr(settings, name) is not None:
            _try(sock, settings, name, (socket.SOL_SOCKET, option), getattr(settings, name))
    seconds = 0 if settings.defer_accept is None else math.ceil(settings.defer_accept)
    _switch(sock, settings, "defer_accept", (socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT), seconds)
    _switch(sock, settings, "fast_open", (socket.IPPROTO_TCP, socket.TCP_FASTOPEN), settings.fast_open or 0)


def _switch(sock: socket.socket, settings: ListenerSettings, name: str, option: tuple[int, int], value: int) -> None:
    """Set an option whose zero is off; where it is off, or the kernel does not have it, off needs nothing."""
    if value == 0:
        try:
            is_on = bool(sock.getsockopt(*option))
        except OSError:
            return
        if not is_on:
            return
    _try(sock, settings, name, option, value)


def _try(sock: socket.socket, settings: ListenerSettings, name: str, option: tuple[int, int], value: int) -> None:
    try:
        sock.setsockopt(*option, value)
    except OSError as error:
        reason = f"this kernel refuses {name} = {value} ({error.strerror}): leave it out"
        raise cannot_listen(settings.bind, error.errno, reason) from error


def unchangeable(family: int, before: ListenerSettings, after: ListenerSettings) -> list[str]:
    """The settings that a socket which listens already does not take on."""
    names = [name for name in _SIZES if getattr(before, name) is not None and getattr(after, name) is None]
    return ["v6only"] * (family == socket.AF_INET6 and before.v6only != after.v6only) + names


def _set_inherited(sock: socket.socket, settings: ListenerSettings) -> None:
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
