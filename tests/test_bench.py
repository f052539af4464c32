"""The benchmark harness itself: its arithmetic, what it reads from the system, that it notices wrong replies and kills.

Never here: a time, a rate or a bar. Numbers come from `make bench` on a quiet machine.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from bench import contest, machine, report, rivals, run, trace
from bench.model import Bar, Calls, Contestant, Load, Rival, Sample, Scenario

FEW = Load(connections=5, idle=3, messages=200, warmup=20, seconds=20)

needs_cores_and_compiler = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2 or shutil.which("cc") is None,
    reason="the harness needs Linux, two cores and a C compiler",
)


def rounds_of(*pairs: tuple[float, float]) -> list[dict[str, Sample]]:
    return [{"ours": Sample(a, 1.0, 2.0), "theirs": Sample(b, 1.0, 8.0)} for a, b in pairs]


def scenario_of(*bars: Bar, program: str = "threading_echo.py") -> Scenario:
    contestants = (Contestant("theirs", Rival("threading_echo.py")), Contestant("ours", Rival(program)))
    return Scenario("what?", FEW, "theirs", contestants, bars)


def contest_named(name: str) -> Scenario:
    scenario = run.scenarios()[name]
    assert isinstance(scenario, Scenario)
    return scenario


def program(folder: Path, body: str) -> Rival:
    """A server with its own idea of an echo: `body` answers `data` on `sock`."""
    head = """
        import socket
        listener = socket.create_server(("127.0.0.1", 0))
        print(listener.getsockname()[1], flush=True)
        while True:
            sock = listener.accept()[0]
            while data := sock.recv(8192):
    """
    file = folder / "server.py"
    file.write_text(textwrap.dedent(head) + textwrap.indent(body, " " * 8) + "\n")
    return Rival(str(file))


# ratios and verdicts


def test_ratio_is_median_of_ratios_within_rounds_not_ratio_of_medians() -> None:
    found = report.ratio(rounds_of((1, 10), (8, 10), (30, 20)), "ours", "theirs")
    assert found == report.Ratio(0.8, 0.1, 1.5, 3)


def test_ratio_leaves_out_rounds_where_one_is_missing() -> None:
    rounds = rounds_of((5, 10), (9, 10))
    del rounds[1]["theirs"]
    assert report.ratio(rounds, "ours", "theirs") == report.Ratio(0.5, 0.5, 0.5, 1)


def test_ratio_of_contestant_never_measured_is_none() -> None:
    assert report.ratio(rounds_of((1, 2)), "nobody", "theirs") is None


def test_ratio_without_rival_is_the_value_itself() -> None:
    found = report.ratio(rounds_of((1, 2)), "theirs", None, "kib_per_connection")
    assert found is not None
    assert found.middle == 8.0


@pytest.mark.parametrize(
    ("ours", "word", "close"),
    [(0.30, "pass", False), (0.39, "pass", True), (0.40, "pass", True), (0.41, "FAIL", True), (0.43, "FAIL", False)],
)
def test_bar_is_judged_by_its_median_and_doubted_within_five_percent(ours: float, word: str, close: bool) -> None:
    verdict = report.judge(rounds_of((ours, 1.0)), Bar("ours", 0.40, "theirs"))
    assert (verdict.word, report.near(verdict)) == (word, close)


def test_bar_of_contestant_left_out_is_not_measured_and_no_pass() -> None:
    verdict = report.judge([], Bar("ours", 1.0, "theirs"))
    assert (verdict.word, verdict.passed, report.near(verdict)) == ("not measured", False, False)


def test_report_names_bar_limit_verdict_and_who_was_left_out() -> None:
    scenario = scenario_of(Bar("ours", 0.4, "theirs"))
    rounds = rounds_of((1, 2))
    verdicts = [report.judge(rounds, bar) for bar in scenario.bars]
    text = report.render("name", scenario, rounds, verdicts, {"third": "not installed: gevent"})
    assert "0.500 (0.500..0.500)" in text
    assert "CPU of ours  0.4 x theirs" in text
    assert text.count("FAIL") == 1
    assert "left out: third: not installed: gevent" in text


def test_report_shows_memory_when_a_bar_asks_for_it() -> None:
    scenario = scenario_of(Bar("ours", 4.0, metric="kib_per_connection"))
    text = report.render("name", scenario, rounds_of((1, 2)), [], {})
    assert "KiB/connection" in text.splitlines()[2]


def test_report_of_calls_shows_counts_as_they_are_and_who_was_not_counted() -> None:
    text = report.render_calls({"c": Calls(2000, {"epoll_wait": 20, "recvfrom": 2000, "sendto": 2000})}, {"x": "no"})
    assert "c: 2,000 messages: recvfrom 2,000, sendto 2,000, epoll_wait 20" in text
    assert "x: not counted: no" in text


def test_report_of_calls_is_empty_where_no_contestant_is_traced() -> None:
    assert report.render_calls({}, {}) == ""


# scenarios


def test_scenarios_all_load_and_compare_with_their_baseline() -> None:
    assert {"attack", "big", "churn", "echo", "idle", "lines", "tls_echo", "tls_handshakes"} <= set(run.scenarios())


@pytest.mark.parametrize("name", ["big", "churn", "echo", "idle", "lines", "tls_echo", "tls_handshakes"])
def test_scenario_holds_fibers_to_a_bar(name: str) -> None:
    assert "moorage fibers" in {bar.contestant for bar in contest_named(name).bars}


def test_idle_scenario_gives_room_to_all_its_connections() -> None:
    """More than the default of fibers: without the setting the last hundred would wait in the backlog for ever."""
    scenario = contest_named("idle")
    programs = [c for c in scenario.contestants if c.name.startswith("moorage")]
    room = {int(arg.removeprefix("max_connections=")) for c in programs for arg in c.rival.args if "max_conn" in arg}
    assert min(room) >= max(load.connections + load.idle for load in map(scenario.load_of, programs))


def test_scenario_whose_traced_contestant_is_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="nobody"):
        replace(scenario_of(), traced=("nobody",))


def test_scenario_whose_bar_names_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="nobody"):
        scenario_of(Bar("nobody", 1.0, "theirs"))


def test_scenario_narrowed_keeps_baseline_and_drops_bars_of_the_dropped() -> None:
    scenario = scenario_of(Bar("ours", 1.0, "theirs"))
    narrow = run.narrowed(replace(scenario, traced=("ours", "theirs")), ["their"])
    assert [c.name for c in narrow.contestants] == ["theirs"]
    assert narrow.bars == ()
    assert narrow.traced == ("theirs",)


def test_contestant_whose_module_is_not_installed_is_named() -> None:
    contestant = Contestant("x", Rival("x.py", ("no_such_module_at_all",)))
    assert run.missing(contestant) == "not installed: no_such_module_at_all"


@pytest.mark.parametrize("rival", [getattr(rivals, name) for name in rivals.__all__], ids=rivals.__all__)
def test_rival_program_exists(rival: Rival) -> None:
    assert (Path(rivals.__file__).parent / rival.program).is_file()


def test_contest_repeats_only_what_a_close_bar_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    contestants = tuple(Contestant(name, Rival(name)) for name in ("base", "close", "far"))
    scenario = Scenario("?", FEW, "base", contestants, (Bar("close", 1.02, "base"), Bar("far", 9, "base")))
    ran: list[str] = []

    def measure(rival: Rival, load: Load) -> Sample:
        ran.append(rival.program)
        return Sample(1.0, 1.0, 1.0)

    monkeypatch.setattr(contest, "measure", measure)
    played = run.Contest("name", scenario, quick=False)
    played.play(2)
    assert ran == ["base", "close", "far"] * 2 + ["base", "close"] * 5
    assert [v.ratio.rounds for v in played.verdicts() if v.ratio] == [7, 2]
    assert played.good


def test_contest_whose_contestant_fails_once_leaves_it_out_and_is_not_good(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(rival: Rival, load: Load) -> Sample:
        raise contest.RunFailed("it fell over")

    monkeypatch.setattr(contest, "measure", measure)
    played = run.Contest("name", scenario_of(), quick=True)
    played.play(3)
    assert played.failed == {"theirs": "it fell over", "ours": "it fell over"}
    assert not played.good
    assert "left out: ours: it fell over" in played.text()
    assert json.loads(json.dumps(played.as_json()))["failed"]["ours"] == "it fell over"


def test_contest_counts_calls_of_the_traced_and_passes_over_the_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def counted(rival: Rival, load: Load) -> Calls:
        if rival.program == "base":
            raise trace.NotTraced("strace is not installed")
        return Calls(load.messages, {"read": 7})

    contestants = tuple(Contestant(name, Rival(name)) for name in ("base", "seen", "fell", "other"))
    scenario = Scenario("?", FEW, "base", contestants, traced=("base", "seen", "fell"))
    monkeypatch.setattr(trace, "trace", counted)
    played = run.Contest("name", scenario, quick=False)
    played.failed["fell"] = "it fell over"
    played.count_calls()
    assert played.untraced == {"base": "strace is not installed"}
    assert json.loads(json.dumps(played.as_json()))["system_calls"] == {
        "seen": {"messages": 200, "counts": {"read": 7}}
    }
    assert "seen: 200 messages: read 7" in played.text()


# system calls


def test_counts_are_read_with_and_without_errors_and_without_the_total() -> None:
    table = """\
        % time     seconds  usecs/call     calls    errors syscall
        ------ ----------- ----------- --------- --------- ----------------
         60.00    0.012000           6      2000           sendto
         39.00    0.008000           4      2100       100 recvfrom
          1.00    0.000100           5        20           epoll_wait
        ------ ----------- ----------- --------- --------- ----------------
        100.00    0.020100           4      4120       100 total
    """
    assert trace.counts(table) == {"sendto": 2000, "recvfrom": 2100, "epoll_wait": 20}


def test_trace_without_strace_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(trace.NotTraced, match="strace is not installed"):
        trace.trace(rivals.EPOLL_C, FEW)


@needs_cores_and_compiler
def test_trace_that_may_not_attach_says_what_strace_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    strace = tmp_path / "strace"
    strace.write_text("#!/bin/sh\necho 'attach: ptrace(PTRACE_SEIZE, 7): Operation not permitted' >&2; exit 1\n")
    strace.chmod(0o755)
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: str(strace) if name == "strace" else which(name))
    with pytest.raises(trace.NotTraced, match=r"cannot attach: .*Operation not permitted"):
        trace.trace(rivals.EPOLL_C, FEW)


@needs_cores_and_compiler
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_floor_makes_one_recv_and_one_send_for_each_message_and_only_waits_besides() -> None:
    try:
        calls = trace.trace(rivals.EPOLL_C, FEW)
    except trace.NotTraced as error:
        if "cannot attach" not in str(error):
            raise
        pytest.skip(str(error))
    assert calls.messages == 200
    assert (calls.counts["recvfrom"], calls.counts["sendto"]) == (200, 200)
    assert {"recvfrom", "sendto", "epoll_wait"} >= set(calls.counts)


# the machine


def test_reaped_seconds_survives_brackets_and_spaces_in_the_name() -> None:
    fields = ["S", *(str(n) for n in range(4, 53))]  # as in proc(5): the state is the third field
    assert machine.reaped_seconds(f"7 (a) b (c) {' '.join(fields)}") == (16 + 17) / machine.TICK


def test_cpu_seconds_counts_threads_and_reaped_children_too() -> None:
    burn = "import time\nwhile time.process_time() < 0.1: pass"
    code = f"""
        import subprocess, sys, threading, time
        subprocess.run([sys.executable, "-c", {burn!r}], check=True)
        def spin():
            until = time.thread_time() + 0.1
            while time.thread_time() < until: pass
        thread = threading.Thread(target=spin)
        thread.start()
        thread.join()
        print("ready", flush=True)
        sys.stdin.readline()
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        used = machine.cpu_seconds(process.pid)
        process.kill()
    assert used >= 0.19


