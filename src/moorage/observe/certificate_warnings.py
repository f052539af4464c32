"""Certificate warnings: the log lines about certificates that are used, and should be better.

Owns      which of them were said.
Promises  a sentence for each, at the start, and again when certificates were loaded anew: by a renewal or a reload.
Refuses   to speak in a worker: its supervisor uses the same files, and speaks for all.
"""

import logging
from collections.abc import Iterable
from itertools import chain
from typing import Any, Protocol

from ..events import CertificatesLoaded, Event, Events
from .logs import LOGGER


class Listener(Protocol):
    """Whose certificates; see listener."""

    @property
    def certificates(self) -> Any: ...


class CertificateWarnings:
    """Those of one server."""

    def __init__(self) -> None:
        #: what was loaded when we spoke last, told apart by identity: the same fault of another key is another one
        self._said: list[tuple[str, ...]] = []

    def say(self, listeners: Iterable[Listener]) -> None:
        """What is new since the last time; cheap when nothing is."""
        found = [listener.certificates.warnings for listener in listeners if listener.certificates is not None]
        new = [one for one in found if not any(one is said for said in self._said)]
        self._said = found
        for sentence in dict.fromkeys(chain.from_iterable(new)):
            logging.getLogger(LOGGER).warning("%s", sentence)


def warn_of_certificates(listeners: Iterable[Listener], events: Events, *, is_worker: bool) -> None:
    """Now, and after each renewal that these events tell of."""
    used = [listener for listener in listeners if listener.certificates is not None]
    if is_worker or not used:
        return
    warnings = CertificateWarnings()
    warnings.say(used)

    def say_again(_event: Event) -> None:
        warnings.say(used)

    events.subscribe(say_again, CertificatesLoaded)
