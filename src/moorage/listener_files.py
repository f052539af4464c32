"""Listener files: what is consulted for the clients of one listener, as its settings name it.

Owns      the one moment at which certificates and rules are read for a listener: at its opening, or at a reload.
Promises  a mistake in any of the files is one `SettingError`, before a socket is opened or changed; listeners that
          come of one setting share what was read; nothing is imported for a listener without TLS and rules.
Why       root opens the listeners: the files need not be readable for the user who serves.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .config import ListenerSettings

if TYPE_CHECKING:
    from .certificates import Certificates
    from .rules import Rules


@dataclass(frozen=True)
class ListenerFiles:
    """Each None where the settings name none.

    certificates  for TLS
    rules         who may come in
    trusted       who may send a PROXY header
    """

    certificates: "Certificates | None" = None
    rules: "Rules | None" = None
    trusted: "Rules | None" = None


def read_files(settings: ListenerSettings, before: Iterable["Certificates"] = ()) -> ListenerFiles:
    """All of one listener; raises `SettingError`.  A certificate of `before`, in use until now, may have expired."""
    return ListenerFiles(_certificates(settings, before), _rules(settings), _trusted(settings))


def _certificates(settings: ListenerSettings, before: Iterable["Certificates"]) -> "Certificates | None":
    if not settings.tls_cert:
        return None
    from .certificates import load_certificates

    return load_certificates(settings, before)


def _rules(settings: ListenerSettings) -> "Rules | None":
    if not (settings.allow or settings.deny or settings.rules_file):
        return None
    from .rules import load_rules

    return load_rules(settings)


def _trusted(settings: ListenerSettings) -> "Rules | None":
    if settings.proxy_protocol == "off" or not settings.proxy_trusted:
        return None
    from .rules import load_trusted

    return load_trusted(settings)
