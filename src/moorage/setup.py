"""Setup: what comes between a connection's ticket and its handler at one listener: PROXY header, TLS handshake.

Owns      who may send a header, and what an arriving connection is to go through; each on its way is an `Arrival`.
Promises  a listener without PROXY and TLS has none of this, and its connections pay nothing for it.
Refuses   a header from whom `proxy_trusted` does not name.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from .arrival import Arrival, Call, Certificates, Done, Door, Refusal, Session, SetupSettings, Watch
from .events import Address, Events
from .refusal import LateRefusal


class Rules(Protocol):
    """Which networks; see rules."""

    def admits(self, addr: Address, /) -> bool: ...


class Listener(Protocol):
    """Where the client came in; see listener."""

    @property
    def settings(self) -> Any: ...
    @property
    def certificates(self) -> Any: ...
    @property
    def trusted(self) -> Rules | None: ...


class Setup:
    """For the connections of one listener.

    offload  runs a step that computes where it holds up nobody, and then a call as the Watch does; see runners/base
    """

    def __init__(
        self,
        listener: Listener,
        door: Door | None,
        settings: SetupSettings,
        watch: Watch,
        events: Events,
        offload: Callable[[Call, Call], None],
    ) -> None:
        self._trusted = listener.trusted
        self._certificates: Certificates | None = listener.certificates
        self._session: Callable[[Any], Session]
        self.why: Callable[[Exception], str]
        self.door = door
        self.settings = settings
        self.watch = watch
        self.events = events
        self.offload = offload
        self.proxy_mode: str = listener.settings.proxy_protocol
        self.is_tls = listener.certificates is not None and listener.settings.tls_mode == "implicit"
        # where TLS is spoken nobody is sent clear text
        self.refusal: Refusal = LateRefusal(settings.overflow, b"" if self.is_tls else settings.overflow_message)
        if listener.certificates is not None:
            # here alone, since ssl takes 10 ms; and not later, when there may be no descriptor left to import with
            from .setup_reasons import why
            from .transport.tls import Session as TlsSession

            self.why, self._session = why, TlsSession
            listener.certificates.events = events  # which are told of renewals

    def begin(self, guest: Any, done: Done) -> None:
        """Set it up; `done(guest)` when it may speak to a handler.  In the Watch's thread, and so is `done`."""
        guest._certificates = self._certificates
        if self.proxy_mode != "off" or self.is_tls:
            Arrival(self, guest, done).begin()
        else:  # TLS begins when the handler says so
            done(guest)

    def trusts(self, addr: Address) -> bool:
        """Whether a PROXY header from here is believed; of a Unix socket the permissions of its path say who may."""
        return not isinstance(addr, tuple) or (self._trusted is not None and self._trusted.admits(addr))

    def make_session(self) -> Session:
        """A TLS conversation with the certificates of now; in any thread."""
        assert self._certificates is not None
        return self._session(self._certificates.context())


def make_setups(
    listeners: Sequence[Any],
    doors: Sequence[Door | None],
    settings: SetupSettings,
    watch: Watch,
    events: Events,
    offload: Callable[[Call, Call], None],
) -> dict[Any, Setup]:
    """For those listeners whose connections have anything to be set up."""
    return {
        listener: Setup(listener, door, settings, watch, events, offload)
        for listener, door in zip(listeners, doors, strict=True)
        if listener.certificates is not None or listener.settings.proxy_protocol != "off"
    }
