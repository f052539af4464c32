"""Certificates for tests: an authority, and what it has signed, in files of a folder for the whole run.

Promises  made when first asked for, once in a process; keys are of this user alone.  Do not write into these
          files: `write(issue(...), folder)` makes some for a test of its own.
"""

import atexit
import functools
import os
import shutil
import ssl
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

from moorage.certificates.by_name import Context

#: the names that a server of the tests has without SNI, and with it
HOSTS = ("localhost", "127.0.0.1", "::1")
FIRST_NAME, SECOND_NAMES = "first.example", ("second.example", "*.second.example")


@dataclass(frozen=True)
class Files:
    """One certificate and its key, as the settings `tls_cert` and `tls_key` name them."""

    cert: str
    key: str


@dataclass(frozen=True)
class Set:
    """Everything there is."""

    #: what clients and servers trust
    ca: str
    #: for localhost, 127.0.0.1 and ::1
    server: Files
    #: for FIRST_NAME, and for SECOND_NAMES
    first: Files
    second: Files
    #: of a client, whose name is `device-1`
    client: Files
    #: for localhost, and over since a day
    expired: Files
    #: of a client that an authority nobody trusts has signed
    stranger: Files
    #: the certificate and the key of `server` in one file
    in_one: str


@functools.cache
def authority() -> trustme.CA:
    return trustme.CA()


def issue(
    *names: str, starts: float = -3600, ends: float = 365 * 86400, by: trustme.CA | None = None
) -> trustme.LeafCert:
    """A certificate for these names, valid from `starts` to `ends` seconds from now."""
    now = datetime.now(UTC)
    begin, end = now + timedelta(seconds=starts), now + timedelta(seconds=ends)
    return (by or authority()).issue_cert(*names, not_before=begin, not_after=end)


def write(made: trustme.LeafCert, folder: Path, name: str = "server") -> Files:
    """Puts it into files, as a renewal does: each whole, in the place of the one before."""
    folder.mkdir(exist_ok=True)
    files = Files(str(folder / f"{name}.pem"), str(folder / f"{name}-key.pem"))
    put(files.cert, b"".join(block.bytes() for block in made.cert_chain_pems))
    put(files.key, made.private_key_pem.bytes())
    return files


def put(path: str, data: bytes) -> None:
    """A file of this user alone, in the place of what was there."""
    new = Path(f"{path}.new")
    new.touch(0o600)
    new.write_bytes(data)
    new.rename(path)


@functools.cache
def _folder() -> Path:
    made, maker = Path(tempfile.mkdtemp(prefix="moorage-certificates-")), os.getpid()

    def remove() -> None:
        if os.getpid() == maker:  # and not a child that it forked
            shutil.rmtree(made, ignore_errors=True)

    atexit.register(remove)
    return made


@functools.cache
def certificates() -> Set:
    """The files of this run."""
    folder = _folder()
    put(str(folder / "ca.pem"), authority().cert_pem.bytes())
    server = write(issue(*HOSTS), folder, "server")
    put(str(folder / "in-one.pem"), Path(server.cert).read_bytes() + Path(server.key).read_bytes())
    return Set(
        ca=str(folder / "ca.pem"),
        server=server,
        first=write(issue(FIRST_NAME), folder, "first"),
        second=write(issue(*SECOND_NAMES), folder, "second"),
        client=write(authority().issue_cert(common_name="device-1"), folder, "client"),
        expired=write(issue(*HOSTS, starts=-2 * 86400, ends=-86400), folder, "expired"),
        stranger=write(trustme.CA().issue_cert(common_name="stranger"), folder, "stranger"),
        in_one=str(folder / "in-one.pem"),
    )


def client_context(files: Files | None = None) -> ssl.SSLContext:
    """What a client uses that trusts the authority, and shows this certificate if it has one."""
    context = ssl.create_default_context(cafile=certificates().ca)
    if files is not None:
        context.load_cert_chain(files.cert, files.key)
    return context


def shake_hands(
    server: ssl.SSLContext,
    client: ssl.SSLContext,
    name: str | None = "localhost",
    session: ssl.SSLSession | None = None,
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """A whole conversation's beginning in memory; returns both ends, and raises what either of them does.

    A byte each way follows, without which a client of TLS 1.3 does not hear that it was refused, nor gets a ticket.
    """
    client.check_hostname = client.check_hostname and name is not None
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server, server_hostname=name, session=session)
    sent = None if name is None else name.encode("idna").decode()
    chosen = server.for_name(sent) if isinstance(server, Context) else server  # as transport/tls does
    answering = chosen.wrap_bio(to_server, to_client, server_side=True)
    waiting = [asking, answering]
    for _ in range(10):
        waiting = [end for end in waiting if not _is_done(end)]
    assert waiting == []
    answering.write(b"!")
    assert asking.read(1) == b"!"
    return asking, answering


def _is_done(end: ssl.SSLObject) -> bool:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True
