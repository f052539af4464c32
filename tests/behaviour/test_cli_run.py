"""`moorage run`: a program that imports socketserver, not edited, with ours in its place."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.client import SOON, Client

MOORAGE = [sys.executable, "-m", "moorage"]

SERVER = """
import socketserver
import sys

class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)

if __name__ == "__main__":
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        print(server.server_address[1], server.max_connections, sys.argv, flush=True)
        server.serve_forever()
"""


def run(tmp_path: Path, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MOORAGE, "run", *arguments], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=SOON, check=False
    )


@pytest.mark.parametrize("how", [["server.py"], ["-m", "server"]], ids=["file", "module"])
def test_unmodified_program_is_served_with_our_limits(tmp_path: Path, how: list[str]) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    command = [*MOORAGE, "run", "--max-connections", "7", *how, "--max-connections", "its own"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            port, limit, argv = program.stdout.readline().split(maxsplit=2)
            assert limit == "7"
            assert argv.endswith("'--max-connections', 'its own']\n")
            with Client(("127.0.0.1", int(port))) as client:
                assert client.ask(b"hello\n") == b"hello\n"
            program.send_signal(signal.SIGTERM)
            assert program.wait(SOON) == -signal.SIGTERM  # the program's own affair, as under python
        finally:
            program.kill()


def test_module_is_in_place_before_the_program_and_all_it_imports(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import http.server, logging.config, socketserver, xmlrpc.server, moorage.socketserver as ours\n"
        "assert socketserver is ours\n"
        "assert issubclass(http.server.HTTPServer, ours.TCPServer)\n"
        "assert issubclass(xmlrpc.server.SimpleXMLRPCServer, ours.TCPServer)\n"
        "print('in place')\n"
    )
    done = run(tmp_path, "program.py")
    assert (done.stdout, done.stderr, done.returncode) == ("in place\n", "", 0)


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("pass", 0, ""),
        ("raise SystemExit(7)", 7, ""),
        ("raise SystemExit", 0, ""),
        ("raise SystemExit('a reason')", 1, "a reason\n"),
    ],
)
def test_exit_status_of_the_program_is_passed_on(tmp_path: Path, code: str, status: int, error: str) -> None:
    (tmp_path / "program.py").write_text(code)
    done = run(tmp_path, "program.py")
    assert (done.returncode, done.stderr) == (status, error)


def test_exception_of_the_program_is_shown_as_python_shows_it(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import moorage\nraise moorage.SettingError('the program made it')\n")
    done = run(tmp_path, "program.py")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("moorage.errors.SettingError: the program made it\n")


def test_environment_sets_limits_and_the_programs_own_attribute_wins(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import socketserver as s\n"
        "class Own(s.ForkingTCPServer):\n    max_children = 3\n"
        "print(s.ForkingTCPServer.max_children, Own.max_children, s.TCPServer.request_queue_size)\n"
    )
    (tmp_path / "moorage.toml").write_text("max_children = 4\nbacklog = 9\nidle_timeout = 3")
    done = run(tmp_path, "program.py", env={"MOORAGE_MAX_CHILDREN": "5"})
    assert (done.stdout, done.stderr) == ("5 3 9\n", "")


def test_bad_limit_is_told_before_the_program_runs(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("print('ran')")
    done = run(tmp_path, "--max-children", "0", "program.py")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("moorage: max_children = '0' (the flag --max-children) will not do")
