"""The laws of the house that a machine can check; ARCHITECTURE.md says them in words.

A total order of rooms makes cycles impossible and is the reading order for newcomers: a file may
import only from its own room and from the rooms before it.  Imports under TYPE_CHECKING count too.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise, takewhile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src" / "moorage"
UNIT = ROOT / "tests" / "unit"

GROUND = ["errors", "deadline", "timers", "events", "config"]
ORDER = [
    *GROUND,
    # what has a twin, and what chooses between them, lies below the rest of its room
    *[
        "state",
        "home",
        "transport/waiter",
        "transport/proxy_header",
        "transport/stream",
        "transport/file",
        "lifecycle",
        *["gate", "guests"],
        "hub/loop",
        "hub/crew",
    ],
    *["_native", "twins"],
    *["hub/parking", "hub/hold", "hub/watchdog"],
    *["transport", "admission", "watch", "interrupts", "occupant"],
    *["freshness", "certificates", "rules", "rates", "unix_path", "tcp_address", "listener_files", "listener"],
    *[
        "refusal",
        "shortage",
        "verdict",
        "pace",
        "door",
        "screening",
        "shedding",
        "accepting",
        "acceptor",
        "setup_reasons",
    ],
    "descriptor_table",
    *["connection", "arrival", "setup", "reception", "handler", "drain"],
    *["hub", "locks", "locals", "runners", "observe", "sharing", "server"],
    *["siblings", "calls", "outgoing"],
    *["services", "socketserver", "processes", "doctor", "devcert", "cli", "__main__", "__init__"],
]
#: who a file of the corridor may import: the ground, and the aides it was divided into; the neighbours it
#: sees through Protocols of its own
CORRIDOR = {
    "gate": GROUND,
    "guests": GROUND,
    "admission": [*GROUND, "twins"],
    "watch": [*GROUND, "twins"],
    "interrupts": GROUND,
    "occupant": GROUND,
    "unix_path": [*GROUND, "occupant"],
    "tcp_address": [*GROUND, "occupant", "unix_path"],
    "freshness": GROUND,
    "certificates": [*GROUND, "freshness"],
    "rules": [*GROUND, "freshness"],
    "rates": GROUND,
    "listener_files": [*GROUND, "certificates", "rules"],
    "listener": [*GROUND, "twins", "unix_path", "tcp_address", "listener_files"],
    "refusal": GROUND,
    "shortage": GROUND,
    "verdict": GROUND,
    "pace": GROUND,
    "door": GROUND,
    "screening": GROUND,
    "shedding": GROUND,
    "accepting": GROUND,
    "acceptor": [*GROUND, "accepting", "pace", "refusal", "screening", "shedding", "shortage", "verdict"],
    "home": GROUND,
    "lifecycle": [*GROUND, "state", "home", "transport/proxy_header", "transport/stream", "transport/waiter"],
    "connection": [
        *[*GROUND, "transport", "transport/proxy_header", "transport/stream", "transport/waiter", "home", "state"],
        *["setup_reasons", "twins"],
    ],
    "reception": [*GROUND, "twins"],
    "handler": [*GROUND, "hub/parking"],
    "drain": GROUND,
}
#: what a file may do although its room may not: it has the interpreter wake a loop, and handles no signal
LENT = {"interrupts.py": {"signal.set_wakeup_fd"}}
LONGEST_FILE = 400
LONGEST_FUNCTION = 40
LONGEST_DOCSTRING = 20

#: source files without a unit test of their own, and why
WITHOUT_UNIT_TEST = {
    "__init__.py": "names only; test_public_api.py checks them",
    "__main__.py": "one call; the tests of the command line run it",
    "config/version.py": "one constant, read by the build",
}
#: files whose introduction may be one sentence
BRIEF = {"__init__.py", "__main__.py", "version.py"}
NAMELESS = {"util", "utils", "helper", "helpers", "common", "misc", "base_utils"}
#: the words of unfinished work, not written out, so that this file does not find itself
UNFINISHED = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"]) + r")\b")

SOURCES = sorted(SRC.rglob("*.py"))
NATIVE = sorted([*SRC.rglob("*.pyx"), *SRC.rglob("*.pxi")])
SIZED = sorted([*SOURCES, *NATIVE])
TESTS = sorted((ROOT / "tests").rglob("*.py"))
WRITTEN = sorted([*SIZED, *TESTS, *(ROOT / "bench").rglob("*.py"), *(ROOT / "examples").rglob("*.py")])
REQUIREMENTS = sorted((ROOT / "requirements").glob("*.txt"))


def name_of(path: Path) -> str:
    return path.relative_to(SRC if path.is_relative_to(SRC) else ROOT).as_posix()


def room_of(path: Path, root: Path = SRC) -> str:
    """The room a source file stands in: its folder below the package, or its own name; both where a room is split."""
    return room_named(path.relative_to(root).with_suffix("").parts)


def room_named(parts: Sequence[str]) -> str:
    """The room of a module below the package."""
    return "/".join(parts[:2]) if "/".join(parts[:2]) in ORDER else parts[0]


def imported_rooms(path: Path, root: Path = SRC) -> Iterator[str]:
    """The rooms that a source file imports from, however the import is written."""
    package = ["moorage", *path.relative_to(root).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            is_folder = (root / Path(*module.split(".")[1:])).is_dir()
            modules = [f"{module}.{alias.name}" for alias in node.names] if is_folder else [module]
        else:
            continue
        yield from (room_named(module.split(".")[1:]) for module in modules if module.startswith("moorage."))


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def calls(tree: ast.Module) -> Iterator[str]:
    """Every called name, dotted: `print`, `sys.exit`, `time.sleep`."""
    return (ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call))


def is_tested(path: Path) -> bool:
    """Whether a source file has to have a unit test: not when it holds names or Protocols only."""
    body = ast.parse(path.read_text()).body
    classes = [node for node in body if isinstance(node, ast.ClassDef)]
    contracts = [node for node in classes if "Protocol" in map(ast.unparse, node.bases)]
    if classes and len(contracts) == len(classes) and not any(isinstance(node, ast.FunctionDef) for node in body):
        return False  # the type checker holds everybody to them
    return name_of(path) not in WITHOUT_UNIT_TEST and path.name != "__init__.py"


def introduction(path: Path) -> str:
    """The docstring that a native source opens with, or its first block of comment lines."""
    text = path.read_text()
    if text.startswith('"""'):
        return text.split('"""')[1]
    return "\n".join(takewhile(lambda line: line.startswith("#"), text.splitlines()))


