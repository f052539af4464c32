"""Hold: which frame is blamed, and the advice for each way to block."""

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from queue import Queue, SimpleQueue
from types import FrameType
from typing import Any

import pytest

import moorage
from moorage.hub.hold import advice, blamed
from support.waiting import eventually, in_thread

OURS = os.path.dirname(moorage.__file__)
STANDARD = os.path.dirname(os.__file__)
PROGRAM = "/srv/app.py"
PACKAGE = "/srv/lib/python3.11/site-packages/driver/pool.py"
ANYTHING_SLOW = "give what takes so long to moorage.run_blocking"


class Slotted:
    """An attribute that is in no dictionary."""

    __slots__ = ("lock", "never_set")

    def __init__(self, lock: object) -> None:
        self.lock = lock


class Things:
    """All that one can wait for, nothing of it ready; `free` makes it so."""

    def __init__(self) -> None:
        self.lock, self.rlock, self.event = threading.Lock(), threading.RLock(), threading.Event()
        self.condition, self.semaphore = threading.Condition(), threading.Semaphore(0)
        self.queue, self.simple = Queue[int](), SimpleQueue[int]()
        self.future = Future[int]()
        self.thread = threading.Thread(target=self.event.wait)
        self.slotted = Slotted(self.lock)
        self.__private = self.lock
        self.lock.acquire()
        self.rlock.acquire()
        self.thread.start()

    @property
    def computed(self) -> object:
        raise AssertionError("looking must not run code")

    def wait_for_private(self) -> None:
        self.__private.acquire()

    def free(self) -> None:
        self.lock.release()
        self.rlock.release()
        self.event.set()
        self.semaphore.release()
        self.queue.put(1)
        self.simple.put(1)
        self.future.set_result(1)
        with self.condition:
            self.condition.notify_all()
        self.thread.join()


def told_of(thread: threading.Thread) -> tuple[str, str]:
    """The function that is blamed, and the advice."""
    innermost = sys._current_frames()[thread.ident or 0]
    frame = blamed(innermost)
    return frame.f_code.co_name, advice(innermost, frame)


def program(text: str, file: Path, **names: object) -> dict[str, Any]:
    """The names of a program that was written to a file and run."""
    file.write_text(text)
    exec(compile(text, str(file), "exec"), names)
    return names


def use(ours: str, what: str) -> str:
    return f"it waits in {what}; use moorage.{ours}, which lets the other fibers run"


def lend(what: str) -> str:
    return f"it waits in {what}; give that call to moorage.run_blocking"


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("things.lock.acquire()", use("Lock", "threading.Lock")),
        ("if things.lock.acquire(\n        timeout=60\n    ): pass", use("Lock", "threading.Lock")),
        ("with things.lock: things.lock", use("Lock", "threading.Lock")),
        ("with lock_of_module:\n        pass", use("Lock", "threading.Lock")),
        ("with memoryview(b''), things.slotted.lock: pass", use("Lock", "threading.Lock")),
        ("own = things.lock; own.acquire()", use("Lock", "threading.Lock")),
        ("things.wait_for_private()", use("Lock", "threading.Lock")),
        ("things.rlock.acquire()", use("RLock", "threading.RLock")),
        ("things.simple.get()", use("Queue", "queue.SimpleQueue")),
        ("things.queue.get()", use("Queue", "queue.Queue.get")),
        ("things.event.wait(60)", use("Event", "threading.Event.wait")),
        ("with things.condition: things.condition.wait()", use("Condition", "threading.Condition.wait")),
        ("things.thread.join()", lend("threading.Thread.join")),
        ("things.semaphore.acquire()", lend("threading.Semaphore.acquire")),
        ("things.future.result()", lend("concurrent.futures.Future.result")),
        ("(things.lock).acquire()", ANYTHING_SLOW),  # not seen through, and no guess is made
        ("[things.lock][0].acquire()", ANYTHING_SLOW),
    ],
)
def test_blocked_call_is_named_with_what_to_use_instead(statement: str, expected: str, tmp_path: Path) -> None:
    things = Things()
    app = program(f"def handle():\n    {statement}\n", tmp_path / "app.py", things=things, lock_of_module=things.lock)
    with in_thread(app["handle"]) as running:
        try:
            running.wait_asleep()
            function = "wait_for_private" if "private" in statement else "handle"
            eventually(lambda: told_of(running.thread) == (function, expected))
        finally:
            things.free()


def probe(told: list[str]) -> type:
    """A number that looks at who wants it: a call into C is under way then, and its result is not there yet.

    It is zero: the programs below say `time.sleep`, which is their subject, and none of them sleeps.
    """

    class Probe:
        def __index__(self) -> int:
            caller = sys._getframe(1)
            told.append(advice(caller, blamed(caller)))
            return 0

    return Probe


@pytest.mark.parametrize("call", ["time.sleep(Probe())", "sleep(Probe())", "x = 1; time.sleep(Probe()); y = 2"])
def test_sleep_is_named_with_what_to_use_instead(call: str, tmp_path: Path) -> None:
    told: list[str] = []
    text = f"import time\nfrom time import sleep\ndef handle():\n    {call}\n"
    program(text, tmp_path / "app.py", Probe=probe(told))["handle"]()
    assert told == [use("sleep", "time.sleep")]


