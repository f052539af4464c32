"""Reception: an accepted socket, from its ticket to its runner.

Owns      those who are here (see guests), and those parked until their first byte.
Promises  whoever was admitted is in the table until the socket is closed; a connection that no runner can
          take is closed and reported, and costs nobody else.
Refuses   to count: the gate did; to know what a PROXY header or TLS is: a listener that has any has a setup.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .deadline import Deadline, monotonic
from .events import Address, Cause, ConnectionOpened, Events, HandlerFailed
from .twins import Guests


class Guest(Protocol):
    """What reception needs of a connection."""

    id: int
    peer: Address

    @property
    def local(self) -> Address: ...
    @property
    def is_over(self) -> bool: ...
    def fileno(self) -> int: ...
    def open(self) -> None: ...
    def wait(self) -> None: ...
    def queue(self) -> None: ...
    def finish(self) -> None: ...
    def end(self, cause: Cause, /) -> None: ...


class Timer(Protocol):
    """What the Watch gives for a call to come."""

    def cancel(self) -> None: ...


class Watch(Protocol):
    """What reception and its connections need of the Watch."""

    def call_at(self, when: float, call: Callable[[], None]) -> Timer: ...
    def call_soon(self, call: Callable[[], None]) -> None: ...
    def linger(self, sock: Any, release: Callable[[], None], rest: bytes = b"", /) -> None: ...
    def park(self, fd: int, ready: Callable[[int], None]) -> None: ...
    def unpark(self, fd: int) -> None: ...


class ReceptionSettings(Protocol):
    """The settings that reception obeys."""

    @property
    def wait_for_data(self) -> bool: ...
    @property
    def first_data_timeout(self) -> float | None: ...


class Setup(Protocol):
    """What comes between ticket and handler at one listener; see setup."""

    def begin(self, guest: Any, done: Callable[[Any], None], /) -> None: ...


class Reception(Guests):
    """Where connections live; each of them holds it as its home.

    make    builds a connection from (socket, peer, ticket, home, id)
    submit  gives one to the runner; may raise `OSError` or `RuntimeError` when there is no process or thread
    """

    def __init__(
        self,
        settings: ReceptionSettings,
        watch: Watch,
        events: Events,
        make: Callable[[Any, Address, Any, "Reception", int], Guest],
        submit: Callable[[Any], None],
    ) -> None:
        super().__init__(settings, watch, events)
        #: by listener, for those whose connections have a PROXY header or TLS
        self.setups: Mapping[object, Setup] = {}
        #: makes a connection, with a number from `ids`; see intake, where a runner has one
        self.make = make
        self.ids = itertools.count(1)
        self._submit = submit

    def admit(self, sock: Any, peer: Address, ticket: Any, listener: object = None) -> None:
        """Take over an accepted socket with its ticket; in the thread that turns the Watch."""
        guest = self.make(sock, peer, ticket, self, next(self.ids))
        self._guests[guest.id] = guest
        if ConnectionOpened in self.events.wanted:
            self.events.emit(ConnectionOpened(guest.id, peer, guest.local))
        guest.open()
        if self.setups and (setup := self.setups.get(listener)) is not None:
            setup.begin(guest, self._seat)
            return
        if self.settings.wait_for_data:
            self._park(guest)
            return
        guest.queue()
        try:
            self._submit(guest)
        except (OSError, RuntimeError) as error:
            self._shed(guest, error)

    def wait_for(self, at_most: int, timeout: float | None) -> bool:
        """Wait until at most so many are here; False when `timeout` seconds were not enough."""
        deadline = Deadline(timeout)
        with self._fewer:
            self._watchers += 1
            try:
                return self._fewer.wait_for(lambda: len(self._guests) <= at_most, deadline.remaining())
            finally:
                self._watchers -= 1

    def _seat(self, guest: Guest) -> None:
        """It was set up."""
        if self.settings.wait_for_data and not _has_read_ahead(guest):
            self._park(guest)
        else:
            self._hand_over(guest)

    def _hand_over(self, guest: Guest) -> None:
        guest.queue()
        try:
            self._submit(guest)
        except (OSError, RuntimeError) as error:
            self._shed(guest, error)

    def _shed(self, guest: Guest, error: Exception) -> None:
        """The system has no process or thread: this client's loss."""
        guest.end(Cause.SHED)
        guest.finish()
        if HandlerFailed in self.events.wanted:
            self.events.emit(HandlerFailed(guest.id, guest.peer, error))

    def _park(self, guest: Guest) -> None:
        fd, seconds = guest.fileno(), self.settings.first_data_timeout

        def ready(_mask: int) -> None:
            self.watch.unpark(fd)
            if timer is not None:
                timer.cancel()
            if guest.is_over:
                guest.finish()
            else:
                self._hand_over(guest)

        def give_up() -> None:
            guest.end(Cause.FIRST_DATA)
            ready(0)

        guest.wait()
        timer = None if seconds is None else self.watch.call_at(monotonic() + seconds, give_up)
        self.watch.park(fd, ready)


def _has_read_ahead(guest: Any) -> bool:
    """Whether what a handler would read is here already, behind the PROXY header or the last flight of the handshake."""
    return bool(guest._buffer) or (guest._tls is not None and guest._tls.has_input)
