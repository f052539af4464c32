"""Each defect of the standard library's `socketserver`: seen there, cured here.

The same program runs on both modules, side by side, in processes of their own; the left column below is
what makes it a defect, so a release of Python that cures one is noticed.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from support.old_door_probe import make_certificate, see

Seen = dict[str, Any]

AT_ONCE = 6

#: the program, what it sees on the standard library, what it sees here
DEFECTS: dict[str, tuple[Callable[[Seen], bool], Callable[[Seen], bool]]] = {
    "shutdown_at_fork_limit": (lambda seen: not seen["returns"], lambda seen: seen["returns"]),
    "server_close_of_threads_with_idle_client": (lambda seen: not seen["returns"], lambda seen: seen["returns"]),
    "server_close_of_forks_with_idle_client": (lambda seen: not seen["returns"], lambda seen: seen["returns"]),
    "mute_client_of_a_tls_listener": (lambda seen: not seen["served"], lambda seen: seen["served"]),
    "tls_close_without_notify": (lambda seen: seen["end"] == "SSLEOFError", lambda seen: seen["end"] == ""),
    "unbounded_threads": (lambda seen: seen["threads"] == 60, lambda seen: seen == {"threads": 10, "others": 10}),
    "setup_raises": (
        lambda seen: seen["called"] == ["LookupError"],
        lambda seen: seen["called"] == ["finish", "LookupError"],
    ),
    "resets_are_printed": (
        lambda seen: seen["printed"] > 100,
        lambda seen: seen["printed"] == 0 and len(seen["lines"]) == 10,
    ),
    "own_errors_are_printed": (lambda seen: all(seen["printed"]), lambda seen: all(seen["printed"])),
    "readline_without_a_limit": (lambda seen: seen["got"] == [4_000_000], lambda seen: seen["got"] == ["TooLarge"]),
    "backlog_of_five": (lambda seen: seen["connected"] < 10, lambda seen: seen["connected"] == 200),
    "drip_feed": (lambda seen: not seen["ends"], lambda seen: seen["ends"]),
    "timeout_loses_the_line": (
        lambda seen: seen["got"] == ["TimeoutError", "OSError"],
        lambda seen: seen["got"] == ["TimeoutError", "HELLO\n"],
    ),
    "slow_reader_is_cut": (lambda seen: not seen["whole"], lambda seen: seen["whole"]),
    "peer_stops_reading": (lambda seen: seen["raised"] == [], lambda seen: seen["raised"] == ["TimeoutError"]),
    "early_reply_is_lost": (lambda seen: seen["whole"] < 5, lambda seen: seen["whole"] == 20),
    "shutdown_latency": (lambda seen: seen["seconds"] > 0.1, lambda seen: seen["seconds"] < 0.1),
    "idle_wakeups": (lambda seen: seen["wakeups"] >= 3, lambda seen: seen["wakeups"] == 0),
    "status_is_stolen": (lambda seen: seen["status"] == 0, lambda seen: seen["status"] == 7),
    "shutdown_from_a_handler": (lambda seen: not seen["ends"], lambda seen: seen["ends"]),
    "shutdown_before_serving": (lambda seen: not seen["returns"], lambda seen: seen["returns"] and seen["ends"]),
    "shutdown_from_a_signal_handler": (lambda seen: not seen["ends"], lambda seen: seen["ends"]),
    "seventeen_loops": (
        lambda seen: seen["alive"] == 16,
        lambda seen: seen == {"served": 17, "returns": True, "alive": 0},
    ),
    "child_keeps_the_listener": (
        lambda seen: not seen["rebinds"],
        lambda seen: seen["rebinds"] and seen["still"],
    ),
    "out_of_fds": (
        lambda seen: seen["cpu"] > 0.5 and seen["lines"] == [],
        lambda seen: seen["cpu"] < 0.05 and 1 <= len(seen["lines"]) <= 4 and seen["recovers"],
    ),
}


Runs = dict[tuple[str, str], "Future[Seen]"]


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """The programs that the selected tests need; they mostly wait, so some run side by side."""
    chosen = [defect for defect in DEFECTS if any(f"[{defect}]" in item.name for item in request.session.items)]
    environment = {}
    if any("tls" in defect for defect in chosen):
        environment["TEST_CERTIFICATE"] = str(make_certificate(tmp_path_factory.mktemp("certificate")))
    with ThreadPoolExecutor(AT_ONCE) as executor:
        yield {
            (defect, module): executor.submit(see, defect, module, environment)
            for defect in chosen
            for module in ("socketserver", "moorage.socketserver")
        }
        executor.shutdown(cancel_futures=True)


@pytest.mark.timeout(180)  # the first one waits for its turn
@pytest.mark.parametrize("defect", DEFECTS)
def test_defect_is_seen_on_the_standard_library_and_cured_here(defect: str, runs: Runs) -> None:
    has_defect, is_cured = DEFECTS[defect]
    ours = runs[defect, "moorage.socketserver"].result()
    assert is_cured(ours), ours
    theirs = runs[defect, "socketserver"].result()
    assert has_defect(theirs), theirs
