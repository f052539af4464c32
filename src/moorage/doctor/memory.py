"""Memory: whether as many connections as are promised find room, idle ones and the worst ones.

Owns      what one connection costs, and the comparison with what is left of the host and of the control group.
Promises  an error is about connections that do nothing; what takes clients that mean harm is a warning.
Why       a server that is killed for its memory loses every connection at once; a lower limit loses none.
"""

from collections.abc import Iterator

from ..config import Configuration
from ..config.fields import KIB, MIB
from .capacity import busy
from .finding import Finding, of_server
from .machine import Machine

#: a worker with its interpreter, and what it does not share with the supervisor
WORKER = 24 * MIB
#: the socket, its file and its inode, in the kernel
SOCKET = 4 * KIB
#: a connection that waits in an `Echo` over lines: 8 KiB measured with 400 of them (CPython 3.11)
WAITING = 8 * KIB
#: what a handler at work adds: a thread's touched stack (26 KiB measured) with that of the kernel and its task; a
#: child's own pages (3.6 MiB measured); a fiber's stack is in WAITING
HANDLER = {"inline": 0, "threads": 56 * KIB, "fibers": 0, "forks": 4 * MIB}
#: a session of OpenSSL (17 KiB measured), with one record of each direction under way
TLS = 48 * KIB


def check_memory(configuration: Configuration, machine: Machine) -> Iterator[Finding]:
    """Idle connections, then the worst case."""
    left = min((one for one in (machine.memory, machine.group_memory) if one is not None), default=None)
    if left is None:
        return
    server, where = configuration.server, of_server(configuration, "max_connections")
    idle, worst = idle_bytes(configuration), worst_bytes(configuration, machine)
    if idle > left:
        fitting = max(1, int(server.max_connections * left / idle))
        yield where.error(
            f"{server.max_connections} connections that do nothing take about {_size(idle)}, and {_size(left)} are left: "
            "the server is killed before it is full",
            f"max_connections = {fitting}, or more memory (MemoryMax= in the service's unit)",
        )
    elif worst > left:
        fitting = max(1, int(server.max_connections * left / worst))
        yield where.warning(
            f"{server.max_connections} clients that each send the most they may, and read nothing, take up to "
            f"{_size(worst)}, and {_size(left)} are left",
            f"max_connections = {fitting}; or a lower message_limit ({_size(server.message_limit)} now), receive_buffer and "
            "send_buffer",
        )


def idle_bytes(configuration: Configuration) -> int:
    """All places taken by clients that wait in their handler."""
    server = configuration.server
    tls = TLS if any(listener.tls_cert for listener in configuration.listeners) else 0
    each = WAITING + SOCKET + tls
    return server.workers * WORKER + server.max_connections * each + busy(configuration) * HANDLER[server.runner]


def worst_bytes(configuration: Configuration, machine: Machine) -> int:
    """All handlers with the longest message in their hands, and the kernel's buffers full, as far as they may be."""
    server = configuration.server
    messages = busy(configuration) * max(server.line_limit, server.message_limit)
    return idle_bytes(configuration) + messages + _buffers(configuration, machine)


def _buffers(configuration: Configuration, machine: Machine) -> int:
    each = max(
        2 * (one.receive_buffer or 0) + 2 * (one.send_buffer or 0)
        + (machine.own_receive_buffer or 0) * (one.receive_buffer is None)
        + (machine.own_send_buffer or 0) * (one.send_buffer is None)
        for one in configuration.listeners
    )  # fmt: skip
    return min(configuration.server.max_connections * each, machine.tcp_memory or 1 << 62)


def _size(number: float) -> str:
    for unit, size in (("GiB", 1024 * MIB), ("MiB", MIB)):
        if number >= size:
            return f"{number / size:.1f} {unit}".replace(".0 ", " ")
    return f"{number / KIB:.0f} KiB"
