"""Config: the single source of arguments, flags, variables, TOML keys and the reference page.

Owns      `settings` (what there is), `forms` and `values` (how it is written), `address`,
          `sources` (where it is read), `resolve` (what is in force).
Promises  every mistake is one `SettingError` sentence, before any socket is opened.
Refuses   to import msgspec or a TOML reader until settings are resolved.
"""

from .address import Address, parse_address, plain_address
from .resolve import Configuration, Listener, check_order, resolve
from .settings import ListenerSettings, ProgramSettings, ServerSettings

__all__ = [
    "Address", "Configuration", "Listener", "ListenerSettings", "ProgramSettings", "ServerSettings",
    "check_order", "parse_address", "plain_address", "resolve",
]  # fmt: skip
