"""TLS: whether the certificates can be served now, and renewed later.

Owns      the trial of each listener's certificates, and of who may read their files once the start is over.
Promises  the trial is that of the start: what passes here passes there; the key log is not written.
"""

from collections.abc import Iterator
from dataclasses import replace

from ..certificates import load_certificates
from ..config import Configuration
from ..errors import SettingError
from .files import is_readable
from .finding import Finding, ListenerCase, Where, listeners_of
from .machine import Machine

#: in a sentence, between what is wrong and the way out; also behind the setting's name
_BREAK = ": "


def check_certificates(configuration: Configuration, machine: Machine) -> Iterator[Finding]:
    """Loads them as the server will; what they warn of is found too."""
    for listener in listeners_of(configuration):
        settings = listener.settings
        if not settings.tls_cert:
            continue
        if settings.tls_key_log is not None:
            yield listener.where("tls_key_log").warning(
                f"the secrets of every connection are written to {settings.tls_key_log}: whoever reads it reads all traffic",
                "leave tls_key_log out",
            )
        try:
            certificates = load_certificates(replace(settings, tls_key_log=None))
        except SettingError as error:
            where, what, fix = _parted(listener, str(error))
            yield where.error(what, fix)
            continue
        for sentence in () if certificates is None else certificates.warnings:
            where, what, fix = _parted(listener, sentence)
            yield where.warning(what, fix)


def check_renewal(configuration: Configuration, machine: Machine) -> Iterator[Finding]:
    """Root loads the files; who serves reads them again when they change."""
    account = machine.account
    if account is None or account.uid == machine.starter:
        return
    for listener in listeners_of(configuration):
        settings = listener.settings
        named = [("tls_cert", path) for path in settings.tls_cert] + [("tls_key", path) for path in settings.tls_key]
        named += [("tls_client_ca", settings.tls_client_ca)] if settings.tls_client_ca is not None else []
        for name, path in named:
            if is_readable(machine, account, path) is False:
                yield listener.where(name).warning(
                    f"{account.name} may not read {path}: the server starts, and does not see the file renewed",
                    f"`chgrp {min(account.groups)} {path} && chmod g+r {path}`, its folders too; or a restart at each renewal",
                )


def _parted(listener: ListenerCase, sentence: str) -> tuple[Where, str, str]:
    """The setting, what is wrong, and the way out, of a sentence such as `tls_key of ADDRESS: /x is open: chmod 600 /x`."""
    whose, _, rest = sentence.partition(_BREAK)
    name = whose.partition(" of ")[0]
    what, _, fix = (rest or sentence).rpartition(_BREAK)
    known = name if hasattr(listener.settings, name) else "tls_cert"
    return listener.where(known), what or fix, fix if what else f"another file in {known}"
