"""ForkingMixIn: each request in a process of its own, bounded and reaped without blocking.

Owns      the fork of a child for one request, and its ticket until the child has ended.
Promises  at the limit clients wait in the backlog, and the loop goes on turning; only own pids are waited
          for; the child has neither the listener nor any descriptor of the loop.
Refuses   to wait for children longer than `drain_timeout`: then SIGTERM, a second later SIGKILL.
Why       at its limit the standard library waits for any child, blocking: `shutdown()` hangs, and the exit
          status of the program's own subprocess is stolen.
"""

import socket
import socketserver as stdlib
from typing import Any

from ..deadline import Deadline, soonest
from ..runners.children import Children
from .borrow import borrow
from .drain import LOOK_SECONDS, Quiet, quiet_needed
from .engine import Engine, Guest, engine_of
from .limits import seconds
from .loop import Loop
from .serving import Serving

__all__ = ["ForkingMixIn", "leave_to_parent"]

#: how often children are looked for where the kernel gives no descriptor for them
REAP_SECONDS = 0.5


class ForkingMixIn(Serving, stdlib.ForkingMixIn):
    """Mix-in class to handle each request in a new process."""

    def process_request(self, request: Any, client_address: Any) -> None:
        """Fork a child to handle the request."""
        engine = engine_of(self)
        children = self._moorage_children(engine)
        held = engine.tickets.find(request) or engine.claim(request)
        fd = request.fileno() if isinstance(request, socket.socket) else -1
        child = children.fork(
            lambda: self._moorage_be_the_child(request, client_address),
            close=lambda: leave_to_parent(self, engine, keep=request),
        )
        ticket = engine.tickets.take_over(held) if held is not None else None
        engine.guests[child.pid] = Guest(child, ticket, fd, client_address)
        self.close_request(request)

    def collect_children(self, *, blocking: bool = False) -> None:
        """Take note of the children that have ended; with `blocking`, wait for all."""
        engine = engine_of(self)
        if engine.children is not None:
            engine.children.reap()
            if blocking and not self._moorage_drain(engine, engine.children):
                engine.children.stop()

    def handle_timeout(self) -> None:
        """Take note of the children that have ended, after `timeout` seconds without a request."""
        self.collect_children()

    def service_actions(self) -> None:
        """Take note of the children that have ended; the loop wakes when one does."""
        self.collect_children()

    def server_close(self) -> None:
        """Close the listener and wait for the children as `block_on_close` says."""
        super().server_close()  # which also collects, by the method above
        engine = engine_of(self)
        if engine.children is not None and not engine.children:
            engine.children.close()
            engine.children = None

    def _moorage_drain(self, engine: Engine, children: Children) -> bool:
        """Wait for the children, and tell those whose client is quiet; False at the deadline."""
        timeout = seconds(Serving, self, "drain_timeout")
        deadline = Deadline(timeout)
        quiet = Quiet()
        while not children.wait(Deadline(soonest(deadline.remaining(), LOOK_SECONDS))):
            if deadline.is_due():
                return False
            for pid, guest in tuple(engine.guests.items()):
                request = borrow(guest.child.pidfd, guest.fd, guest.peer)
                if request is not None:
                    with request:
                        quiet.tell(pid, request, quiet_needed(deadline, timeout))
        return True

    def _moorage_children(self, engine: Engine) -> Children:
        if engine.children is None:
            engine.children = Children(self.max_children, on_exit=engine.child_ended)
            self.active_children = engine.children.pids
        return engine.children

    def _moorage_be_the_child(self, request: Any, client_address: Any) -> int:
        try:
            if self._moorage_shake_hands(request, client_address):
                self.finish_request(request, client_address)
            return 0
        except Exception:
            self.handle_error(request, client_address)
            return 1
        finally:
            self.shutdown_request(request)

    def _moorage_enter(self, loop: Loop) -> None:
        super()._moorage_enter(loop)
        children = self._moorage_children(engine_of(self))
        if children.fileno() >= 0:
            loop.watch.listen(children.fileno(), lambda: None)  # `service_actions` reaps

    def _moorage_places(self) -> int:
        return self.max_children

    def _moorage_has_service_actions(self) -> bool:
        own = getattr(self.service_actions, "__func__", None)
        children = engine_of(self).children
        return own is not ForkingMixIn.service_actions or (children is not None and children.fileno() < 0)


def leave_to_parent(server: Any, engine: Engine, keep: Any = None) -> None:
    """In a child: close what only the parent needs.  A datagram's request is the listener itself."""
    engine.close_inherited()
    if isinstance(keep, socket.socket) and isinstance(server.socket, socket.socket):
        server.socket.close()
