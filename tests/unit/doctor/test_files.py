"""Files: who may write, read or replace them."""

from pathlib import Path

import pytest

from moorage.config.resolve import read
from moorage.config.sources import from_flags
from moorage.doctor.files import (
    check_account,
    check_control,
    check_log,
    check_paths,
    check_rules,
    check_settings_file,
    is_readable,
    writers,
)
from moorage.doctor.machine import Account
from support.patients import WWW, Files, machine, only, settings, told

ROOT = Account("root", 0, frozenset({0}))


@pytest.fixture
def files() -> Files:
    return Files()


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules"
    path.write_text("deny 10.0.0.0/8\n")
    return path


def test_path_that_others_may_write_is_found_with_the_folder_to_change(tmp_path: Path, files: Files) -> None:
    path = tmp_path / "a b"
    path.write_text("")
    host = machine(stat=files)
    assert writers(host, str(path)) is None
    files.put(path, 0o666)
    assert writers(host, str(path)) == (
        f"{path} may be written by others (mode 0666)",
        f"`chmod go-w '{path}'`",
    )
    files.put(path, 0o600)
    files.put(tmp_path, 0o775, gid=7)
    found = writers(host, str(path))
    assert found is not None
    assert found.what == f"{tmp_path} may be written by the group 7 (mode 0775)"


@pytest.mark.parametrize(("mode", "gid"), [(0o1777, 0), (0o775, 0), (0o755, 7)])
def test_folder_that_is_sticky_or_of_root_s_group_is_fine(tmp_path: Path, files: Files, mode: int, gid: int) -> None:
    files.put(tmp_path, mode, gid=gid)
    assert writers(machine(stat=files), str(tmp_path / "a")) is None


def test_file_is_readable_through_all_its_folders(tmp_path: Path, files: Files) -> None:
    path = tmp_path / "f"
    path.write_text("")
    host = machine(stat=files)
    assert is_readable(host, WWW, str(path)) is True
    files.put(path, 0o640, gid=44)
    assert is_readable(host, WWW, str(path)) is True
    files.put(path, 0o600)
    assert is_readable(host, WWW, str(path)) is False
    assert is_readable(host, ROOT, str(path)) is True
    files.put(path, 0o644)
    files.put(tmp_path, 0o700)
    assert is_readable(host, WWW, str(path)) is False
    assert is_readable(host, WWW, str(tmp_path / "absent")) is None


def test_account_that_is_not_known_is_an_error() -> None:
    assert told(check_account(settings(user="nobody-at-all"), machine(account=None))) == [("error", "user")]
    assert told(check_account(settings(group="nobody-at-all"), machine(account=None))) == [("error", "group")]


def test_account_that_only_root_becomes_is_an_error_for_others() -> None:
    finding = only(check_account(settings(user="www"), machine(starter=1000)))
    assert finding.level.name == "ERROR"
    assert "only root can become www, and this is user 1000" in finding.what
    assert not list(check_account(settings(user="www"), machine(starter=0)))
    assert not list(check_account(settings(user="www"), machine(starter=33)))


def test_root_who_serves_is_a_warning() -> None:
    assert told(check_account(settings(), machine(starter=0, account=ROOT))) == [("warning", "user")]
    assert not list(check_account(settings(), machine()))


def test_rules_that_will_not_do_are_an_error_with_their_line(rules: Path) -> None:
    rules.write_text("deny 10.0.0.0/8\ndeny lan\n")
    finding = only(check_rules(settings(rules_file=str(rules)), machine()))
    assert (finding.level.name, finding.setting) == ("ERROR", "rules_file of 127.0.0.1:20000")
    assert f"{rules}, line 2" in finding.what
    assert only(check_rules(settings(rules_file="/absent/x"), machine())).level.name == "ERROR"


def test_rules_that_others_may_write_are_a_warning(rules: Path, files: Files) -> None:
    host = machine(stat=files)
    assert not list(check_rules(settings(rules_file=str(rules)), host))
    files.put(rules, 0o666)
    finding = only(check_rules(settings(rules_file=str(rules)), host))
    assert finding.level.name == "WARNING"
    assert finding.what.endswith("whoever can write there lets himself in")
    assert finding.fix == f"`chmod go-w {rules}`"


