"""Pem: a file with certificates or keys, and the sentence for each way in which it may be none.

Owns      the reading of such a file.
Promises  one `SettingError` that names the setting, the file, what is wrong and how to put it right; a file is
          read without waiting (a pipe would wait for a writer) and up to a bound.
Refuses   to decode what is between the lines that begin and end a block: that is OpenSSL's.
"""

import os
import pwd
import re
import stat
from dataclasses import dataclass

from ..errors import SettingError

#: the authorities of the whole world are a quarter of this
MOST_BYTES = 1024 * 1024
_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_CERTIFICATES = {"CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"}
_REQUESTS = {"CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"}
_OPENSSH = "OPENSSH PRIVATE KEY"
_DER = b"\x30"  # the first byte of anything in DER


@dataclass(frozen=True)
class Pem:
    """One file that a setting names; `whose` is that setting and its listener, for sentences."""

    whose: str
    path: str
    #: the blocks in it, as (what it says it is, the block)
    blocks: tuple[tuple[str, str], ...]
    #: whether other users than its owner and its group may read or write it
    is_open: bool
    looks_like_der: bool

    @property
    def certificates(self) -> list[str]:
        """The blocks that are certificates."""
        return [block for kind, block in self.blocks if kind in _CERTIFICATES]

    @property
    def has_key(self) -> bool:
        """Whether it holds a private key that OpenSSL reads."""
        return any(kind.endswith("PRIVATE KEY") and kind != _OPENSSH for kind, _ in self.blocks)

    def wrong(self, what: str) -> SettingError:
        """The mistake, with the setting and the file before it."""
        return SettingError(f"{self.whose}: {self.path} {what}")

    def need_certificates(self) -> list[str]:
        """The certificates; raises when there is none."""
        if found := self.certificates:
            return found
        kinds = {kind for kind, _ in self.blocks}
        if self.has_key:
            raise self.wrong("holds a key and no certificate: name the file of the certificate")
        if kinds & _REQUESTS:
            raise self.wrong("is a request for a certificate: name what the authority has made of it")
        if self.looks_like_der:
            raise self.wrong(
                f"is not PEM, and looks like DER: convert it, `openssl x509 -inform der -in {self.path} -out NEW.pem`"
            )
        raise self.wrong("holds no PEM certificate (BEGIN CERTIFICATE ... END CERTIFICATE): name the file that does")

    def need_key(self) -> None:
        """Raises when there is no key."""
        if self.has_key:
            return
        if any(kind == _OPENSSH for kind, _ in self.blocks):
            raise self.wrong("holds a key of OpenSSH, which TLS does not read: `ssh-keygen -p -m PEM -f` converts it")
        if self.certificates:
            raise self.wrong("holds a certificate and no key: name the file of the key")
        if self.looks_like_der:
            raise self.wrong(
                f"is not PEM, and looks like DER: convert it, `openssl pkey -inform der -in {self.path} -out NEW.pem`"
            )
        raise self.wrong("holds no PEM key (BEGIN PRIVATE KEY ... END PRIVATE KEY): name the file that does")


def read_pem(whose: str, path: str) -> Pem:
    """What is in this file."""
    try:
        data, mode = _read(path)
    except OSError as error:
        raise SettingError(f"{whose}: {path} {_fault(error)}") from None
    except _NoFile as what:
        raise SettingError(f"{whose}: {path} {what}") from None
    blocks = tuple((found[1], found[0]) for found in _BLOCK.finditer(data.decode("latin-1")))
    return Pem(whose, path, blocks, is_open_to_others(mode), data.startswith(_DER))


def is_open_to_others(mode: int) -> bool:
    """Whether more than the owner and a group may read or write; a group that may read is a usual choice."""
    return bool(mode & (stat.S_IROTH | stat.S_IWOTH))


def _read(path: str) -> tuple[bytes, int]:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise _NoFile("is a folder: name the file in it")
        if not stat.S_ISREG(mode):
            raise _NoFile("is no regular file, which is read anew when it changes: name one")
        with open(fd, "rb", closefd=False) as file:
            data = file.read(MOST_BYTES + 1)
    finally:
        os.close(fd)
    if len(data) > MOST_BYTES:
        raise _NoFile(f"is larger than {MOST_BYTES // 1024} KiB, as no certificate is: name another file")
    return data, mode


class _NoFile(Exception):
    """What there is cannot be read as a file is."""


def _fault(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "does not exist: correct the path, or make the file"
    if isinstance(error, PermissionError):
        return f"may not be read by the user {user_name()}: let that user read it, and enter the folders above it"
    return f"cannot be read ({error.strerror}): name a file that can"


def user_name() -> str:
    """Who we are, to files."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())  # a container may run as a number that has no name
