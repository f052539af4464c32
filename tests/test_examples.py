"""Every program in examples/, and every Python block in the README, the tutorials and the how-tos, runs as it is shown.

Each is started as a user starts it, in a process of its own on a free port, and talked to by a real
client.  The tests named `test_recipe_row_N_…` show the rows of the cookbook's recipe on TCP servers.
"""

import http.client
import itertools
import json
import os
import queue
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import xmlrpc.client
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import pytest

from moorage.socketserver.settings import SETTINGS

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
RECIPE = EXAMPLES / "from_the_recipe"
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs" / "tutorial").glob("*.md")),
    *sorted((ROOT / "docs" / "howto").glob("*.md")),
]
PATIENCE = 20.0  # seconds: far above what any step takes, below pytest's own limit

#: `moorage`, as the interpreter of the tests has it
MOORAGE = [sys.executable, "-m", "moorage"]


class Program:
    """One running program: its output line by line, and the address it said it serves on."""

    def __init__(self, *command: str | Path) -> None:
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.output: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first line from here on that holds the pattern."""
        while True:
            try:
                line = self._lines.get(timeout=PATIENCE)
            except queue.Empty:
                pytest.fail(f"no line with {pattern!r} within {PATIENCE} s in: {''.join(self.output)}")
            if line is None:
                pytest.fail(f"the program ended without a line with {pattern!r}: {''.join(self.output)}")
            self.output.append(line)
            if match := re.search(pattern, line):
                return match

    def address(self) -> tuple[str, int]:
        match = self.wait_for(r"(127\.0\.0\.1):(\d+)")
        return match[1], int(match[2])

    def wait(self) -> int:
        """Its exit status, once it has left by itself."""
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        while line := self._lines.get():
            self.output.append(line)
        return status

    def stop(self) -> int:
        self.process.terminate()
        return self.wait()

    def discard(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()


@contextmanager
def running(*command: str | Path) -> Iterator[Program]:
    program = Program(*command)
    try:
        yield program
    finally:
        program.discard()


def example(name: str, *args: str) -> list[str | Path]:
    return [sys.executable, EXAMPLES / name, *args]


def unmodified(name: str, *args: str) -> list[str | Path]:
    """A program that knows nothing of Moorage, run by it."""
    return [*MOORAGE, "run", RECIPE / name, *args]


class Client:
    """A connected client that speaks in lines."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=PATIENCE)
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def ask(self, line: bytes) -> bytes:
        self.socket.sendall(line)
        return self.file.readline()


def clients(stack: ExitStack, address: tuple[str, int], count: int) -> list[Client]:
    return [stack.enter_context(Client(address)) for _ in range(count)]


# --- the rows of the recipe ---


def test_recipe_row_1_plain_handler_echoes() -> None:
    with running(*unmodified("01_tcp_server.py", "0")) as program, Client(program.address()) as client:
        assert client.ask(b"hello\n") == b"hello\n"
        assert str(client.socket.getsockname()[1]) in program.wait_for("got a connection from").string


def test_recipe_row_2_stream_handler_echoes_lines() -> None:
    with running(*unmodified("02_stream_handler.py", "0")) as program, Client(program.address()) as client:
        assert client.ask(b"one\n") == b"one\n"
        assert client.ask(b"two\n") == b"two\n"


def test_recipe_row_3_forking_server_gives_each_client_a_process() -> None:
    with running(*unmodified("03_forking_server.py", "0")) as program, ExitStack() as stack:
        crowd = clients(stack, program.address(), 8)
        pids = {client.ask(b"hello\n").split(b":")[0] for client in crowd}
        assert len(pids) == len(crowd)
        assert str(program.process.pid).encode() not in pids


def test_recipe_row_4_threading_server_serves_many_at_once() -> None:
    with running(*unmodified("04_threading_server.py", "0")) as program, ExitStack() as stack:
        crowd = clients(stack, program.address(), 50)
        assert {client.ask(b"hello\n") for client in crowd} == {b"hello\n"}


