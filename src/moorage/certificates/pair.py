"""Pair: one certificate with its key, loaded and looked at.

Owns      the check of a certificate and its key, and what is known of it: its names, when it expires.
Promises  a pair that is returned is served: the key fits, a client that trusts it and knows its names would
          take it now; a key with a password never has anybody asked for it on the terminal.
Why       the ssl module reads no certificate from a file; so the context that is to serve it serves it once, in
          memory, to a client that trusts just that certificate, and the client tells what it was shown.
"""

import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Never

from ..config import ListenerSettings
from ..errors import SettingError
from .by_name import Context
from .contexts import date, ends_of_authorities, new_context, whose
from .pem import Pem, read_pem

DAY = 86400.0
#: a certificate that expires sooner is worth a warning; certbot renews 30 days before
SOON = 14 * DAY
#: but of one that lives for days only, this part is left when it is renewed: what Let's Encrypt advises
SOON_PART = 1 / 3
#: OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which the ssl module has no name for: to tell when one has expired
_NO_CHECK_TIME = 0x200000
#: flights of a handshake; it takes three
_MOST_TURNS = 10
_MISMATCHES = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}


@dataclass(frozen=True)
class Pair:
    """One certificate with its key, in a context of its own."""

    path: str
    #: the certificate itself, as it is in the file: to know it again
    leaf: str
    context: Context
    #: the names of hosts in it, as a server name is compared: in lower case; the first label may be `*`
    names: tuple[str, ...]
    #: when it expires, in seconds since 1970
    expires: float
    warnings: tuple[str, ...]


def load_pair(settings: ListenerSettings, number: int, now: float, in_use: frozenset[str] = frozenset()) -> Pair:
    """The certificate of this number in `tls_cert`, with its key; it may have expired if it is in use."""
    certificate = read_pem(whose("tls_cert", settings), settings.tls_cert[number])
    chain = certificate.need_certificates()
    key = _read_key(settings, number, certificate)
    context = new_context(settings)
    _load(context, certificate, key)
    told, begins, expires = _understand(context, certificate)
    if expires <= now and chain[0] not in in_use:
        raise certificate.wrong(f"expired on {date(expires)}: renew it")
    if begins > now:
        raise certificate.wrong(f"is not valid before {date(begins)}: wait, or set this host's clock")
    hosts = tuple(_as_compared(value) for kind, value in told.get("subjectAltName", ()) if kind == "DNS")
    warnings = [
        *_key_warnings(key),
        *_time_warnings(certificate, begins, expires, now),
        *_chain_warnings(certificate, chain[1:], now),
        *_name_warnings(certificate, told),
        *_fit_warnings(settings, certificate, context),
    ]
    return Pair(certificate.path, chain[0], context, hosts, expires, tuple(warnings))


def _read_key(settings: ListenerSettings, number: int, certificate: Pem) -> Pem:
    if settings.tls_key:
        key = read_pem(whose("tls_key", settings), settings.tls_key[number])
        key.need_key()
        return key
    if not certificate.has_key:
        raise certificate.wrong("holds no key: name the key's file in tls_key")
    return certificate


def _load(context: ssl.SSLContext, certificate: Pem, key: Pem) -> None:
    try:
        context.load_cert_chain(certificate.path, key.path, password=_refuse)
    except _Encrypted:
        raise key.wrong(
            "holds a key with a password, which a server cannot be asked for: "
            f"write it without, `(umask 077; openssl pkey -in {key.path} -out NEW.pem)`"
        ) from None
    except ssl.SSLError as error:
        raise _fault_of_pair(error, certificate, key) from None
    except (OSError, ValueError) as error:
        raise certificate.wrong(f"cannot be loaded ({error}): see whether it is being changed") from None


class _Encrypted(Exception):
    """A password was asked for."""


def _refuse() -> Never:
    raise _Encrypted


def _fault_of_pair(error: ssl.SSLError, certificate: Pem, key: Pem) -> SettingError:
    reason = error.reason or ""
    if reason in _MISMATCHES:
        several = "; its own certificate must be the first in the file" if len(certificate.certificates) > 1 else ""
        return key.wrong(f"is not the key of {certificate.path}: name the key it was made with{several}")
    if "TOO_SMALL" in reason or "TOO_WEAK" in reason:
        return certificate.wrong(
            f"is too weak for this host's OpenSSL ({reason.lower().replace('_', ' ')}): make another"
        )
    if _is_readable(certificate):
        return key.wrong("holds a key that cannot be read: it is damaged, get it anew")
    return certificate.wrong("holds a certificate that cannot be read: it is damaged, get it anew")


