"""Current: the certificates of one listener that are in use now, and their renewal.

Owns      which context the next handshake gets.
Promises  files that have changed are taken as a whole, when all of them are good, or not at all; a handshake
          under way keeps what it has begun with; one in use that expires is kept, so that it stops no other's renewal; a
          change is taken at the first handshake after about a second in which no file was written.
Refuses   to wait: who comes while another thread loads gets what there was before.
Why       authorities give certificates for weeks, and a restart for each of them would cut connections; a
          renewal writes several files one after the other, and between two of them they do not fit.
"""

import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

from ..config import ListenerSettings
from ..deadline import Clock, monotonic
from ..events import CertificatesLoaded, CertificatesRejected, Events
from ..freshness import Freshness
from .by_name import Context, choose_by_name
from .contexts import Now, authority_warnings, cipher_warnings, furnish, open_key_log, read_authorities
from .pair import load_pair

#: what was refused is tried again after this time though no file has changed: descriptors may have run out, or
#: a certificate was not yet valid
RETRY_SECONDS = 60.0
#: a file that was written so lately may have another behind it that is not yet written
QUIET_SECONDS = 1.0


class _Loaded(NamedTuple):
    """All that belongs together, so that it changes at once."""

    context: Context
    expires: float
    warnings: tuple[str, ...]
    #: the certificates and the authorities, as they are in their files
    in_use: frozenset[str]


class Certificates:
    """The certificates of one listener."""

    def __init__(
        self,
        settings: ListenerSettings,
        clock: Clock = monotonic,
        now: Now = time.time,
        before: Iterable["Certificates"] = (),
    ) -> None:
        self.events: Events | None = None
        self._settings = settings
        self._clock = clock
        self._now = now
        paths = (*settings.tls_cert, *settings.tls_key, *filter(None, [settings.tls_client_ca]))
        # before they are read, so that no change is missed
        self._freshness = Freshness(paths, clock=clock, quiet=QUIET_SECONDS, wall=now)
        self._loaded: _Loaded = _load(settings, now(), frozenset().union(*(one._loaded.in_use for one in before)))
        self._is_stale = False
        #: why the files were refused when they were last looked at, and when to try again
        self._refusal = ""
        self._retry_at: float | None = None
        # Held by the thread that loads; others only try it, so nobody waits.
        self._loading = threading.Lock()

    @property
    def expires(self) -> float:
        """When the first of them expires, in seconds since 1970."""
        return self._loaded.expires

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is worth a word to the operator, a sentence each."""
        return self._loaded.warnings

    def context(self) -> Context:
        """What the next handshake is to use; `context.for_name` has the others, by the name a client asks for."""
        if self._freshness.changed() or (self._retry_at is not None and self._clock() >= self._retry_at):
            self._is_stale = True
        if self._is_stale and self._loading.acquire(blocking=False):
            try:
                self._is_stale = False  # before the files are read: who sees a change from here on says so again
                event = self._renew()
            finally:
                self._loading.release()
            self._tell(event)
        return self._loaded.context

    def _renew(self) -> CertificatesLoaded | CertificatesRejected | None:
        self._retry_at = None
        refusal = ""
        try:
            loaded = _load(self._settings, self._now(), self._loaded.in_use)
        except (OSError, ValueError) as error:  # a SettingError is one; nothing at all may cost a connection here
            loaded, refusal = self._loaded, str(error)
        if not self._freshness.holds():  # one was written meanwhile: these may not fit, and a look will tell
            return None
        before, self._refusal, self._loaded = self._refusal, refusal, loaded
        if not refusal:
            return CertificatesLoaded(self._settings.tls_cert, loaded.expires)
        self._retry_at = self._clock() + RETRY_SECONDS
        return None if refusal == before else CertificatesRejected(self._settings.tls_cert, refusal)

    def _tell(self, event: CertificatesLoaded | CertificatesRejected | None) -> None:
        if event is not None and self.events is not None and type(event) in self.events.wanted:
            self.events.emit(event)


def _load(settings: ListenerSettings, now: float, in_use: frozenset[str]) -> _Loaded:
    key_log = open_key_log(settings)
    authorities = read_authorities(settings, now, in_use)
    pairs = [load_pair(settings, number, now, in_use) for number in range(len(settings.tls_cert))]
    for pair in pairs:
        furnish(pair.context, settings, authorities)
    first = pairs[0].context
    warnings = [
        *key_log,
        *cipher_warnings(settings, first),
        *authority_warnings(settings, authorities, now),
        *(warning for pair in pairs for warning in pair.warnings),
        *choose_by_name(settings, pairs),
    ]
    known = frozenset([*(pair.leaf for pair in pairs), *filter(None, [authorities])])
    return _Loaded(first, min(pair.expires for pair in pairs), tuple(warnings), known)
