"""What every test shares: an order that can be shuffled, and signals that can be heard.

Promises  Ctrl-C is heard, also where a shell began the tests in its background with that signal ignored;
          `--shuffle SEED` runs the tests in another order, the same one for the same seed; a test that
          needs its neighbours fails there.  Everything else a test needs it imports from `support`.
"""

import random
import signal
from collections.abc import Iterator

import pytest


def pytest_configure() -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shuffle", metavar="SEED", help="run the tests in the order that this seed gives")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if seed := config.getoption("--shuffle"):
        random.Random(seed).shuffle(items)


@pytest.fixture(autouse=True)
def unblocked_signals() -> Iterator[None]:
    """A command that is over blocks signals until its process ends; here another test follows."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