def test_recipe_row_5_flood_is_bounded_and_all_are_served() -> None:
    with running(*example("from_the_recipe/05_upper_bound.py", "0")) as program:
        address = program.address()
        idle = len(threads_of(program))
        with ExitStack() as stack:
            crowd = clients(stack, address, 10)
            assert {client.ask(b"hello\n") for client in crowd} == {b"hello\n"}
            waiting = clients(stack, address, 90)
            for client in waiting:
                client.socket.sendall(b"me too\n")
            assert len(threads_of(program)) <= idle + 10
            assert descriptors_of(program) < 10 + 20
            for client in crowd:
                client.close()
            for client in waiting:  # in order: each makes room for the next when it goes
                assert client.file.readline() == b"me too\n"
                client.close()


def threads_of(program: Program) -> list[str]:
    return os.listdir(f"/proc/{program.process.pid}/task")


def descriptors_of(program: Program) -> int:
    return len(os.listdir(f"/proc/{program.process.pid}/fd"))


def serves_so_many_and_no_more(address: tuple[str, int], places: int) -> set[bytes]:
    """So many clients at once, and one more only when one of them leaves; returns who answered."""
    with ExitStack() as stack:
        crowd = clients(stack, address, places)
        answers = {client.ask(b"hello\n") for client in crowd}
        late = stack.enter_context(Client(address))
        late.socket.sendall(b"me too\n")
        late.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            late.socket.recv(1, socket.MSG_PEEK)
        late.socket.settimeout(PATIENCE)
        crowd[0].close()
        assert late.file.readline().endswith(b"me too\n")
        return answers


def test_recipe_row_6_loops_in_17_threads_serve_17_and_shutdown_ends_them_all() -> None:
    with running(*unmodified("06_threads_by_hand.py", "0")) as program:
        assert serves_so_many_and_no_more(program.address(), 17) == {b"hello\n"}
        assert program.stop() == 0
        assert "all loops ended\n" in program.output


def test_recipe_row_6_thread_pool_class_serves_17() -> None:
    with running(*example("from_the_recipe/06_thread_pool.py", "0")) as program:
        assert serves_so_many_and_no_more(program.address(), 17) == {b"hello\n"}


def test_recipe_row_6_loops_in_4_processes_serve_4() -> None:
    with running(*unmodified("06_processes_by_hand.py", "0")) as program:
        assert len(serves_so_many_and_no_more(program.address(), 4)) == 4
        assert program.stop() == 0


def test_recipe_row_6_process_pool_class_serves_4() -> None:
    with running(*example("from_the_recipe/06_process_pool.py", "0")) as program:
        assert len(serves_so_many_and_no_more(program.address(), 4)) == 4


def test_recipe_row_7_options_by_hand_then_bind_and_activate_serves() -> None:
    with running(*unmodified("07_options_by_hand.py", "0")) as program, Client(program.address()) as client:
        assert client.ask(b"hello\n") == b"hello\n"


@pytest.mark.parametrize("name", ["07_options_by_hand.py", "08_reuse_address.py"])
def test_recipe_rows_7_and_8_restart_binds_the_same_port_at_once(name: str) -> None:
    with running(*unmodified(name, "0")) as program:
        address = program.address()
        client = Client(address)
        assert client.ask(b"hello\n") == b"hello\n"
        program.process.kill()  # the server's side closes first and is left in TIME_WAIT
        assert client.file.readline() == b""
        client.close()
        program.wait()
    with running(*unmodified(name, str(address[1]))) as program:
        assert program.address() == address
        with Client(address) as client:
            assert client.ask(b"hello\n") == b"hello\n"


def test_recipe_row_9_handler_catches_the_timeout_of_its_class() -> None:
    with running(*unmodified("09_tuned_stream_handler.py", "0", "0.3")) as program, Client(program.address()) as client:
        assert client.ask(b"hello\n") == b"hello\n"
        program.wait_for("timed out!")
        assert client.file.readline() == b""