def test_rules_that_cannot_be_read_again_are_a_warning(rules: Path, files: Files) -> None:
    files.put(rules, 0o600)
    finding = only(check_rules(settings(rules_file=str(rules)), machine(stat=files)))
    assert f"www may not read {rules}: changes are not seen" in finding.what


def test_settings_file_that_others_may_write_is_a_warning_for_root(tmp_path: Path, files: Files) -> None:
    path = tmp_path / "m.toml"
    path.write_text("")
    configuration = read(from_flags({}), path, {})
    files.put(path, 0o622)
    assert told(check_settings_file(configuration, machine(stat=files, starter=0))) == [("warning", "settings file")]
    assert not list(check_settings_file(configuration, machine(stat=files)))
    files.put(path, 0o644)
    assert not list(check_settings_file(configuration, machine(stat=files, starter=0)))
    assert not list(check_settings_file(settings(), machine(starter=0)))


def test_log_that_who_serves_cannot_write_is_an_error(tmp_path: Path, files: Files) -> None:
    path = tmp_path / "log"
    host = machine(stat=files)
    finding = only(check_log(settings(log_file=str(path)), host))
    assert f"www may not make a file in {tmp_path}" in finding.what
    files.put(tmp_path, 0o755, uid=33)
    assert not list(check_log(settings(log_file=str(path)), host))
    path.write_text("")
    assert f"www may not write to {path}" in only(check_log(settings(log_file=str(path)), host)).what
    files.put(path, 0o600, uid=33)
    assert not list(check_log(settings(log_file=str(path)), host))
    assert "mkdir -p /absent" in only(check_log(settings(log_file="/absent/log"), host)).fix
    assert not list(check_log(settings(), host))


def test_unix_socket_in_a_folder_that_is_missing_or_open_is_found(tmp_path: Path, files: Files) -> None:
    host = machine(stat=files)
    assert told(check_paths(settings("unix:/absent/a"), host)) == [("error", "bind")]
    assert not list(check_paths(settings(f"unix:{tmp_path}/a"), host))
    files.put(tmp_path, 0o777)
    assert told(check_paths(settings(f"unix:{tmp_path}/a"), host)) == [("warning", "bind")]
    assert not list(check_paths(settings(["unix:@x", "127.0.0.1:1"]), host))


def test_unix_socket_of_root_that_nobody_else_can_connect_to_is_a_warning(tmp_path: Path, files: Files) -> None:
    host, bind = machine(stat=files, starter=0), f"unix:{tmp_path}/a"
    finding = only(check_paths(settings(bind, user="www"), host))
    assert (finding.level.name, finding.setting) == ("WARNING", f"unix_user of {bind}")
    assert finding.fix.startswith("unix_user = www")
    assert not list(check_paths(settings(bind, user="www", unix_mode="0o660"), host))
    assert not list(check_paths(settings(bind, user="www", unix_user="33"), host))


def test_unix_socket_with_an_unknown_owner_or_open_to_all_is_found(tmp_path: Path, files: Files) -> None:
    host, bind = machine(stat=files), f"unix:{tmp_path}/a"
    for name in ("unix_user", "unix_group"):
        found = check_paths(settings(bind, **{name: "nobody-at-all"}), host)
        assert told(found) == [("error", f"{name} of {bind}")]
    assert told(check_paths(settings(bind, unix_mode="0o666"), host)) == [("note", f"unix_mode of {bind}")]


def test_control_that_is_off_or_misplaced_is_found(tmp_path: Path, files: Files) -> None:
    host = machine(stat=files)
    assert told(check_control(settings(control="off"), host)) == [("note", "control")]
    assert told(check_control(settings(control="/absent/c"), host)) == [("error", "control")]
    assert not list(check_control(settings(control=f"{tmp_path}/c"), host))
    files.put(tmp_path, 0o777)
    assert told(check_control(settings(control=f"{tmp_path}/c"), host)) == [("warning", "control")]


def test_control_in_a_folder_of_its_own_is_examined_as_the_server_will(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert not list(check_control(settings(), machine()))  # it will be made
    (tmp_path / "moorage").mkdir(mode=0o700)
    assert not list(check_control(settings(), machine()))
    (tmp_path / "moorage").chmod(0o755)
    finding = only(check_control(settings(), machine()))
    assert finding.level.name == "WARNING"
    assert "is open to others" in finding.what
