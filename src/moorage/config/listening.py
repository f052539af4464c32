"""ListenerSettings: what an operator may choose for one listener.

Owns      where it listens, what its sockets are set to, who may come in there, and TLS and PROXY for them.
Promises  whatever is not said of a listener is what was said for all of them.
"""

from dataclasses import dataclass
from typing import Literal

from .fields import MIB, networks, setting, time_limit

ProxyMode = Literal["off", "optional", "required"]
TlsMode = Literal["implicit", "starttls"]
TlsVerify = Literal["off", "optional", "required"]
TlsVersion = Literal["1.2", "1.3"]


@dataclass(frozen=True, kw_only=True)
class ListenerSettings:
    """What concerns one listener."""

    bind: str = setting(
        "127.0.0.1:20000",
        "`host:port`, `[v6]:port`, `unix:/path`, `unix:@abstract`, `fd://3` or `systemd:name`",
        "`0.0.0.0:port` or `[::]:port` to serve other hosts",
    )
    backlog: int = setting(
        2048, "clients that may wait for accept; clipped by the kernel", "rarely", "", least=1, most=(1 << 31) - 1
    )
    nodelay: bool = setting(True, "send small writes at once (TCP_NODELAY)", "off for bulk written in tiny pieces")
    keepalive: tuple[int, int, int] | None = setting(
        (60, 15, 4),
        "TCP keepalive: idle seconds before the first probe, between probes, number of probes",
        "shorter behind a NAT that forgets sooner",
        least=1,
    )
    user_timeout: float | None = time_limit(
        120.0,
        "how long sent data may stay unacknowledged (TCP_USER_TIMEOUT)",
        "raise it for links that break for minutes",
    )
    v6only: bool = setting(True, "an IPv6 listener takes no IPv4 clients", "off for one dual-stack listener")
    unix_mode: int = setting(
        0o600, "permissions of a Unix socket's path", "0o660 for a group", "octal", least=0, most=0o777
    )
    unix_user: str | None = setting(
        None,
        "the user that owns a Unix socket's path, by name or number; None is the one who starts the server",
        "set it together with `user`, whose clients could not connect to a path of root",
    )
    unix_group: str | None = setting(
        None,
        "the group that owns a Unix socket's path, by name or number; None is that of the one who starts the server",
        "with `unix_mode` 0o660, for the group of a proxy",
    )
    receive_buffer: int | None = setting(
        None,
        "the kernel's receive buffer of each TCP connection (SO_RCVBUF); None lets the kernel choose, and grow it",
        "lower it where memory is short for many thousands of connections",
        "bytes",
        least=2304,
        most=1024 * MIB,
    )
    send_buffer: int | None = setting(
        None,
        "the kernel's send buffer of each TCP connection (SO_SNDBUF); None lets the kernel choose, and grow it",
        "lower it where memory is short for many thousands of connections",
        "bytes",
        least=4608,
        most=1024 * MIB,
    )
    defer_accept: float | None = time_limit(
        None,
        "leave a client in the kernel until its first byte, for at most about this time (TCP_DEFER_ACCEPT)",
        "where the client speaks first and mute ones are many; never where the server does: every client would wait as long",
    )
    fast_open: int | None = setting(
        None,
        "clients that may be half-open with data in their first packet (TCP_FASTOPEN)",
        "set it where clients use it, and your protocol bears a request that comes twice",
        least=1,
        most=65535,
    )
    allow: tuple[str, ...] = networks(
        "networks whose clients may come in; when any is named, all others are denied", "to your clients' networks"
    )
    deny: tuple[str, ...] = networks(
        "networks whose clients may not come in; of `allow` and `deny` the more specific one wins, `deny` if equal",
        "against a network that attacks",
    )
    rules_file: str | None = setting(
        None,
        "a file with a line `allow NETWORK` or `deny NETWORK` each, read again when it changes",
        "where the rules change while the server runs",
    )
    proxy_protocol: ProxyMode = setting(
        "off",
        "whether a PROXY header (version 1 or 2) precedes each connection; it must come from `proxy_trusted`",
        "`required` behind a load balancer that sends it; `optional` while you migrate, where clients speak first",
    )
    proxy_trusted: tuple[str, ...] = networks(
        "networks of the load balancers that may send a PROXY header; a Unix socket's peers may, its permissions say who",
        "always together with `proxy_protocol`",
    )
    tls_cert: tuple[str, ...] = setting(
        (),
        "PEM files with the certificate and its chain; of several, the client's server name (SNI) chooses",
        "set it to serve TLS",
        "paths",
    )
    tls_key: tuple[str, ...] = setting(
        (),
        "PEM files with the keys, in the order of `tls_cert`; none where each is in the file of its certificate",
        "with `tls_cert`",
        "paths",
    )
    tls_mode: TlsMode = setting(
        "implicit",
        "whether TLS begins with the connection, or when the handler calls `start_tls()`",
        "`starttls` for protocols that begin in plain text",
    )
    tls_client_ca: str | None = setting(
        None,
        "a PEM file with the authorities that client certificates are checked against",
        "to know clients by certificate",
    )
    tls_verify: TlsVerify = setting(
        "off",
        "whether a client must, may, or need not show a certificate of `tls_client_ca`",
        "`required` for mutual TLS",
    )
    tls_min_version: TlsVersion = setting("1.2", "the oldest version of TLS", "`1.3` where all clients have it")
    tls_alpn: tuple[str, ...] = setting(
        (), "application protocols to choose from (ALPN), the preferred one first", "where clients ask for one", "words"
    )
    tls_ciphers: str | None = setting(
        None,
        "ciphers of TLS 1.2, in OpenSSL's notation; None is OpenSSL's own choice",
        "where a policy prescribes them",
    )
    tls_key_log: str | None = setting(
        None,
        "a file to which the secrets of every connection are written, for Wireshark; whoever reads it reads all traffic",
        "only while you look for a fault",
    )
