"""Contradictions: settings that are good one by one, and make no sense together.

Owns      the sentence for each of them.
Promises  whoever has passed here can be served as the settings say, as far as settings alone can tell.
Refuses   to look at files, sockets or users: those are looked at when they are opened; see `moorage doctor`.
"""

from collections.abc import Sequence

from ..errors import SettingError
from .address import parse_address
from .listening import ListenerSettings
from .settings import ServerSettings
from .values import shown

#: the policies that `observe_only` may name
OBSERVABLE = ("max_per_client", "accept_rate", "client_rate", "rules", "min_rate")

#: what says nothing without a certificate
_OF_TLS = ("tls_key", "tls_client_ca", "tls_verify", "tls_alpn", "tls_ciphers", "tls_key_log")


#: these have a default, which is not looked at without a certificate
_OF_TLS_UNLESS = {"tls_mode": "implicit", "tls_min_version": "1.2"}

#: seconds; the moments of rates are kept as nanoseconds in 64 bits
_MOST_AHEAD = float(1 << 62) / 1e9


def check(server: ServerSettings, listeners: Sequence[ListenerSettings]) -> None:
    """Raises `SettingError` for the first that is found."""
    _check_addresses(listeners)
    _check_refusals(server)
    _check_rates(server)
    for listener in listeners:
        _check_proxy(listener)
        _check_tls(listener)


def _check_addresses(listeners: Sequence[ListenerSettings]) -> None:
    seen: set[str] = set()
    for listener in listeners:
        address = parse_address(listener.bind)
        if str(address) in seen and (address.kind != "tcp" or address.port):
            raise SettingError(f"the address {listener.bind} is given twice: leave one of them out")
        seen.add(str(address))


def _check_refusals(server: ServerSettings) -> None:
    if server.overflow_message and server.overflow != "refuse":
        raise SettingError(
            f"overflow_message is sent only with overflow = refuse, and overflow is {server.overflow}: "
            "set overflow to refuse, or leave the message out"
        )
    for policy in server.observe_only:
        if policy not in OBSERVABLE:
            raise SettingError(f"observe_only names {shown(policy)}, which is none of {', '.join(OBSERVABLE)}")


def _check_rates(server: ServerSettings) -> None:
    for kind in ("accept", "client"):
        rate, burst = getattr(server, f"{kind}_rate"), getattr(server, f"{kind}_burst")
        if rate is not None and burst / rate > _MOST_AHEAD:
            raise SettingError(
                f"{kind}_burst is {burst}, which at this {kind}_rate takes more than a hundred years to come back: "
                f"make {kind}_burst smaller, or {kind}_rate greater"
            )


def _check_proxy(listener: ListenerSettings) -> None:
    is_on, kind = listener.proxy_protocol != "off", parse_address(listener.bind).kind
    if is_on and kind != "unix" and not listener.proxy_trusted:
        raise SettingError(
            f"proxy_protocol of {listener.bind} is {listener.proxy_protocol}, and nobody may send the header: "
            "name the networks of your load balancers in proxy_trusted"
        )


def _check_tls(listener: ListenerSettings) -> None:
    if not listener.tls_cert:
        for name in (*_OF_TLS, *_OF_TLS_UNLESS):
            if getattr(listener, name) not in (None, (), "off", _OF_TLS_UNLESS.get(name)):
                raise SettingError(
                    f"{name} of {listener.bind} says nothing without tls_cert: name a certificate, or leave it out"
                )
    if listener.tls_key and len(listener.tls_key) != len(listener.tls_cert):
        raise SettingError(
            f"tls_key of {listener.bind} names {len(listener.tls_key)} files and tls_cert {len(listener.tls_cert)}: "
            "name a key for each certificate, or none where the key is in the certificate's file"
        )
    if listener.tls_verify != "off" and listener.tls_client_ca is None:
        raise SettingError(
            f"tls_verify of {listener.bind} is {listener.tls_verify}, and nobody is trusted to sign client certificates: "
            "name the authorities' file in tls_client_ca"
        )
    if listener.tls_client_ca is not None and listener.tls_verify == "off":
        raise SettingError(
            f"tls_client_ca of {listener.bind} is given, and no client is asked for a certificate: "
            "set tls_verify to required or optional"
        )
