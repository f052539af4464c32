"""Serving: the serve loop and the hooks of `socketserver` that the cures sit in.

Owns      what `BaseServer` and the mix-ins have in common, so that a mix-in alone cures a stdlib server.
Promises  every hook with the same arguments, in the same order, in the same thread role; `shutdown()` from
          anywhere, before, during and after serving; no wake-up but for an event.
Refuses   to come before the program's own methods: where a class further down the method resolution order
          is not the standard library's, that one is called.
"""

import logging
import socket
import socketserver as stdlib
import sys
import threading
from typing import TYPE_CHECKING, Any

from ..admission import Ticket
from ..deadline import Deadline, soonest
from ..events import CAUSES, Cause
from . import closing
from .engine import Engine, engine_of
from .faults import cause_of
from .limits import count, seconds
from .listening import is_tls, shake_hands
from .loop import Loop
from .parking import limit_life, park
from .tickets import Held

__all__ = ["Serving"]

#: how often requests that went astray are looked at, and only while no ticket is free
SWEEP_SECONDS = 0.1

_log = logging.getLogger("moorage.socketserver")


class Serving:
    """The loop, the gate and the farewell of every server class and mix-in of this package."""

    #: connections at once; further clients wait in the backlog
    max_connections: int = 1024
    #: how long `server_close()` and the exit of the interpreter wait for handlers; None: for ever
    drain_timeout: float | None = 30.0
    #: how long a TLS handshake may take
    setup_timeout: float | None = 10.0
    #: idle seconds before the first probe, seconds between probes, number of probes; None: the system's
    keepalive: tuple[int, int, int] | None = (60, 15, 4)
    #: the longest life of a connection
    lifetime: float | None = None
    #: whether `process_request()` waits for the client's first byte, and for how long
    wait_for_data: bool = False
    first_data_timeout: float | None = 30.0

    if TYPE_CHECKING:  # of the server class, which comes behind a mix-in: Serving itself inherits nothing
        _BaseServer__is_shut_down: Any
        fileno: Any
        handle_timeout: Any
        service_actions: Any
        socket: Any
        timeout: Any
        verify_request: Any

    # Methods for the caller

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Handle requests until `shutdown()`.

        `poll_interval` matters only where `service_actions()` is overridden, which it is then called at.
        """
        if not _is_stdlib(self._moorage_below.serve_forever, stdlib.BaseServer):
            self._moorage_below.serve_forever(poll_interval)
            return
        engine = engine_of(self)
        self._BaseServer__is_shut_down.clear()  # programs wait for it, by its private name
        try:
            with engine.loop() as loop:
                if not loop.is_ending:
                    self._moorage_prepare(engine, in_loop=True)
                    loop.listen(self.fileno())
                    self._moorage_enter(loop)
                    self._moorage_run(engine, loop, poll_interval)
        finally:
            if not engine.loops:
                self._BaseServer__is_shut_down.set()

    def shutdown(self) -> None:
        """End every run of `serve_forever()` in this process, and wait for them.

        From a serving or handler thread, and from a signal handler in one, it does not wait.  Before the
        first `serve_forever()` it makes that return at once.
        """
        if not _is_stdlib(self._moorage_below.serve_forever, stdlib.BaseServer):
            self._moorage_below.shutdown()
            return
        engine = engine_of(self)
        loops = engine.end_loops()
        if not engine.is_serving_thread():
            for loop in loops:
                loop.done.wait()

    @property
    def _BaseServer__shutdown_request(self) -> bool:
        """What programs set, by its private name, in order to end the loop without waiting."""
        return bool(vars(self).get("_moorage_shutdown_request", False))

    @_BaseServer__shutdown_request.setter
    def _BaseServer__shutdown_request(self, wish: bool) -> None:
        vars(self)["_moorage_shutdown_request"] = wish
        if wish:
            engine_of(self).end_loops()

    def server_close(self) -> None:
        """Close the listener; a loop that still runs ends."""
        self._moorage_below.server_close()
        engine_of(self).wake()

    # Hooks

    def get_request(self) -> Any:
        """Accept; a datagram that vanished between poll and read does not block the loop."""
        below = self._moorage_below.get_request
        if _is_stdlib(below, stdlib.UDPServer) and engine_of(self).here() is not None:
            data, address = self.socket.recvfrom(below.__self__.max_packet_size, socket.MSG_DONTWAIT)
            return (data, self.socket), address
        return below()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle a request in this thread, or as a mix-in says."""
        if self._moorage_shake_hands(request, client_address):
            self._moorage_below.process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Make the handler, which does everything."""
        if self._moorage_shake_hands(request, client_address):
            self._moorage_below.finish_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Say that no more will be sent, and close; what the peer has not read yet reaches it."""
        if not _is_stdlib(self._moorage_below.shutdown_request, stdlib.TCPServer):
            self._moorage_below.shutdown_request(request)
            return
        closing.half_close(request)
        parting = engine_of(self).parting
        parting.add(id(request))
        try:
            self.close_request(request)
        finally:
            parting.discard(id(request))

    def close_request(self, request: Any) -> None:
        """Close, and give the ticket back."""
        engine = engine_of(self)
        try:
            if id(request) in engine.parting and _is_stdlib(self._moorage_below.close_request, stdlib.TCPServer):
                closing.close(engine, request, count(Serving, self, "max_connections"))
            else:
                self._moorage_below.close_request(request)
        finally:
            engine.tickets.release(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print the traceback, unless it only says that this client is gone: that is one quiet line."""
        if _is_stdlib(self._moorage_below.handle_error, stdlib.BaseServer):
            error = sys.exc_info()[1]
            cause = cause_of(request, error)
            if cause is not None:
                _log.log(CAUSES[cause].level, "%s from %s: %s", cause, client_address, error)
                return
        self._moorage_below.handle_error(request, client_address)

    # The loop

    def _moorage_run(self, engine: Engine, loop: Loop, poll_interval: float) -> None:
        while True:
            ready = loop.turn(self._moorage_patience(engine, loop, poll_interval))
            if loop.is_ending:
                return
            engine.tickets.collect()
            if loop.is_waiting:
                engine.tickets.sweep()
            if ready:
                self._handle_request_noblock()
            self.service_actions()
            if self._moorage_is_closed():
                return

    def _moorage_patience(self, engine: Engine, loop: Loop, poll_interval: float) -> float | None:
        """How long the loop may sleep without an event."""
        interval = poll_interval if self._moorage_has_service_actions() else None
        astray = SWEEP_SECONDS if loop.is_waiting and engine.tickets.has_astray else None
        return soonest(interval, astray)

    def _moorage_has_service_actions(self) -> bool:
        return not _is_stdlib(self.service_actions, stdlib.BaseServer)

    def _moorage_is_closed(self) -> bool:
        """Whether `server_close()` was called without `shutdown()`."""
        listener = getattr(self, "socket", None)
        return isinstance(listener, socket.socket) and listener.fileno() < 0

    def _handle_request_noblock(self) -> None:
        engine = engine_of(self)
        loop = engine.here()
        ticket = self._moorage_take_ticket(engine, loop)
        if ticket is None:
            return
        try:
            self._moorage_prepare(engine, in_loop=loop is not None)
            request, client_address = self.get_request()
        except BaseException as error:
            ticket.give_back()
            if not isinstance(error, OSError):
                raise
            self._moorage_cope(engine, loop, error)
            return
        engine.errors.over()
        self._moorage_process(engine, ticket, request, client_address)

    def _moorage_process(self, engine: Engine, ticket: Ticket, request: Any, client_address: Any) -> None:
        """As the standard library's, with the ticket held by the request."""
        engine.listening.admit(request)
        held = engine.tickets.hold(request, ticket)
        loop = engine.here()
        try:
            if not self.verify_request(request, client_address):
                self.shutdown_request(request)
                return
            lifetime = seconds(Serving, self, "lifetime")
            if lifetime is not None and loop is not None:
                limit_life(loop, request, lifetime)
            if self.wait_for_data is True and loop is not None and isinstance(request, socket.socket):
                self._moorage_park(engine, loop, held, request, client_address)
            else:
                self._moorage_go_on(engine, held, request, client_address)
        finally:
            if not held.claimed:
                engine.tickets.settle(held)

    def _moorage_park(
        self, engine: Engine, loop: Loop, held: Held, request: socket.socket, client_address: Any
    ) -> None:
        """Go on when the client has said something."""

        def ready(has_data: bool) -> None:
            held.claimed = False
            if has_data:
                self._moorage_go_on(engine, held, request, client_address)
            else:
                _log.log(CAUSES[Cause.FIRST_DATA].level, "%s from %s", Cause.FIRST_DATA, client_address)
                self.shutdown_request(request)
            if not held.claimed:
                engine.tickets.settle(held)

        held.claimed = True
        park(loop, request, seconds(Serving, self, "first_data_timeout"), ready)

    def _moorage_go_on(self, engine: Engine, held: Held, request: Any, client_address: Any) -> None:
        own = threading.get_ident()
        outer = engine.arriving.get(own)
        engine.arriving[own] = held
        try:
            self.process_request(request, client_address)
        except Exception:
            self.handle_error(request, client_address)
            self.shutdown_request(request)
        except BaseException:
            self.shutdown_request(request)
            raise
        finally:
            engine.arriving.pop(own, None)
            if outer is not None:
                engine.arriving[own] = outer

    def _moorage_take_ticket(self, engine: Engine, loop: Loop | None) -> Ticket | None:
        """A ticket; None when there is none, and the loop or `handle_timeout()` has been told."""
        gate = engine.open_gate(self._moorage_places())
        ticket = gate.take()
        if ticket is None:
            engine.tickets.sweep()
            ticket = gate.take()
        if ticket is not None:
            return ticket
        if loop is not None:
            loop.wait_for(gate)
            return None
        deadline = Deadline(self.timeout)
        while ticket is None and not deadline.is_due():
            engine.tickets.sweep()
            freed = threading.Event()
            gate.when_free(freed.set)
            freed.wait(soonest(deadline.remaining(), SWEEP_SECONDS if engine.tickets.has_astray else None))
            ticket = gate.take()
        if ticket is None:
            self.handle_timeout()
        return ticket

    def _moorage_cope(self, engine: Engine, loop: Loop | None, error: OSError) -> None:
        """`get_request()` failed: go on, pause, or let the error end the loop."""
        if self._moorage_is_closed():
            return
        try:
            pause = engine.errors.met(error, getattr(self, "socket", None))
        except OSError:
            if loop is not None:
                raise
            return
        if pause is not None and loop is not None:
            loop.pause(pause)
        elif pause is not None:
            threading.Event().wait(pause)

    @property
    def _moorage_below(self) -> Any:
        """What comes after this class in the method resolution order."""
        return super()

    # What the mix-ins change

    def _moorage_enter(self, loop: Loop) -> None:
        """The loop is about to run."""

    def _moorage_places(self) -> int:
        """How many tickets there are."""
        return int(count(Serving, self, "max_connections"))

    def _moorage_prepare(self, engine: Engine, *, in_loop: bool) -> None:
        own = getattr(self.get_request, "__func__", None)
        wraps = own is not Serving.get_request and own is not stdlib.TCPServer.get_request
        timeout = seconds(Serving, self, "setup_timeout") if wraps else None
        engine.listening.prepare(self, in_loop=in_loop, setup_timeout=timeout)

    def _moorage_shake_hands(self, request: Any, client_address: Any) -> bool:
        """Make the handshake that was left out at accept; False when it failed."""
        if not engine_of(self).listening.defers_handshake or not is_tls(request) or request.version() is not None:
            return True
        try:
            shake_hands(request, seconds(Serving, self, "setup_timeout"))
        except (OSError, ValueError) as error:
            cause = Cause.SETUP_DEADLINE if isinstance(error, TimeoutError) else Cause.TLS_ERROR
            _log.log(CAUSES[cause].level, "%s from %s: no TLS handshake: %s", cause, client_address, error)
            return False
        return True


def _is_stdlib(method: Any, owner: type) -> bool:
    """Whether this bound method is the standard library's own, and that of this class."""
    return getattr(method, "__func__", None) is vars(owner).get(method.__name__)