def every(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=name_of)


@every(SOURCES)
def test_room_is_known(path: Path) -> None:
    assert room_of(path) in ORDER, "a new room needs its place in ORDER and in ARCHITECTURE.md"


@every(SOURCES)
def test_imports_point_down(path: Path) -> None:
    here = ORDER.index(room_of(path))
    assert [room for room in imported_rooms(path) if ORDER.index(room) > here] == []


@every([path for path in SOURCES if room_of(path) not in {"_native", "twins"}])
def test_only_twins_chooses_the_extension(path: Path) -> None:
    """Who imports it himself fails where it was not built, and does not obey MOORAGE_PURE."""
    assert "_native" not in set(imported_rooms(path))


@every([path for path in SOURCES if room_of(path) in CORRIDOR])
def test_corridor_imports_only_the_ground(path: Path) -> None:
    """Law 1: a corridor file gets its right-hand neighbour as an argument; only server.py knows them all."""
    own = room_of(path)
    assert set(imported_rooms(path)) - {own} <= set(CORRIDOR[own])


@every([path for path in SOURCES if room_of(path) in GROUND])
def test_ground_imports_only_the_ground(path: Path) -> None:
    assert set(imported_rooms(path)) <= set(GROUND)


@every(SIZED)
def test_file_is_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST_FILE, "a room is missing"


@every(SOURCES)
def test_functions_are_short(path: Path) -> None:
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions(ast.parse(path.read_text()))}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}


