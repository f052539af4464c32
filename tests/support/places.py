"""Every behaviour at every place: runner by family by plain or TLS; imported by the conftest of each folder that wants it.

Owns      the axes; a test that takes `place`, `house`, `journal` or `latch` runs for each combination.
Promises  `@pytest.mark.runners(...)`, `families(...)` and `security(...)` narrow an axis where a behaviour
          has no meaning elsewhere; a further axis is one more line in `AXES`.
Why       TLS over a family other than TCP4 is left to `make test-full`: what TLS does with a socket is the same for
          all, but where a mark names families for it: `@pytest.mark.tls_families("tcp4", "unix")`.
"""

import contextlib
import itertools
import socket
import tempfile
from collections.abc import Iterator

import pytest

from .house import Journal, Latch, Open, Place, house_at

__all__ = ["has_ipv6", "house", "journal", "latch", "pytest_configure", "pytest_generate_tests"]

#: mark that narrows it, and its values
AXES = {
    "runners": ("inline", "threads", "fibers", "forks"),
    "families": ("tcp4", "tcp6", "unix"),
    "security": ("plain", "tls"),
}
QUICK_TLS = ("tcp4",)

FORKS_BESIDE_THREADS = pytest.mark.filterwarnings(
    "ignore:runner 'forks' in a process with other threads:RuntimeWarning"
)


def pytest_configure(config: pytest.Config) -> None:
    for axis, values in AXES.items():
        config.addinivalue_line("markers", f"{axis}(*names): show the behaviour only for these of {', '.join(values)}")
    config.addinivalue_line("markers", "tls_families(*names): over TLS these belong to `make test`, too")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "place" not in metafunc.fixturenames:
        return
    chosen = [_narrowed(metafunc, axis, values) for axis, values in AXES.items()]
    quick = _narrowed(metafunc, "tls_families", QUICK_TLS)
    places = [Place(*values) for values in itertools.product(*chosen)]
    metafunc.parametrize("place", [pytest.param(place, marks=_marks(place, quick), id=str(place)) for place in places])


def _narrowed(metafunc: pytest.Metafunc, axis: str, values: tuple[str, ...]) -> tuple[str, ...]:
    mark = metafunc.definition.get_closest_marker(axis)
    return values if mark is None else mark.args


def _marks(place: Place, quick_tls: tuple[str, ...]) -> list[pytest.MarkDecorator]:
    marks = [FORKS_BESIDE_THREADS] if place.runner == "forks" else []
    if place.security == "tls" and place.family not in quick_tls:
        marks.append(pytest.mark.full)
    if place.family == "tcp6" and not has_ipv6():
        marks.append(pytest.mark.skip(reason="this host has no IPv6 loopback"))
    return marks


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


@pytest.fixture
def house(place: Place) -> Iterator[Open]:
    """Opens a server at this place: `house(handler, **settings)`."""
    with tempfile.TemporaryDirectory(prefix="moorage-") as folder, house_at(place, folder) as opened:
        yield opened


@pytest.fixture
def journal(house: Open) -> Iterator[Journal]:
    """Words from handlers, in whatever process."""
    journal = Journal()
    yield journal
    journal.close()


@pytest.fixture
def latch(house: Open) -> Iterator[Latch]:
    """What handlers wait for; opened at the end, before the server is closed."""
    latch = Latch()
    yield latch
    latch.open()
