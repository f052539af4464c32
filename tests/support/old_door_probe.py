"""Runs one program of `old_door_defects` in a process of its own.

Owns      the subprocess, and a certificate where the program needs one.
Promises  what it saw, or a failure with what it printed; whatever it forked is gone afterwards.
"""

import contextlib
import functools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

__all__ = ["make_certificate", "see"]

PROGRAM = Path(__file__).with_name("old_door_defects.py")


def see(defect: str, module: str, environment: Mapping[str, str], seconds: float = 30.0) -> dict[str, Any]:
    """What this program sees on this module."""
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), defect, module],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            line = process.stdout.readline() if _is_readable(process.stdout, seconds) else ""
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its forked children, which may hang as is the defect
        if not line:
            pytest.fail(f"{defect} of {module} said nothing:\n{process.stderr.read()}")
    seen: dict[str, Any] = json.loads(line)
    return seen


def _is_readable(stream: Any, seconds: float) -> bool:
    return bool(select.select([stream], [], [], seconds)[0])


@functools.cache
def make_certificate(folder: Path) -> Path:
    """A self-signed certificate and its key, in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("the openssl program, which makes the certificate, is not on PATH")
    path = folder / "certificate.pem"
    arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    output = ["-keyout", str(path), "-out", str(path.with_suffix(".crt"))]
    subprocess.run([openssl, *arguments.split(), *output], check=True, capture_output=True)
    path.write_text(path.read_text() + path.with_suffix(".crt").read_text())
    return path
