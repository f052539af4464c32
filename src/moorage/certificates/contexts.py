"""Contexts: what the settings of a listener make of a context of OpenSSL's.

Owns      versions, ciphers, ALPN, the check of client certificates, and the key log.
Promises  every context of a listener is made alike, so a client may choose the certificate and nothing else;
          no renegotiation, by which a client could have the server compute for ever, and no compression.
Refuses   to load a certificate: see `pair.py`.
"""

import os
import ssl
import stat
import time
from collections.abc import Callable, Sequence

from ..config import ListenerSettings
from ..errors import SettingError
from .by_name import Context
from .pem import is_open_to_others, read_pem

#: wall clock: certificates are valid from one date to another
Now = Callable[[], float]

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_VERIFY = {"off": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


def whose(setting: str, settings: ListenerSettings) -> str:
    """How a sentence names a setting."""
    return f"{setting} of {settings.bind}"


def date(moment: float) -> str:
    """A moment, as operators read it."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment))


def new_context(settings: ListenerSettings) -> Context:
    """A context that has all but a certificate, a check of clients, and a key log."""
    context = Context(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.minimum_version = _VERSIONS[settings.tls_min_version]
    # before the certificate is loaded: @SECLEVEL in the string says which keys are too short
    if settings.tls_ciphers is not None:
        _set_ciphers(context, settings, settings.tls_ciphers)
    if settings.tls_alpn:
        _set_alpn(context, settings)
    return context


def furnish(context: ssl.SSLContext, settings: ListenerSettings, authorities: str | None) -> None:
    """The rest: what would be in the way while the certificate is looked at."""
    if authorities is not None:
        context.load_verify_locations(cadata=authorities)
        # an authority that is named is trusted, also when another one signed it: an issuing one alone will do
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.verify_mode = _VERIFY[settings.tls_verify]
    if settings.tls_key_log is not None:
        context.keylog_filename = settings.tls_key_log


def read_authorities(settings: ListenerSettings, now: float, in_use: frozenset[str] = frozenset()) -> str | None:
    """The certificates that clients are checked against, None when they are not; may have expired if they are in use."""
    if settings.tls_client_ca is None:
        return None
    pem = read_pem(whose("tls_client_ca", settings), settings.tls_client_ca)
    text = "\n".join(pem.need_certificates())
    try:
        ends = ends_of_authorities(text)
    except (ssl.SSLError, TypeError, ValueError):
        raise pem.wrong("holds a certificate that cannot be read: it is damaged, get it anew") from None
    if ends and max(ends.values()) <= now and text not in in_use:
        raise pem.wrong(f"expired on {date(max(ends.values()))}, and no client would be let in: name a valid authority")
    return text


def authority_warnings(settings: ListenerSettings, authorities: str | None, now: float) -> list[str]:
    """Those that were kept though all of them have expired."""
    ends = ends_of_authorities(authorities) if authorities is not None else {}
    if not ends or max(ends.values()) > now:
        return []
    name, path = whose("tls_client_ca", settings), settings.tls_client_ca
    return [f"{name}: {path} expired on {date(max(ends.values()))}, and no client is let in: name a valid authority"]


def ends_of_authorities(text: str) -> dict[str, float]:
    """When the authorities in this text expire; by name and end, since their names may be the same.

    OpenSSL lists only those that may sign others; the rest of a file does not count here.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=text)
    found = {}
    for certificate in context.get_ca_certs():
        end = str(certificate["notAfter"])
        subject = ", ".join(f"{value}" for part in certificate["subject"] for _, value in part)  # type: ignore[str-unpack]  # typeshed knows the values of getpeercert() as one union
        found[f"{subject if subject.isprintable() else ascii(subject)} ({end})"] = float(ssl.cert_time_to_seconds(end))
    return found


def open_key_log(settings: ListenerSettings) -> Sequence[str]:
    """Makes the file of the key log, for this user alone, before OpenSSL would make it for all; returns warnings."""
    if settings.tls_key_log is None:
        return ()
    name, path = whose("tls_key_log", settings), settings.tls_key_log
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SettingError(
            f"{name}: {path} cannot be written ({error.strerror}): name a file that this user may make, or leave it out"
        ) from None
    mode = os.fstat(fd).st_mode
    os.close(fd)
    if not stat.S_ISREG(mode):
        raise SettingError(f"{name}: {path} is no regular file: name one")
    warnings = [
        f"{name}: the secrets of every connection are written to {path}, and whoever reads it reads all traffic"
    ]
    if is_open_to_others(mode):
        warnings.append(f"{name}: any user of this host may read {path}: chmod 600 {path}")
    return warnings


def cipher_warnings(settings: ListenerSettings, context: ssl.SSLContext) -> list[str]:
    """What is odd about ciphers that can be chosen."""
    if settings.tls_ciphers is None:
        return []
    name = whose("tls_ciphers", settings)
    if settings.tls_min_version == "1.3":
        return [f"{name} says nothing, since tls_min_version is 1.3 and it names ciphers of TLS 1.2: leave it out"]
    bare = [
        str(one["name"])
        for one in context.get_ciphers()
        if "Au=None" in one["description"] or "Enc=None" in one["description"]
    ]
    if bare:
        return [f"{name} allows {bare[0]}, which does not protect a connection: add :!aNULL:!eNULL"]
    return []


def _set_ciphers(context: ssl.SSLContext, settings: ListenerSettings, text: str) -> None:
    try:
        context.set_ciphers(text)
    except ssl.SSLError:
        raise SettingError(
            f"{whose('tls_ciphers', settings)} is {text!r}, in which there is no cipher of TLS 1.2 that OpenSSL has here: "
            "`openssl ciphers -v 'ALL'` lists them (those of TLS 1.3 cannot be chosen)"
        ) from None


def _set_alpn(context: ssl.SSLContext, settings: ListenerSettings) -> None:
    for protocol in settings.tls_alpn:
        if not protocol.isascii() or not 1 <= len(protocol) <= 255:
            raise SettingError(
                f"{whose('tls_alpn', settings)} names {protocol!r}: a protocol has 1 to 255 ASCII characters"
            )
    context.set_alpn_protocols(list(settings.tls_alpn))
