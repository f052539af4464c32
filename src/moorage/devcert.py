"""Devcert: certificates for a developer's own machine, signed by an authority that is made for them.

Owns      what `moorage devcert` writes: `ca.pem`, `cert.pem` and `key.pem`.
Promises  a file that exists is left alone unless that is asked for, and then put in its place whole, so that a server
          which uses it takes the new ones; the key is of this user alone.
Refuses   to keep the key of the authority: who trusts `ca.pem` trusts this one certificate, and nobody can make
          more of them.
Why       self-signed certificates teach programs to check nothing; with an authority of one's own, they check.
"""

import os
import shlex
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

from .errors import OperatorError

if TYPE_CHECKING:
    import trustme

#: whom clients on the same machine ask for
LOCAL = ("localhost", "127.0.0.1", "::1")
CA, CERT, KEY = "ca.pem", "cert.pem", "key.pem"
#: from a day ago, for clocks that differ; clients of Apple's take at most 397 days or so
FROM, TO = timedelta(days=-1), timedelta(days=365)
#: what a name may not have in it: then it is an address with a port, a path, a URL or a person
_ODD = set("/:@ \t\n\r\0,")


def make(names: Sequence[str], folder: str, force: bool) -> list[str]:
    """Writes an authority and a certificate for these names (none: `LOCAL`); returns what to tell the developer."""
    names = tuple(names) or LOCAL
    for name in names:
        _check(name)
    if not force:
        _check_absent(folder)
    authority, made = _sign(names)
    try:
        os.makedirs(folder, exist_ok=True)
        _write(folder, KEY, made.private_key_pem.bytes(), 0o600, force)
        _write(folder, CERT, b"".join(block.bytes() for block in made.cert_chain_pems), 0o644, force)
        _write(folder, CA, authority.cert_pem.bytes(), 0o644, force)
    except OSError as error:
        raise OperatorError(
            f"devcert cannot write {error.filename or folder} ({error.strerror}): name another folder with --folder"
        ) from None
    return list(_story(names, folder))


def _check(name: str) -> None:
    try:
        ip_address(name)
    except ValueError:
        if not name or set(name) & _ODD or not _is_wildcard_fine(name):
            raise OperatorError(
                f"devcert cannot make a certificate for {name!r}: give names such as localhost, *.app.test or 127.0.0.1, "
                "without a port"
            ) from None


def _is_wildcard_fine(name: str) -> bool:
    """OpenSSL takes a wildcard for the whole first label, and not one for all of a top-level domain."""
    rest = name.removeprefix("*.")
    return "*" not in rest and (rest == name or "." in rest)


def _check_absent(folder: str) -> None:
    for name in (CA, CERT, KEY):
        path = os.path.join(folder, name)
        if os.path.lexists(path):
            raise OperatorError(f"{path} exists: name another folder with --folder, or replace the files with --force")


def _sign(names: Sequence[str]) -> "tuple[trustme.CA, trustme.LeafCert]":
    try:
        import trustme
    except ImportError as error:
        raise OperatorError(
            f"devcert needs trustme, which cannot be imported ({error}): install it with `pip install trustme`"
        ) from None
    authority = trustme.CA(organization_name="moorage devcert")
    now = datetime.now(UTC)
    try:
        made = authority.issue_cert(
            *names, organization_name="moorage devcert", not_before=now + FROM, not_after=now + TO
        )
    except ValueError as error:  # what is no name in the rules for international names
        raise OperatorError(f"devcert cannot make a certificate for {' '.join(names)} ({error})") from None
    return authority, made


def _write(folder: str, name: str, data: bytes, mode: int, force: bool) -> None:
    """Writes one file; in the place of another one by a rename, which nobody sees half of."""
    path = os.path.join(folder, name)
    written = f"{path}.new" if force else path
    if force and os.path.lexists(written):
        os.unlink(written)
    with open(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
        file.write(data)
    if force:
        os.replace(written, path)


def _story(names: Sequence[str], folder: str) -> Iterable[str]:
    ca, cert, key = (os.path.join(folder, name) for name in (CA, CERT, KEY))
    yield f"{cert} is a certificate for {', '.join(names)}, for a year; {key} is its key."
    yield f"{ca} is the authority that signed it, and will sign no other: its key was thrown away."
    yield ""
    yield "Next:"
    yield f"1. serve:  moorage serve echo --tls-cert {shlex.quote(cert)} --tls-key {shlex.quote(key)}"
    yield (
        f"2. try it: openssl s_client -connect 127.0.0.1:20000 -servername {shlex.quote(_asked(names))} "
        f"-CAfile {shlex.quote(ca)} -verify_return_error -quiet"
    )
    yield f"3. trust:  give {shlex.quote(ca)} to your clients; in Python: ssl.create_default_context(cafile={ca!r})"


def _asked(names: Sequence[str]) -> str:
    """A name of a host that a client can ask for."""
    for name in names:
        try:
            ip_address(name)
        except ValueError:
            return name.replace("*", "www", 1)
    return "localhost"
