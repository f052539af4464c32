"""Certificates: what a listener shows to its clients, and how it tells who they are.

Owns      `pem` (what is in a file), `contexts` (the settings of TLS), `pair` (a certificate with its key),
          `by_name` (which of several a client gets), `current` (those in use, and their renewal).
Promises  every mistake is one `SettingError` sentence; a renewal never makes things worse than they were.
Refuses   to import ssl before a listener has a certificate.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..config import ListenerSettings

if TYPE_CHECKING:
    from .current import Certificates

__all__ = ["Certificates", "load_certificates"]


def load_certificates(settings: ListenerSettings, before: Iterable["Certificates"] = ()) -> "Certificates | None":
    """The certificates of one listener, loaded and checked; None where it has none.

    `before` are those in use until now: one of them may have expired.
    """
    if not settings.tls_cert:
        return None
    from .current import Certificates

    return Certificates(settings, before=before)


def __getattr__(name: str) -> Any:
    if name == "Certificates":
        from .current import Certificates

        return Certificates
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