@pytest.mark.parametrize(
    "call",
    [
        "bytes(Probe())",
        "range(Probe()), things.lock",  # named in the line, not waited for
        "things.computed_by(Probe())",
        "things.values[things.lock](Probe())",
        "missing if False else bytes(Probe())",
        "object.__new__(Dynamic).bytes(Probe())",
    ],
)
def test_anything_else_gets_the_general_advice(call: str, tmp_path: Path) -> None:
    class Dynamic:
        def __getattr__(self, name: str) -> object:
            return bytes

    class Holder:
        lock = threading.Lock()
        values = {lock: bytes}
        computed_by = bytes

    told: list[str] = []
    program(f"def handle():\n    {call}\n", tmp_path / "app.py", Probe=probe(told), things=Holder(), Dynamic=Dynamic)[
        "handle"
    ]()
    assert told == [ANYTHING_SLOW]


@pytest.mark.parametrize("name", ["things.computed", "things.slotted.never_set", "things.nothing.more", "nowhere"])
def test_name_that_cannot_be_seen_without_running_code_is_left_alone(name: str, tmp_path: Path) -> None:
    things = Things()
    things.free()
    text = f"def handle():\n    with {name}: pass\n"
    frame = frame_in_with(program(text, tmp_path / "app.py", things=things)["handle"])
    assert advice(frame, frame) == ANYTHING_SLOW


def frame_in_with(function: Callable[[], object]) -> FrameType:
    """The frame of a function whose `with` has failed at its first name: the instruction under way is there."""
    try:
        function()
    except BaseException as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_name != "handle":
            trace = trace.tb_next
        assert trace is not None
        return trace.tb_frame
    raise AssertionError("it did not fail")


def test_source_that_is_gone_gets_the_general_advice(tmp_path: Path) -> None:
    told: list[str] = []
    app = program("import time\ndef handle(): time.sleep(Probe())\n", tmp_path / "app.py", Probe=probe(told))
    (tmp_path / "app.py").unlink()
    app["handle"]()
    assert told == [ANYTHING_SLOW]


def test_columns_that_were_left_out_are_made_up_for_by_the_line(tmp_path: Path) -> None:
    told: list[str] = []
    app = program("import time\ndef handle(): time.sleep(Probe())\n", tmp_path / "app.py", Probe=probe(told))
    code = app["handle"].__code__
    app["handle"].__code__ = code.replace(co_linetable=without_columns(len(code.co_code) // 2))
    app["handle"]()
    assert told == [use("sleep", "time.sleep")]


def without_columns(units: int) -> bytes:
    """A table of locations, as `python -X no_debug_ranges` makes it: eight units an entry, all in the first line."""
    entries = [bytes([0x80 | 13 << 3 | min(8, units - start) - 1, 0]) for start in range(0, units, 8)]
    return b"".join(entries)


def stack(*files: str) -> FrameType:
    """The innermost of frames of these files, the outermost given first."""
    call: Callable[[], FrameType] = sys._getframe
    for number, file in enumerate(reversed(files)):
        names: dict[str, Any] = {"call": call}
        exec(compile(f"def of_{number}(): return call()", file, "exec"), names)
        call = names[f"of_{number}"]
    return call()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([PROGRAM], PROGRAM),
        ([PROGRAM, f"{STANDARD}/json/decoder.py"], PROGRAM),
        ([PROGRAM, PACKAGE, f"{STANDARD}/threading.py"], PROGRAM),
        ([PROGRAM, f"{OURS}/transport/stream.py"], PROGRAM),
        (["/srv/main.py", PROGRAM, "<frozen importlib._bootstrap>"], PROGRAM),
        ([f"{OURS}/hub/loop.py", PACKAGE, f"{STANDARD}/ssl.py"], PACKAGE),
        ([f"{OURS}/hub/loop.py", f"{STANDARD}/ssl.py"], f"{STANDARD}/ssl.py"),
        ([PROGRAM, f"{OURS}/server.py", f"{OURS}/acceptor.py"], f"{OURS}/acceptor.py"),  # who called serve_forever
        ([PROGRAM, f"{OURS}/hub/loop.py"], f"{OURS}/hub/loop.py"),
        (["/srv/main.py", f"{OURS}/server.py", PROGRAM, f"{STANDARD}/json/decoder.py"], PROGRAM),  # a subscriber
    ],
)
def test_blame_goes_to_the_program_before_a_package_before_the_rest(files: list[str], expected: str) -> None:
    assert blamed(stack("<frozen test>", f"{OURS}/server.py", *files)).f_code.co_filename == expected


def test_wait_of_a_package_is_not_for_the_user_to_replace(tmp_path: Path) -> None:
    told: list[str] = []
    package = tmp_path / "site-packages"
    package.mkdir()
    text = "import time\ndef connect(): time.sleep(Probe())\n"
    connect = program(text, package / "driver.py", Probe=probe_two_up(told))["connect"]
    program("def handle(): connect()\n", tmp_path / "app.py", connect=connect)["handle"]()
    assert told == [lend("time.sleep")]


def probe_two_up(told: list[str]) -> type:
    class Probe:
        def __index__(self) -> int:
            told.append(advice(sys._getframe(1), sys._getframe(2)))
            return 0

    return Probe
