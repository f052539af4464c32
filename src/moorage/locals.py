"""local: what each handler has for itself, under every runner.

Owns      `local`; what is stored in one is kept by `hub.parking`, with the fiber or thread that it belongs to.
Promises  as `threading.local`: attributes of a fiber are seen by it alone, those of a thread by it alone; they
          die with it, and with the `local`; a fiber that is used again starts empty.
Refuses   to share anything but what the class itself has.
Why       under fibers `threading.local` is shared by all connections of a worker.  The one that the standard
          library has in Python swaps `__dict__` under a lock, which a property that waits would hold.
"""

from collections.abc import Callable
from typing import Any, Self

from .hub.parking import storage

__all__ = ["local"]


class local:  # noqa: N801 - the name in `threading`
    """As `threading.local`: attributes that each fiber has for itself, and each thread.

    A subclass may have an `__init__`, which is called with the same arguments wherever one is first used.
    """

    __slots__ = ("__key", "__weakref__")  # the private name leaves all others to the user

    def __new__(cls, /, *args: Any, **kwargs: Any) -> Self:
        if (args or kwargs) and cls.__init__ is object.__init__:
            raise TypeError("Initialization arguments are not supported")
        self = object.__new__(cls)
        key = _Key(args, kwargs)
        object.__setattr__(self, "_local__key", key)
        storage()[key] = {}  # __init__ is called for this one by who made us
        return self

    def __getattribute__(self, name: str) -> Any:
        attributes = _attributes(self)
        if name == "__dict__":
            return attributes
        if name in attributes:
            return attributes[name]
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "__dict__":
            raise AttributeError(f"{type(self).__name__!r} object attribute '__dict__' is read-only")
        if _is_property(type(self), name, "__set__"):
            object.__setattr__(self, name, value)
        else:
            _attributes(self)[name] = value

    def __delattr__(self, name: str) -> None:
        if name == "__dict__":
            raise AttributeError(f"{type(self).__name__!r} object attribute '__dict__' is read-only")
        if _is_property(type(self), name, "__delete__"):
            object.__delattr__(self, name)
            return
        try:
            del _attributes(self)[name]
        except KeyError:
            raise AttributeError(name) from None


class _Key:
    """Of one `local`, in the storage of every fiber and thread that used it; the values die with it."""

    __slots__ = ("__weakref__", "args", "kwargs")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args = args
        self.kwargs = kwargs


_key_of: Callable[[local], _Key] = local.__dict__["_local__key"].__get__


def _attributes(self: local) -> dict[str, Any]:
    """Those of the calling fiber or thread."""
    key, stored = _key_of(self), storage()
    attributes = stored.get(key)
    if attributes is None:
        attributes = stored[key] = {}
        try:
            type(self).__init__(self, *key.args, **key.kwargs)
        except BaseException:
            stored.pop(key, None)  # so that the next use tries again
            raise
    return attributes


def _is_property(cls: type, name: str, method: str) -> bool:
    """Whether the class itself takes this attribute."""
    found = next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)
    return hasattr(type(found), method)
