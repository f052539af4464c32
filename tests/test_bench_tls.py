"""The benchmarks through TLS: a certificate for each run, and a load that notices what is wrong.

Never here: a time, a rate or a bar.
"""

import os
import stat
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from bench import certificates, contest, machine, rivals
from bench.model import Load, Rival

FEW = Load("echo", 5, 0, 128, 103, 20, 20)
STREAMS = replace(rivals.UVLOOP_STREAMS_TLS, needs=(), args=("asyncio", "echo"))

needs_two_cores = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="the harness needs Linux and two cores",
)


def server(folder: Path, body: str) -> Rival:
    """A TLS server with its own idea of an echo: `body` answers `data` on `sock`."""
    head = """
        import os, socket, ssl
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(os.environ["BENCH_PEM"])
        listener = socket.create_server(("127.0.0.1", 0))
        print(listener.getsockname()[1], flush=True)
        while True:
            sock = context.wrap_socket(listener.accept()[0], server_side=True)
            while data := sock.recv(8192):
    """
    file = folder / "server.py"
    file.write_text(textwrap.dedent(head) + textwrap.indent(body, " " * 8) + "\n")
    return Rival(str(file), tls=True)


def test_certificate_is_on_p256_and_its_key_for_this_user_alone(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    made = certificates.make(tmp_path)
    key = load_pem_private_key(made.server.read_bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    assert isinstance(key.curve, SECP256R1)
    assert stat.S_IMODE(made.server.stat().st_mode) == 0o600


def test_certificate_without_trustme_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)
    with pytest.raises(machine.CannotMeasure, match="pip install trustme"):
        certificates.make(tmp_path)


@needs_two_cores
@pytest.mark.parametrize(
    "load", [FEW, replace(FEW, mode="churn", connections=3), replace(FEW, size=20), replace(FEW, warmup=0)]
)
def test_run_of_right_server_gives_a_sample(load: Load) -> None:
    sample = contest.measure(STREAMS, load)
    assert sample.cpu_us > 0
    assert sample.per_second > 0


@needs_two_cores
@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("sock.sendall(data.upper())", "differs"),
        ("sock.sendall(data + b'!')", "differs|surplus"),
        ("sock.sendall(data[:50]); sock.unwrap(); break", "in the middle of a reply|EOF|ssl"),
        ("raise SystemExit('no more')", "no more|closed|reset"),
    ],
    ids=["wrong", "surplus", "short", "gone"],
)
def test_run_of_wrong_server_fails_with_what_is_wrong(tmp_path: Path, body: str, complaint: str) -> None:
    with pytest.raises(contest.RunFailed, match=complaint):
        contest.measure(server(tmp_path, body), replace(FEW, connections=1))


@needs_two_cores
def test_run_of_silent_server_ends_at_the_time_limit(tmp_path: Path) -> None:
    with pytest.raises(contest.RunFailed, match="time limit"):
        contest.measure(server(tmp_path, "pass"), replace(FEW, connections=1, seconds=1))


@needs_two_cores
def test_run_of_server_in_another_version_is_refused(tmp_path: Path) -> None:
    rival = server(tmp_path, "sock.sendall(data)")
    program = Path(rival.program)
    program.write_text(program.read_text().replace("listener =", "context.maximum_version = 771\nlistener =", 1))
    with pytest.raises(contest.RunFailed):
        contest.measure(rival, replace(FEW, connections=1))


@needs_two_cores
@pytest.mark.parametrize("rival", [rivals.MOORAGE_FIBERS_TLS, rivals.MOORAGE_THREADS_TLS], ids=["fibers", "threads"])
@pytest.mark.parametrize("load", [FEW, replace(FEW, mode="churn", connections=3)], ids=["echo", "churn"])
def test_run_of_moorage_gives_a_sample(rival: Rival, load: Load) -> None:
    assert contest.measure(rival, load).cpu_us > 0
