"""Settings: what an operator may choose, with the default that is right in production.

Owns      what concerns the whole server, and what `moorage run` can set besides; for every setting its default,
          its unit, its one-sentence help and the sentence saying when to change it.
Promises  one source: keyword arguments, flags, `MOORAGE_*` variables, TOML keys and the reference
          page are all made from these fields.
Why       one option written in seven places is how uvicorn's `--env-file` got lost.

Times are seconds, sizes are bytes.
"""

from dataclasses import dataclass
from typing import Literal

from .fields import (
    DAY,
    KEEPALIVE_MOST,
    KIB,
    MIB,
    MOST_FIBERS,
    MOST_SOCKETS,
    MOST_WORKERS,
    SPARE_FILES,
    duration,
    rate,
    setting,
    time_limit,
)
from .listening import ListenerSettings

Runner = Literal["inline", "threads", "fibers", "forks"]
Overflow = Literal["wait", "refuse", "reset"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]

__all__ = [
    "DAY",
    "KEEPALIVE_MOST",
    "KIB",
    "MIB",
    "MOST_FIBERS",
    "MOST_SOCKETS",
    "MOST_WORKERS",
    "SHARED_SETTINGS",
    "SPARE_FILES",
    "ListenerSettings",
    "LogFormat",
    "LogLevel",
    "Overflow",
    "ProgramSettings",
    "Runner",
    "ServerSettings",
]


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """What concerns the whole server."""

    runner: Runner = setting(
        "threads",
        "who gives a handler a CPU",
        "`fibers` for many thousands of clients, `forks` for isolation, `inline` in tests",
    )
    workers: int = setting(
        1,
        "worker processes; `auto` is one for each CPU this process may use",
        "`auto` where one CPU is not enough, or where one worker's death should not be everybody's",
        "cpus",
        least=1,
        most=MOST_WORKERS,
    )
    max_connections: int = setting(
        1024,
        "connections at once, over all workers, waiting and lingering ones included; under `fibers` the default is "
        f"what the hard limit of open files allows, at most {MOST_FIBERS:,}",
        "lower it to what the host's memory bears",
        least=1,
        most=MOST_SOCKETS,
    )
    threads: int | None = setting(
        None,
        "handlers at once under `threads`; None means `max_connections`",
        "lower it together with `wait_for_data`",
        least=1,
        most=MOST_SOCKETS,
    )
    queue_timeout: float | None = time_limit(
        30.0, "how long an admitted connection may wait for a thread", "lower it where clients give up sooner"
    )
    overflow: Overflow = setting(
        "wait",
        "what happens to a client above `max_connections`: wait in the backlog, refuse with a message, reset",
        "`refuse` where a client does better with an answer than with a wait",
    )
    overflow_message: bytes = setting(b"", "what a refused client is sent", "set it to your protocol's busy reply")
    max_per_client: int | None = setting(
        None,
        "connections at once of one client (see `client_prefix_v4`), over all workers; more are refused",
        "set it where one client must not take every place; never where many share one address",
        least=1,
        most=MOST_SOCKETS,
    )
    accept_rate: float | None = rate(
        "new connections a second, over all workers; more wait, or are refused as `overflow` says",
        "set it where a storm of reconnects must not starve those who are served",
    )
    accept_burst: int = setting(
        100,
        "new connections above `accept_rate` at once, after a quiet time",
        "to what your server takes in one go",
        least=1,
        most=MOST_SOCKETS,
    )
    client_rate: float | None = rate(
        "new connections a second of one client (see `client_prefix_v4`), over all workers; more are refused",
        "set it against clients that reconnect all the time; never where many share one address",
    )
    client_burst: int = setting(
        10,
        "new connections of one client above `client_rate` at once, after a quiet time",
        "to what an honest client opens at once",
        least=1,
        most=MOST_SOCKETS,
    )
    client_prefix_v4: int = setting(
        32,
        "how many first bits of an IPv4 address make a client, for `max_per_client` and `client_rate`",
        "24 against one who has a whole network of addresses",
        least=8,
        most=32,
    )
    client_prefix_v6: int = setting(
        64,
        "how many first bits of an IPv6 address make a client, for `max_per_client` and `client_rate`",
        "48 or 56 against sites with many /64; 128 where the hosts of one /64 are to be told apart",
        least=16,
        most=128,
    )
    observe_only: tuple[str, ...] = setting(
        (),
        "policies that only count and log whom they would have refused: `max_per_client`, `accept_rate`, "
        "`client_rate`, `rules`, `min_rate`",
        "to try a limit before it bites",
        "words",
    )
    shed_idle: float | None = time_limit(
        None,
        "when places or descriptors run out, close the longest idle of the connections that were idle for this long",
        "set it where a new client matters more than an idle one",
    )
    setup_timeout: float | None = time_limit(
        10.0,
        "how long the PROXY header and the TLS handshake may take together",
        "raise it for clients on very slow lines",
    )
    wait_for_data: bool = setting(
        False, "give a connection its thread only when its first byte is there", "on where the client speaks first"
    )
    first_data_timeout: float | None = time_limit(
        30.0, "how long the first byte may take under `wait_for_data`", "lower it against mute clients"
    )
    idle_timeout: float | None = time_limit(
        60.0, "how long the handler may wait without a byte either way", "raise it above your clients' ping interval"
    )
    message_timeout: float | None = time_limit(
        30.0, "from the first byte to the last of one line or block", "raise it for large blocks over slow lines"
    )
    min_rate: int | None = setting(
        None,
        "bytes a second that a message must bring on the average until it is whole, after five seconds of grace",
        "set it against clients that send a byte now and then",
        "bytes",
        least=1,
        most=1024 * MIB,
    )
    write_timeout: float | None = time_limit(
        30.0, "how long the peer may take no byte of a reply", "raise it for peers that pause on purpose"
    )
    lifetime: float | None = time_limit(
        None, "the longest life of a connection", "set it to spread reconnects over servers"
    )
    line_limit: int = setting(
        64 * KIB, "the longest line", "raise it for protocols with long lines", "bytes", least=1, most=1024 * MIB
    )
    message_limit: int = setting(
        8 * MIB,
        "the largest block of `read_exactly`",
        "raise it for bulk transfer",
        "bytes",
        least=1,
        most=1024 * 1024 * MIB,
    )
    drain_timeout: float | None = duration(
        30.0,
        "how long a drain may take before the rest is cut; zero cuts at once",
        "your longest exchange; below the service manager's kill",
    )
    drain_quiet: float = duration(
        1.0, "how long a connection must be quiet before a drain tells it end of stream", "above your clients' pauses"
    )
    drain_delay: float = duration(
        0.0, "how long a drain goes on accepting before it begins", "set it to your load balancer's check interval"
    )
    drain_spread: float = duration(
        0.0, "spread the tellings of a drain over this time", "set it where a thousand devices would reconnect at once"
    )
    name: str = setting(
        "moorage",
        "names this server in the process list and in the path of its control socket",
        "where several servers run on one host",
    )
    user: str | None = setting(
        None,
        "the user to become once the listeners are open",
        "set it where the start needs root, for a port below 1024",
    )
    group: str | None = setting(None, "the group to become; None means that of `user`", "rarely")
    pid_file: str | None = setting(
        None, "where the supervisor writes its process number", "set it for a service manager that wants one"
    )
    boot_timeout: float | None = time_limit(
        60.0,
        "how long a worker, or the new program of an upgrade, may take to become ready",
        "raise it for slow imports",
    )
    stuck_timeout: float | None = time_limit(
        30.0,
        "how long the loop of a worker may stand still before the worker is killed and replaced; not under `inline`",
        "raise it above the longest computation of a handler under `fibers`",
    )
    recycle_connections: int | None = setting(
        None,
        "replace a worker after about so many connections, give or take a tenth",
        "set it against a library that leaks",
        least=1,
        most=1 << 40,
    )
    recycle_age: float | None = time_limit(
        None, "replace a worker after about this time, give or take a tenth", "set it against a library that leaks"
    )
    recycle_memory: int | None = setting(
        None,
        "replace a worker that holds more resident memory in several looks in a row",
        "set it against a library that leaks",
        "bytes",
        least=MIB,
        most=1024 * 1024 * MIB,
    )
    reload_on_change: bool = setting(
        False, "reload when a Python or settings file below the working directory changes", "on while you develop"
    )
    control: str | None = setting(
        "auto",
        "the path of the control socket, for this user alone; `auto` is in `$RUNTIME_DIRECTORY`, in "
        "`$XDG_RUNTIME_DIR/moorage`, or in a folder of this user in the temporary one",
        "set it where other tools must find it",
    )
    metrics: str | None = setting(
        None,
        "the address where the numbers are told in the Prometheus text format",
        "set it where somebody collects them",
    )
    log_level: LogLevel = setting("info", "the least severe line that is logged", "`debug` to see every end")
    log_format: LogFormat = setting("text", "lines for people, or JSON for machines", "`json` under a log collector")
    log_file: str | None = setting(
        None, "where the log goes; None means standard error", "set it without a service manager"
    )
    log_connections: bool = setting(False, "one line for each connection that ends", "on for an access log")


@dataclass(frozen=True, kw_only=True)
class ProgramSettings:
    """What `moorage run` can set besides: limits of the classes of `moorage.socketserver`."""

    max_children: int = setting(
        40, "child processes at once of a Forking class", "to what the host's memory bears", least=1, most=MOST_SOCKETS
    )
    reuse_threads: bool = setting(
        True,
        "threads of a Threading class serve one client after another",
        "off for programs that leave things in them",
    )
    pool_threads: int = setting(16, "threads of a `ThreadPoolTCPServer`", "clients at once", least=1, most=MOST_SOCKETS)
    pool_processes: int = setting(
        16, "processes of a `ProcessPoolTCPServer`", "clients at once", least=1, most=MOST_SOCKETS
    )


#: what the classes of `moorage.socketserver` have in common with a `Server`, so that `moorage run` can set it
SHARED_SETTINGS = (
    "max_connections", "threads", "wait_for_data", "first_data_timeout", "idle_timeout", "message_timeout",
    "write_timeout", "lifetime", "line_limit", "message_limit", "drain_timeout", "setup_timeout", "backlog", "keepalive",
)  # fmt: skip