def test_compiler_absent_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setattr(machine, "BUILT", tmp_path)
    with pytest.raises(machine.CannotMeasure, match="no C compiler"):
        machine.compiled(Path(contest.__file__).parent / "load.c")


def test_program_that_does_not_compile_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "BUILT", tmp_path / "built")
    source = tmp_path / "wrong.c"
    source.write_text("int main(void) { return nothing; }\n")
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    with pytest.raises(machine.CannotMeasure, match=r"wrong\.c does not compile"):
        machine.compiled(source)


# real runs, without looking at the numbers


@needs_cores_and_compiler
@pytest.mark.parametrize("load", [FEW, Load("churn", 3, 0, 128, 50, 5, 20), Load("echo", 2, 0, 1 << 20, 6, 1, 20)])
@pytest.mark.parametrize("rival", [rivals.THREADING, rivals.EPOLL_C_BIG], ids=["python", "c"])
def test_run_of_right_server_gives_a_sample(rival: Rival, load: Load) -> None:
    sample = contest.measure(rival, load)
    assert sample.cpu_us > 0
    assert sample.per_second > 0


@needs_cores_and_compiler
@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("sock.sendall(data.upper())", "differs"),
        (
            "sock.sendall(data + b'!')",
            "surplus|differs|reset by peer",
        ),  # the load hangs up at once, which the server may be first to say
        ("sock.sendall(data[:50]); sock.close(); break", "closed a connection with 50 of 128"),
        ("raise SystemExit('no more')", "no more|closed"),
    ],
    ids=["wrong", "surplus", "short", "gone"],
)
def test_run_of_wrong_server_fails_with_what_is_wrong(tmp_path: Path, body: str, complaint: str) -> None:
    with pytest.raises(contest.RunFailed, match=complaint):
        contest.measure(program(tmp_path, body), Load("echo", 1, 0, 128, 20, 0, 20))


