"""Causes: why a connection ended, and in which phase of its life.

Owns      the phases, the causes, and the one table that says of each cause who records it, in which phases, and
          how loud its log line is.
Promises  every connection ends with exactly one cause of the table, the first that was recorded.
Refuses   to decide: whoever notices the end names its cause.
"""

import logging
from enum import StrEnum
from typing import NamedTuple


class Phase(StrEnum):
    """Where in its life a connection was when it ended."""

    ACCEPTED = "accepted"
    PROXY = "proxy"
    TLS = "tls"
    WAITING = "waiting"
    HANDLER = "handler"


class Cause(StrEnum):
    """Why a connection ended; `CAUSES` says who sets it, in which phases, and how it is logged."""

    PEER_CLOSED = "peer_closed"
    HANDLER_DONE = "handler_done"
    HANDLER_ERROR = "handler_error"
    IDLE = "idle"
    FIRST_DATA = "first_data"
    MESSAGE_DEADLINE = "message_deadline"
    MIN_RATE = "min_rate"
    TOO_LARGE = "too_large"
    WRITE_STALLED = "write_stalled"
    SETUP_DEADLINE = "setup_deadline"
    QUEUE_TIMEOUT = "queue_timeout"
    LIFETIME = "lifetime"
    RESET = "reset"
    REFUSED_TOTAL = "refused_total"
    REFUSED_CLIENT = "refused_client"
    REFUSED_RATE = "refused_rate"
    DENIED = "denied"
    PROXY_ERROR = "proxy_error"
    TLS_ERROR = "tls_error"
    SHED = "shed"
    DETACHED = "detached"
    DRAINED = "drained"
    DRAIN_DEADLINE = "drain_deadline"
    CLOSED_BY_OPERATOR = "closed_by_operator"
    KILLED = "killed"


class CauseRow(NamedTuple):
    """One line of the table of causes."""

    phases: frozenset[Phase]
    set_by: str
    level: int
    meaning: str


_ACCEPTED = frozenset({Phase.ACCEPTED})
_NAMED = frozenset({Phase.ACCEPTED, Phase.PROXY})  # behind a load balancer only the PROXY header says who it is
_QUEUED = frozenset({Phase.ACCEPTED, Phase.WAITING})
_HANDLER = frozenset({Phase.HANDLER})
_SETUP = frozenset({Phase.PROXY, Phase.TLS})
_ANY = frozenset(Phase)

#: Every cause: in which phases it may be recorded, who records it, the level of its log line.
CAUSES: dict[Cause, CauseRow] = {
    Cause.PEER_CLOSED: CauseRow(_ANY, "stream", logging.DEBUG, "end of stream was delivered before the handler returned"),
    Cause.HANDLER_DONE: CauseRow(_HANDLER, "handler", logging.DEBUG, "the handler returned"),
    Cause.HANDLER_ERROR: CauseRow(_HANDLER, "handler", logging.ERROR, "the handler raised an exception of its own"),
    Cause.IDLE: CauseRow(_HANDLER, "watch", logging.DEBUG, "no byte either way for `idle_timeout` while the handler waited"),
    Cause.FIRST_DATA: CauseRow(_QUEUED, "watch", logging.DEBUG, "no first byte within `first_data_timeout`"),
    Cause.MESSAGE_DEADLINE: CauseRow(_HANDLER, "stream", logging.INFO, "a message was begun and not finished within `message_timeout`"),
    Cause.MIN_RATE: CauseRow(_HANDLER, "stream", logging.INFO, "a message arrived slower than `min_rate`"),
    Cause.TOO_LARGE: CauseRow(_HANDLER, "stream", logging.INFO, "a line or message exceeded `line_limit` or `message_limit`"),
    Cause.WRITE_STALLED: CauseRow(_HANDLER, "stream", logging.INFO, "the peer took no byte for `write_timeout`"),
    Cause.SETUP_DEADLINE: CauseRow(_SETUP | _HANDLER, "watch", logging.INFO, "PROXY and TLS together took longer than `setup_timeout`"),
    Cause.QUEUE_TIMEOUT: CauseRow(_QUEUED, "watch", logging.WARNING, "no thread was free within `queue_timeout`"),
    Cause.LIFETIME: CauseRow(_ANY, "watch", logging.INFO, "the connection reached `lifetime`"),
    Cause.RESET: CauseRow(_ANY, "stream", logging.DEBUG, "the peer reset the connection or the network failed"),
    Cause.REFUSED_TOTAL: CauseRow(_ACCEPTED, "admission", logging.WARNING, "`max_connections` was reached and `overflow` is refuse or reset"),
    Cause.REFUSED_CLIENT: CauseRow(_NAMED, "admission", logging.WARNING, "the client has `max_per_client` connections already"),
    Cause.REFUSED_RATE: CauseRow(_NAMED, "admission", logging.WARNING, "clients arrive faster than `accept_rate` or `client_rate`"),
    Cause.DENIED: CauseRow(_ACCEPTED | _SETUP, "admission", logging.INFO, "a rule denies this network"),
    Cause.PROXY_ERROR: CauseRow(frozenset({Phase.PROXY}), "connection", logging.INFO, "the PROXY header is missing, malformed or from an untrusted source"),
    Cause.TLS_ERROR: CauseRow(frozenset({Phase.TLS, Phase.HANDLER}), "connection", logging.INFO, "the TLS handshake or a record failed"),
    Cause.SHED: CauseRow(_ANY, "watch", logging.WARNING, "closed to make room: it was the longest idle"),
    Cause.DETACHED: CauseRow(_HANDLER, "handler", logging.DEBUG, "the handler took the socket away with `detach()`"),
    Cause.DRAINED: CauseRow(_ANY, "drain", logging.DEBUG, "told end of stream by a drain, while quiet"),
    Cause.DRAIN_DEADLINE: CauseRow(_ANY, "drain", logging.WARNING, "still busy at `drain_timeout`"),
    Cause.CLOSED_BY_OPERATOR: CauseRow(_ANY, "operator", logging.INFO, "ended by `end()` or by the operator"),
    Cause.KILLED: CauseRow(_ANY, "runner", logging.ERROR, "its process died"),
}  # fmt: skip