@every(SOURCES)
def test_module_introduces_itself(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert text, "say what this file is for"
    if path.name not in BRIEF:
        assert re.search(r"^Owns\s", text, re.MULTILINE), "say what this file owns"
        assert re.search(r"^Promises\s", text, re.MULTILINE), "say what this file promises"


@every(NATIVE)
def test_native_source_introduces_itself(path: Path) -> None:
    """A .pyx opens with a docstring; a .pxi is a part of one, and opens with the same words in a comment."""
    text = introduction(path)
    assert len(text.splitlines()) <= LONGEST_DOCSTRING
    assert re.search(r"^(# )?Owns\s", text, re.MULTILINE), "say what this file owns"
    assert re.search(r"^(# )?Promises\s", text, re.MULTILINE), "say what this file promises"


@every(SOURCES)
def test_module_introduction_is_short(path: Path) -> None:
    prose = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n    ")[0]  # a drawing may follow
    assert len(prose.splitlines()) <= LONGEST_DOCSTRING


@every([path for path in SOURCES if is_tested(path)])
def test_source_has_its_unit_test(path: Path) -> None:
    mirrored = UNIT / path.relative_to(SRC).with_name(f"test_{path.name}")
    assert mirrored.is_file(), f"{mirrored.relative_to(ROOT)} is missing"


@every(sorted(UNIT.rglob("test_*.py")))
def test_unit_test_has_its_source(path: Path) -> None:
    name = path.name.removeprefix("test_")
    if path.parent != UNIT and name == f"{path.parent.name}.py":  # the package itself
        name = "__init__.py"
    mirrored = SRC / path.relative_to(UNIT).with_name(name)
    assert mirrored.is_file(), f"{name_of(mirrored)} is gone: move the test, or to behaviour/"


@every([path for path in SOURCES if path.name == "__init__.py"])
def test_init_holds_names_only_or_has_its_unit_test(path: Path) -> None:
    """An `__init__` is exempt from having a unit test when there is nothing in it to test."""
    tree = ast.parse(path.read_text())
    classes = [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    held = [*classes, *(node.name for node in functions(tree) if node.name not in {"__getattr__", "__dir__"})]
    if held:
        mirrored = UNIT / path.relative_to(SRC).with_name(f"test_{path.parent.name}.py")
        assert mirrored.is_file(), f"{mirrored.relative_to(ROOT)} is missing, for {', '.join(held)}"


@every([path for path in SOURCES if room_of(path) not in {"cli", "__main__"}])
def test_only_the_command_line_prints_and_exits(path: Path) -> None:
    assert set(calls(ast.parse(path.read_text()))) & {"print", "sys.exit", "exit", "quit", "SystemExit"} == set()


@every([path for path in SOURCES if room_of(path) not in {"processes", "cli", "runners"}])
def test_server_leaves_signals_and_logging_set_up_alone(path: Path) -> None:
    """Only serve() and the command line touch them; a runner resets signals in the children it forks."""
    forbidden = {"signal.signal", "signal.set_wakeup_fd", "logging.basicConfig"} - LENT.get(path.name, set())
    assert set(calls(ast.parse(path.read_text()))) & forbidden == set()


@every([path for path in SOURCES if room_of(path) != "socketserver"])
def test_mix_ins_stay_behind_the_old_door(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert [
        node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and "mixin" in node.name.lower()
    ] == []


@every(TESTS)
def test_tests_never_sleep(path: Path) -> None:
    """A test waits for an event with a deadline; a sleep is either too short or too long."""
    tree = ast.parse(path.read_text())
    assert [call for call in calls(tree) if call in {"time.sleep", "sleep"}] == []


@every(WRITTEN)
def test_nothing_is_left_for_later(path: Path) -> None:
    assert UNFINISHED.findall(path.read_text()) == []


@every(WRITTEN)
def test_file_is_named_for_what_it_is(path: Path) -> None:
    assert path.stem not in NAMELESS


@every(REQUIREMENTS)
def test_requirements_are_plain_pins_in_order(path: Path) -> None:
    pins = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", pin)] == []
    assert [(a, b) for a, b in pairwise(pins) if a.split("==")[0].lower() >= b.split("==")[0].lower()] == []


def test_requirement_files_agree_on_each_version() -> None:
    pins = {pin for path in REQUIREMENTS for pin in path.read_text().splitlines() if "==" in pin}
    names = [pin.split("==")[0].lower() for pin in pins]
    assert sorted(names) == sorted(set(names))


def test_order_names_no_room_that_is_gone() -> None:
    assert [room for room in ORDER if not (SRC / room).is_dir() and not (SRC / f"{room}.py").is_file()] == []


def test_architecture_page_names_every_file() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    assert sorted({path.name for path in SIZED if path.name not in page}) == []


@every(SOURCES)
def test_architecture_page_lists_every_lock(path: Path) -> None:
    """Who adds a lock says what it guards, and where it stands in the order of locks."""
    page = (ROOT / "ARCHITECTURE.md").read_text()
    made = re.compile(r"^(?:self\.)?(\w+) = threading\.(?:R?Lock|Condition)\(")
    classes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
    locks = [(owner.name, made.match(ast.unparse(node))) for owner in classes for node in ast.walk(owner)]
    assert [f"{owner}.{lock[1]}" for owner, lock in locks if lock and f"`{owner}.{lock[1]}`" not in page] == []


@pytest.mark.parametrize(
    "line",
    [
        "from moorage.server import Server",
        "from moorage import server",
        "import moorage.server",
        "from .server import Server",
        "from . import server",
        "if TYPE_CHECKING:\n    from .server import Server",
    ],
)
def test_imported_rooms_sees_every_way_to_import(line: str, tmp_path: Path) -> None:
    path = tmp_path / "listener.py"
    path.write_text(line)
    assert list(imported_rooms(path, tmp_path)) == ["server"]
