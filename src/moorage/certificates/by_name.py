"""ByName: which certificate a client gets that says which host it wants (SNI).

Owns      the table of the names in the certificates of a listener.
Promises  case does not count, nor a dot at the end; a name in full counts more than a wildcard; who asks for no
          name, or for one that nobody has, gets the first certificate: its client decides whether that will do.
Refuses   to be called by OpenSSL (`sni_callback`): for a name that is none CPython would print a traceback each time.
          Who makes a session reads the name first, see `transport/hello.py`, and asks `for_name`.
"""

import ssl
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..config import ListenerSettings

if TYPE_CHECKING:
    from .pair import Pair


class Context(ssl.SSLContext):
    """A context that knows of others, which are like it but for their certificates."""

    #: whom else a name belongs to; None: this one (a context that held itself would live until it is collected)
    by_name: Mapping[str, "Context | None"] = MappingProxyType({})

    def for_name(self, name: str | None) -> "Context":
        """The one for the name that a client asks for: ASCII, as it is sent (what is not, is `xn--...`)."""
        if name is None or not self.by_name:
            return self
        host = name.lower().removesuffix(".")
        for known in (host, f"*.{host.partition('.')[2]}"):
            if known in self.by_name:
                return self.by_name[known] or self
        return self


def choose_by_name(settings: ListenerSettings, pairs: "Sequence[Pair]") -> list[str]:
    """Has the first context know the others; returns warnings."""
    by_name: dict[str, Context | None] = {}
    idle = []
    first = pairs[0].context
    for pair in pairs:
        fresh = [name for name in pair.names if name not in by_name]
        by_name.update(dict.fromkeys(fresh, None if pair.context is first else pair.context))
        if not fresh and pair.context is not first:
            idle.append(pair.path)
    if len(pairs) > 1:
        first.by_name = by_name
    return [
        f"tls_cert of {settings.bind}: {path} is never shown, since each host in it is in one before it: leave it out"
        for path in idle
    ]