def test_recipe_row_10_http_server_answers() -> None:
    with running(*unmodified("10_http_server.py", "0")) as program:
        connection = http.client.HTTPConnection(*program.address(), timeout=PATIENCE)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"hello\n"
        connection.close()


def test_recipe_row_10_xmlrpc_server_answers() -> None:
    with running(*unmodified("10_xmlrpc_server.py", "0")) as program:
        host, port = program.address()
        with xmlrpc.client.ServerProxy(f"http://{host}:{port}") as server:
            assert server.add(1, 2) == 3


def test_recipe_row_11_function_handler_echoes() -> None:
    with running(*example("from_the_recipe/11_function_handler.py", "0")) as program:
        with Client(program.address()) as client:
            assert client.ask(b"hello\n") == b"hello\n"
        assert program.stop() == 0


# --- the other examples ---


@pytest.mark.parametrize("name", ["echo_function.py", "echo_class.py"])
def test_example_echoes_and_leaves_with_status_0(name: str) -> None:
    with running(*example(name, "0")) as program:
        with Client(program.address()) as client:
            assert client.ask(b"hello\n") == b"hello\n"
        assert program.stop() == 0


def test_example_embedded_server_answers_itself() -> None:
    with running(*example("embedded_server.py")) as program:
        assert program.wait() == 0
        assert "HELLO\n" in program.output


def test_example_line_protocol_answers_and_refuses_long_lines() -> None:
    with running(*example("line_protocol.py", "0")) as program:
        address = program.address()
        with Client(address) as client:
            assert client.ask(b"SET colour blue\n") == b"OK\n"
            assert client.ask(b"GET colour\n") == b"VALUE blue\n"
            assert client.ask(b"GET shape\n") == b"NONE\n"
            assert client.ask(b"nonsense\n").startswith(b"ERROR")
            assert client.ask(b"QUIT\n") == b"BYE\n"
            assert client.file.readline() == b""
        with Client(address) as client:
            assert client.ask(b"SET colour " + b"x" * 2000) == b""


def test_example_framed_protocol_adds_and_refuses_long_messages() -> None:
    def message(value: object) -> bytes:
        body = json.dumps(value).encode()
        return struct.pack("!I", len(body)) + body

    with running(*example("framed_protocol.py", "0")) as program:
        address = program.address()
        with Client(address) as client:
            client.socket.sendall(message({"add": [1, 2]}))
            assert client.file.read(4 + 10) == message({"sum": 3})
        with Client(address) as client:
            client.socket.sendall(struct.pack("!I", 1 << 30))
            assert client.file.read(1) == b""


def test_example_deadline_tells_the_slow_client() -> None:
    with running(*example("deadline.py", "0", "0.3")) as program:
        address = program.address()
        with Client(address) as client:
            client.socket.sendall(b"ann")  # and no more: the deadline runs over all steps together
            assert client.file.readline() == b"name? too slow\n"


def test_example_deadline_welcomes_the_quick_client() -> None:
    with running(*example("deadline.py", "0")) as program, Client(program.address()) as client:
        client.socket.sendall(b"ann\nsecret\n")
        assert client.file.readline() == b"name? password? welcome, ann\n"


def test_example_graceful_drain_answers_before_it_says_goodbye() -> None:
    with running(*example("graceful_drain.py", "0")) as program, Client(program.address()) as client:
        assert client.ask(b"one\n") == b"answer to one\n"
        program.process.terminate()
        program.wait_for("draining")
        assert client.ask(b"two\n") == b"answer to two\n"
        assert client.file.readline() == b"closing, please reconnect\n"
        assert client.file.readline() == b""
        assert program.wait() == 0


def test_example_proxy_carries_both_ways_to_the_end() -> None:
    with running(*example("echo_function.py", "0")) as upstream:
        address = ":".join(map(str, upstream.address()))
        with running(*example("proxy.py", address, "0")) as program:
            with Client(program.address()) as client:
                assert client.ask(b"hello\n") == b"hello\n"
                client.socket.sendall(b"last\n")
                client.socket.shutdown(socket.SHUT_WR)
                assert client.file.read() == b"last\n"
            assert program.stop() == 0