@needs_cores_and_compiler
def test_run_of_silent_server_ends_at_the_time_limit(tmp_path: Path) -> None:
    with pytest.raises(contest.RunFailed, match="time limit"):
        contest.measure(program(tmp_path, "pass"), Load("echo", 1, 0, 128, 20, 0, 1))


@needs_cores_and_compiler
def test_run_of_server_that_does_not_start_says_its_last_words(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("raise OSError('port in use')\n")
    with pytest.raises(contest.RunFailed, match="port in use"):
        contest.measure(Rival(str(broken)), FEW)


def test_server_gets_the_environment_of_its_rival_and_no_setting_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORAGE_PURE", "1")
    monkeypatch.setenv("MOORAGE_THREADS", "7")
    ours = {name for name in contest.environment(Rival("x")) if name.startswith("MOORAGE_")}
    assert ours == set()
    assert contest.environment(rivals.MOORAGE_FIBERS_PURE)["MOORAGE_PURE"] == "1"
    assert contest.environment(Rival("x"))["PATH"] == os.environ["PATH"]


@needs_cores_and_compiler
def test_run_of_twin_under_the_name_of_the_native_is_refused() -> None:
    pretender = replace(rivals.MOORAGE_FIBERS_PURE, args=rivals.MOORAGE_FIBERS.args)
    with pytest.raises(contest.RunFailed, match="asked for the native Connection, and this is the pure one"):
        contest.measure(pretender, FEW)


@needs_cores_and_compiler
def test_harness_killed_takes_its_server_and_load_along(tmp_path: Path) -> None:
    """By SIGKILL: no `finally` runs, the kernel ends the children."""
    rival = program(tmp_path, f"open({str(tmp_path / 'pid')!r}, 'w').write(f'{{__import__(\"os\").getpid()}}\\n')")
    code = f"""
        from bench import contest, model
        contest.measure(model.Rival({rival.program!r}), model.Load("echo", 1, 0, 128, 20, 0, 60))
    """
    os.mkfifo(tmp_path / "pid")
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], cwd=Path(__file__).parent.parent) as harness:
        server = int((tmp_path / "pid").read_text())
        watched = os.pidfd_open(server)
        harness.send_signal(signal.SIGKILL)
    poller = __import__("select").poll()
    poller.register(watched)
    ended = poller.poll(10_000)
    os.close(watched)
    assert ended


@needs_cores_and_compiler
def test_command_line_quick_prints_table_and_writes_facts(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.run", "lines", "--quick", "--only", "asyncio", "--json", str(tmp_path)]
    done = subprocess.run(
        command, check=False, cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stderr
    assert "asyncio streams" in done.stdout
    [file] = tmp_path.iterdir()
    written = json.loads(file.read_text())
    assert written["machine"]["python"] == sys.version.split()[0]
    assert set(written["rounds"][0]) == {"ThreadingTCPServer", "asyncio streams"}


def test_command_line_unknown_scenario_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        run.main(["no_such"])
    assert raised.value.code == 2
    assert "big, churn, echo, idle, lines" in capsys.readouterr().err
