"""Every behaviour at every place: runner by family by plain or TLS; imported by the conftest of each folder that wants it.

Owns      the axes; a test that takes `place`, `house`, `journal` or `latch` runs for each combination.
Promises  `@pytest.mark.runners(...)`, `families(...)` and `security(...)` narrow an axis where a behaviour
          has no meaning elsewhere; a further axis is one more line in `AXES`.
Why       TLS is left to `make test-full` but for two runners over TCP4 (and the contract of runners, which has all
          four): what it does with a socket is the same everywhere, and time is short.  Marks say otherwise:
          `@pytest.mark.tls_families("tcp4", "unix")`, `tls_runners(...)`.
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
#: those of TLS that belong to `make test`: mark that says otherwise, and its values
QUICK_TLS = {"tls_runners": ("threads", "fibers"), "tls_families": ("tcp4",)}
#: the runners for which `make test` shows the other families in plain text, too: what differs lies before the runner,
#: save that Unix sockets are waited for in another way
QUICK_FAMILIES = {"tcp4": AXES["runners"], "tcp6": ("threads",), "unix": ("threads", "fibers")}

FORKS_BESIDE_THREADS = pytest.mark.filterwarnings(
    "ignore:runner 'forks' in a process with other threads:RuntimeWarning"
)


def pytest_configure(config: pytest.Config) -> None:
    for axis, values in AXES.items():
        config.addinivalue_line("markers", f"{axis}(*names): show the behaviour only for these of {', '.join(values)}")
    for mark in QUICK_TLS:
        config.addinivalue_line(
            "markers", f"{mark}(*names): over TLS these are shown by `make test`, others by test-full"
        )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "place" not in metafunc.fixturenames:
        return
    chosen = [_narrowed(metafunc, axis, values) for axis, values in AXES.items()]
    runners, families = (_narrowed(metafunc, mark, values) for mark, values in QUICK_TLS.items())
    places = [Place(*values) for values in itertools.product(*chosen)]
    shown = [(place, _is_full(place, runners, families)) for place in places]
    metafunc.parametrize(
        "place", [pytest.param(place, marks=_marks(place, full), id=str(place)) for place, full in shown]
    )


def _is_full(place: Place, tls_runners: tuple[str, ...], tls_families: tuple[str, ...]) -> bool:
    """Whether it is left to `make test-full`."""
    if place.security == "tls":
        return place.runner not in tls_runners or place.family not in tls_families
    return place.runner not in QUICK_FAMILIES[place.family]


def _narrowed(metafunc: pytest.Metafunc, axis: str, values: tuple[str, ...]) -> tuple[str, ...]:
    mark = metafunc.definition.get_closest_marker(axis)
    return values if mark is None else mark.args


def _marks(place: Place, is_full: bool) -> list[pytest.MarkDecorator]:
    marks = [FORKS_BESIDE_THREADS] if place.runner == "forks" else []
    if is_full:
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