def _is_readable(certificate: Pem) -> bool:
    try:
        ends_of_authorities("\n".join(certificate.certificates))
    except (ssl.SSLError, TypeError, ValueError):
        return False
    return True


def _understand(context: ssl.SSLContext, certificate: Pem) -> tuple[dict[str, Any], float, float]:
    """What the certificate says, and from when to when it is valid."""
    try:
        told = _look(context, certificate)
        begins, expires = (float(ssl.cert_time_to_seconds(told[name])) for name in ("notBefore", "notAfter"))
    except SettingError:
        raise
    except (ValueError, KeyError):  # bytes that are no text; "Bad time value", which OpenSSL says
        raise certificate.wrong("holds a certificate with a name or a date that is none: get it anew") from None
    return told, begins, expires


def _look(context: ssl.SSLContext, certificate: Pem) -> dict[str, Any]:
    """What clients are told of the certificate, in the words of `getpeercert()`."""
    try:
        shown = _shake_hands(context, _client()).getpeercert(binary_form=True)
        client = _client()
        client.load_verify_locations(cadata=shown or b"")
        client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
        client.verify_mode = ssl.CERT_REQUIRED
        return _shake_hands(context, client).getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        raise certificate.wrong(
            f"is a certificate no client takes ({error.verify_message}): get one for servers"
        ) from None
    except ssl.SSLError as error:
        raise certificate.wrong(f"cannot be served by this host's OpenSSL ({error.reason}): make another") from None


def _client() -> ssl.SSLContext:
    """A client that takes anything."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    client.set_ciphers("ALL:@SECLEVEL=0")  # what is too weak for this host is the server's to say
    return client


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """A handshake in memory; returns the client's end."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server)
    waiting = [ours, server.wrap_bio(to_server, to_client, server_side=True)]
    for _ in range(_MOST_TURNS):
        waiting = [end for end in waiting if not _is_done(end)]
    return ours


def _is_done(end: ssl.SSLObject) -> bool:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _as_compared(name: str) -> str:
    """A name of a host as all are compared: case does not count, nor does a dot at the end."""
    return name.lower().removesuffix(".")


def _key_warnings(key: Pem) -> Iterable[str]:
    if key.is_open:
        yield f"{key.whose}: any user of this host may read the key in {key.path}: chmod 600 {key.path}"


def _time_warnings(certificate: Pem, begins: float, expires: float, now: float) -> Iterable[str]:
    if expires <= now:
        yield f"{certificate.whose}: {certificate.path} expired on {date(expires)}: renew it"
    elif expires - now <= min(SOON, (expires - begins) * SOON_PART):
        yield f"{certificate.whose}: {certificate.path} expires on {date(expires)}: renew it"


def _chain_warnings(certificate: Pem, chain: list[str], now: float) -> Iterable[str]:
    if not chain:
        return
    try:
        ends = ends_of_authorities("\n".join(chain))
    except (ssl.SSLError, TypeError, ValueError):
        return  # the same one twice; what cannot be read was refused when the pair was loaded
    for name, end in ends.items():
        if end <= now:
            yield f"{certificate.whose}: the chain in {certificate.path} has expired at {name}: get the authority's new one"


def _name_warnings(certificate: Pem, told: dict[str, Any]) -> Iterable[str]:
    if not told.get("subjectAltName"):
        yield f"{certificate.whose}: {certificate.path} names no host (subjectAltName), so clients that check names refuse it"


def _fit_warnings(settings: ListenerSettings, certificate: Pem, context: ssl.SSLContext) -> Iterable[str]:
    """A policy of ciphers for RSA, and a key that is not, say."""
    if settings.tls_ciphers is None or settings.tls_min_version != "1.2":
        return
    client = _client()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        _shake_hands(context, client)
    except ssl.SSLError:
        yield (
            f"{whose('tls_ciphers', settings)} has no cipher for the key of {certificate.path}, "
            "so clients without TLS 1.3 are refused: add one"
        )