def test_every_example_is_run_by_a_test() -> None:
    here = Path(__file__).read_text()
    programs = [path.name for path in EXAMPLES.rglob("*.py")]
    assert [name for name in programs if name not in here] == []


# --- the pages ---


def python_blocks() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        yield from zip((f"{page.name}-{n}" for n in itertools.count(1)), blocks, strict=False)


BLOCKS = dict(python_blocks())


@pytest.mark.parametrize("name", BLOCKS)
def test_python_block_runs_as_it_is_shown(name: str, tmp_path: Path) -> None:
    """A block that serves is asked and stopped, on a free port; any other is run to its end."""
    path = tmp_path / "shown.py"
    path.write_text(BLOCKS[name].replace(":20000", ":0"))
    with running(sys.executable, path) as program:
        if re.search(r"^\s*(sys\.exit\()?serve\(|serve_forever\(\)", BLOCKS[name], re.MULTILINE):
            with Client(program.address()) as client:
                client.socket.sendall(b"hello\nhello\n")
                client.socket.shutdown(socket.SHUT_WR)
                assert b"hello" in client.file.read().lower()
            assert program.stop() == 0
        else:
            assert program.wait() == 0, program.output


def test_readme_shows_python() -> None:
    assert any(name.startswith("README") for name in BLOCKS)


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "ARCHITECTURE.md"], ids=lambda page: page.name
)
def test_page_names_only_words_that_make_knows(page: Path) -> None:
    words = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`|\$ )make ([a-z-]+)", page.read_text(), re.MULTILINE)) <= words


EVERY_PAGE = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.fixture(scope="module")
def known_flags() -> set[str]:
    """What the commands say about themselves."""
    commands = ["serve", "run", "check"]
    helps = [
        subprocess.run([*MOORAGE, name, "--help"], capture_output=True, text=True, check=True) for name in commands
    ]
    return {flag for shown in helps for flag in re.findall(r"--[a-z][a-z0-9-]*", shown.stdout)}


@pytest.mark.parametrize("page", EVERY_PAGE, ids=lambda page: page.name)
def test_page_names_only_flags_that_exist(page: Path, known_flags: set[str]) -> None:
    commands = re.findall(r"\bmoorage (?:serve|run|check)\b[^`\n]*", page.read_text())
    shown = {flag for command in commands for flag in re.findall(r"(?<= )--[a-z][a-z0-9-]*", command)}
    assert shown - {"--its", "--own"} <= known_flags  # those two are the arguments of somebody's program


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")), ids=lambda page: page.name)
def test_page_links_to_files_that_exist(page: Path) -> None:
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^):]+)\)", page.read_text())]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_howto_tells_the_defaults_of_the_old_door() -> None:
    page = (ROOT / "docs" / "howto" / "run-an-existing-program.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` of [^|]+ \| ([^|]+) \|", page, re.MULTILINE)
    assert {name: attribute for name, attribute, _ in rows} == {name: attr for name, (_, attr) in SETTINGS.items()}
    for name, _, shown in rows:
        assert shown in spellings(getattr(*SETTINGS[name])), name


def spellings(value: object) -> set[str]:
    """How a page may write this default."""
    if value is None or isinstance(value, bool):
        return {"on" if value else "off", *(["`max_connections`"] if value is None else [])}
    if isinstance(value, tuple):
        return {"/".join(map(str, value))}
    return {f"{value:g}", f"{value / 1024:g} KiB"} if isinstance(value, int | float) else {str(value)}


def test_ctrl_c_stops_an_example_with_status_0() -> None:
    with running(*example("echo_function.py", "0")) as program:
        program.address()
        program.process.send_signal(signal.SIGINT)
        assert program.wait() == 0
