"""Hold: a fiber that keeps the hub to itself, the place in the program where it does, and what to do instead.

Owns      which frame of a stack tells the user most, and the advice for each way to block.
Promises  reading a stack runs no code of the program: names are looked up in dictionaries and slots, no property
          and no `__getattr__` is called; a name that cannot be found so is left alone.
Refuses   to guess: what is not seen to be a lock or a sleep gets the general advice.
Why       the innermost frame alone is mostly a line of the standard library, and "held at threading.py:327" helps
          nobody; a blocked `Lock.acquire` leaves no frame of its own, since it is written in C.
"""

import inspect
import linecache
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue
from types import CodeType, FrameType, MemberDescriptorType

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_STANDARD = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
#: below these in a stack is who turns the hub, and not who holds it
_TURNED_BY = (os.path.join(_OURS, "hub", ""), os.path.join(_OURS, "server.py"))
_INSTALLED = re.compile(r"[\\/](site|dist)-packages[\\/]")

#: files of the standard library whose frames are on top of the stack of one that waits there
_WAIT_FILES = {
    os.path.join(_STANDARD, "threading.py"): "threading",
    os.path.join(_STANDARD, "queue.py"): "queue",
    os.path.join(_STANDARD, "concurrent", "futures", "_base.py"): "concurrent.futures",
}
#: their classes that wait, and which of our names does the same; None: none does
_WAIT_CLASSES = {
    "Condition": "Condition",
    "Event": "Event",
    "Queue": "Queue",
    "_RLock": "RLock",
    "Barrier": None,
    "Future": None,
    "Semaphore": None,
    "Thread": None,
}
#: what waits without a frame of its own, being written in C
_WAIT_TYPES: dict[type, tuple[str, str]] = {
    type(threading.Lock()): ("threading.Lock", "Lock"),
    type(threading.RLock()): ("threading.RLock", "RLock"),
    SimpleQueue: ("queue.SimpleQueue", "Queue"),
}

_DOTTED = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_WITH = re.compile(r"with\s+([^:]*)")
_ANYTHING_SLOW = "give what takes so long to moorage.run_blocking"


@dataclass(frozen=True)
class _Wait:
    """What a stack waits for: its name, the name of ours for it, the frame that asked for it."""

    name: str
    ours: str | None
    asked_by: FrameType


def blamed(innermost: FrameType) -> FrameType:
    """The frame that tells the user most: the innermost of the program, else of an installed package, else of all."""
    installed = None
    for frame in _outwards(innermost):
        file = frame.f_code.co_filename
        if file.startswith(_TURNED_BY):
            break
        if _INSTALLED.search(file) and not file.startswith(_OURS):
            installed = installed or frame
        elif not file.startswith((_OURS, _STANDARD, "<frozen ")):
            return frame
    return installed or innermost


def advice(innermost: FrameType, place: FrameType) -> str:
    """What to do instead; `place` is the frame that is blamed."""
    wait = _standard_wait(innermost) or _c_wait(innermost)
    if wait is None:
        return _ANYTHING_SLOW
    if wait.ours is None or wait.asked_by is not place:  # a package waits, and the user cannot change that
        return f"it waits in {wait.name}; give that call to moorage.run_blocking"
    return f"it waits in {wait.name}; use moorage.{wait.ours}, which lets the other fibers run"


def _outwards(innermost: FrameType) -> Iterator[FrameType]:
    frame: FrameType | None = innermost
    while frame is not None:
        yield frame
        frame = frame.f_back


def _standard_wait(innermost: FrameType) -> _Wait | None:
    """The call into the standard library that ends in a lock of its own."""
    called = None
    for frame in _outwards(innermost):
        module = _WAIT_FILES.get(frame.f_code.co_filename)
        if module is None:
            break
        called = (module, frame.f_code.co_qualname)
    else:
        return None
    if called is None or (owner := called[1].partition(".")[0]) not in _WAIT_CLASSES:
        return None
    return _Wait(".".join(called), _WAIT_CLASSES[owner], frame)


def _c_wait(frame: FrameType) -> _Wait | None:
    """The lock or sleep that the instruction under way names: `a.b.acquire()`, `with a.b:`, `time.sleep()`."""
    for dotted in _names_under_way(frame):
        for value in _values(frame, dotted):
            if value is time.sleep:
                return _Wait("time.sleep", "sleep", frame)
            if type(value) in _WAIT_TYPES:
                return _Wait(*_WAIT_TYPES[type(value)], frame)
    return None


def _names_under_way(frame: FrameType) -> list[str]:
    """The dotted names to look up: what is called, or the managers of a `with`."""
    code = frame.f_code
    line, end_line, column, end_column = _position(code, frame.f_lasti)
    if line is None:
        return []
    source = linecache.getline(code.co_filename, line)
    if column is None or end_column is None:  # the interpreter was told to forget columns
        return _DOTTED.findall(source)
    text = source.encode()[column : end_column if end_line == line else None].decode(errors="replace")
    if managers := _WITH.match(text):
        return _DOTTED.findall(managers[1])
    name = _DOTTED.match(text)
    return [name[0]] if name else []


def _position(code: CodeType, instruction: int) -> tuple[int | None, int | None, int | None, int | None]:
    """Lines and columns of an instruction; an instruction is two bytes long."""
    return next(islice(code.co_positions(), max(instruction, 0) // 2, None), (None, None, None, None))


def _values(frame: FrameType, dotted: str) -> Iterator[object]:
    """What `a`, `a.b` and `a.b.c` stand for, as far as that can be seen without running code."""
    first, *others = dotted.split(".")
    for names in (frame.f_locals, frame.f_globals):
        if first in names:
            yield (value := names[first])
            break
    else:
        return
    for name in others:
        owner = value
        try:
            value = inspect.getattr_static(owner, _mangled(frame.f_code, name))
            if type(value) is MemberDescriptorType:  # a slot
                value = value.__get__(owner)
        except AttributeError:
            return
        yield value


def _mangled(code: CodeType, name: str) -> str:
    """`__lock` is stored as `_Class__lock`."""
    owner = code.co_qualname.split(".")[-2:-1]
    if not owner or not name.startswith("__") or name.endswith("__"):
        return name
    return f"_{owner[0].lstrip('_')}{name}"
