"""The old door, as unmodified programs see it: each is a process of its own, with the door installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.old_door_probe import make_certificate

PROGRAMS = Path(__file__).parents[1] / "support" / "old_door_programs.py"


def run(name: str, *options: str, **environment: str) -> list[str]:
    """What this program prints; it must end by itself, with status 0, and say nothing else."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:::multiprocessing", *options, str(PROGRAMS), name],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.fixture
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_certificate(tmp_path_factory.getbasetemp()))


def test_modules_on_top_have_our_classes_and_nothing_heavy_is_imported() -> None:
    assert run("names") == ["True", "True", "1024", "[]"]


def test_xmlrpc_server_serves() -> None:
    assert run("xmlrpc_adds") == ["5"]


def test_handler_at_work_is_waited_for_at_the_exit_of_the_interpreter() -> None:
    assert run("handler_at_exit", "-W", "ignore::ResourceWarning") == ["leaving", "handled late"]


def test_idle_client_does_not_hold_up_the_exit_of_the_interpreter() -> None:
    assert run("idle_client_at_exit", "-W", "ignore::ResourceWarning") == ["leaving True", "handled b''"]


def test_mute_client_costs_a_program_that_wraps_in_get_request_at_most_the_setup_timeout(certificate: str) -> None:
    seen = run("wraps_in_get_request", "-W", "ignore::ResourceWarning", TEST_CERTIFICATE=certificate)
    assert seen == ["[b'hello', b'None'] b''", "in time b''"]


def test_failed_handshakes_are_quiet_and_reach_no_handler(certificate: str) -> None:
    ignored = ("-W", "ignore::ResourceWarning", "-W", "ignore::DeprecationWarning")
    assert run("bad_handshakes", *ignored, TEST_CERTIFICATE=certificate) == ["done"]


def test_socket_that_was_handed_on_is_left_open_and_holds_its_ticket() -> None:
    seen = run("hands_the_socket_on", "-W", "ignore::ResourceWarning")
    assert seen == ["two 2 third waits True", "still open", "third True"]


def test_program_with_a_pool_of_its_own_works() -> None:
    assert run("own_pool") == ["served"]


def test_processes_that_serve_one_object_share_only_the_listener() -> None:
    assert run("processes_share_one_object", "-W", "ignore::ResourceWarning") == ["left 0"]
