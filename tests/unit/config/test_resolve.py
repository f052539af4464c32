"""Resolve: which place wins, and what contradicts itself."""

import resource
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.config import Listener, ListenerSettings, ServerSettings, check_order, resolve
from moorage.config.resolve import read
from moorage.config.settings import MOST_FIBERS, SPARE_FILES
from moorage.config.sources import from_flags
from moorage.errors import SettingError


def binds(bind: object) -> list[str]:
    return [listener.bind for listener in resolve(bind, {})[1]]


def test_nothing_given_gives_the_defaults() -> None:
    assert resolve(None, {}) == (ServerSettings(), (ListenerSettings(),))


@pytest.mark.parametrize(
    ("bind", "addresses"),
    [
        ("[::1]:0", ["[::1]:0"]),
        (("127.0.0.1", 0), ["127.0.0.1:0"]),
        (("::1", 5), ["[::1]:5"]),
        (["127.0.0.1:1", ("127.0.0.1", 2), Listener("unix:/x")], ["127.0.0.1:1", "127.0.0.1:2", "unix:/x"]),
    ],
)
def test_bind_is_text_a_tuple_or_a_list(bind: object, addresses: list[str]) -> None:
    assert binds(bind) == addresses


@pytest.mark.parametrize("bind", [5, [], {}, ("127.0.0.1",), ("127.0.0.1", "80"), [[]], b"127.0.0.1:1", ("", 80)])
def test_bind_that_is_no_address_is_a_sentence(bind: object) -> None:
    with pytest.raises(SettingError):
        resolve(bind, {})


def test_arguments_go_to_the_server_or_to_its_listeners() -> None:
    server, listeners = resolve(["127.0.0.1:1", "127.0.0.1:2"], {"max_connections": 5, "nodelay": False})
    assert server.max_connections == 5
    assert [listener.nodelay for listener in listeners] == [False, False]


def test_listener_wins_over_what_is_said_for_all() -> None:
    _, listeners = resolve(["127.0.0.1:1", Listener("127.0.0.1:2", nodelay=True)], {"nodelay": False, "backlog": 9})
    assert [(listener.nodelay, listener.backlog) for listener in listeners] == [(False, 9), (True, 9)]


def test_listener_settings_are_taken_as_they_are() -> None:
    given = ListenerSettings(bind="127.0.0.1:2", backlog=5)
    assert resolve(given, {"backlog": 9})[1] == (given,)


def test_listener_with_a_mistake_raises_where_it_is_made() -> None:
    with pytest.raises(SettingError, match="did you mean backlog"):
        Listener("127.0.0.1:0", backlogg=3)
    with pytest.raises(SettingError, match="backlog = 0"):
        Listener("127.0.0.1:0", backlog=0)
    with pytest.raises(SettingError, match="no known kind"):
        Listener("tcp:127.0.0.1:0")


def test_listener_says_what_it_was_given() -> None:
    assert repr(Listener(("127.0.0.1", 0), backlog=3)) == "Listener(bind='127.0.0.1:0', backlog=3)"


@pytest.mark.parametrize(
    ("hard", "connections"),
    [
        (resource.RLIM_INFINITY, MOST_FIBERS),
        (1 << 20, MOST_FIBERS),
        (MOST_FIBERS, MOST_FIBERS - SPARE_FILES),
        (1024, 1024 - SPARE_FILES),
        (SPARE_FILES, 1),
    ],
)
def test_fibers_serve_as_many_as_there_may_be_files(
    monkeypatch: pytest.MonkeyPatch, hard: int, connections: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, hard))
    assert resolve(None, {"runner": "fibers"})[0].max_connections == connections
    assert resolve(None, {"runner": "fibers", "max_connections": 77})[0].max_connections == 77
    assert resolve(None, {"runner": "threads"})[0].max_connections == 1024


def test_unknown_argument_is_named_with_the_nearest() -> None:
    with pytest.raises(SettingError, match=r"no setting max_conections \(an argument\): did you mean max_connections"):
        resolve(None, {"max_conections": 5})


def test_settings_of_moorage_run_are_no_arguments_of_a_server() -> None:
    with pytest.raises(SettingError, match="no setting max_children"):
        resolve(None, {"max_children": 5})


def test_same_address_twice_is_refused_save_for_port_zero() -> None:
    with pytest.raises(SettingError, match="given twice"):
        binds(["127.0.0.1:1", ("127.0.0.1", 1)])
    with pytest.raises(SettingError, match="given twice"):
        binds(["fd://3", "fd://3"])
    assert len(binds(["127.0.0.1:0", "127.0.0.1:0"])) == 2


def test_message_for_the_refused_needs_refusing() -> None:
    with pytest.raises(SettingError, match="set overflow to refuse"):
        resolve(None, {"overflow_message": b"busy"})
    assert resolve(None, {"overflow_message": b"busy", "overflow": "refuse"})[0].overflow_message == b"busy"


def test_later_place_wins(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text("max_connections = 1\nthreads = 1\nbacklog = 1\nlifetime = 1")
    environ = {"MOORAGE_THREADS": "2", "MOORAGE_BACKLOG": "2", "MOORAGE_LIFETIME": "2"}
    configuration = read(from_flags({"backlog": "3", "lifetime": "off"}), path, environ)
    assert configuration.server.max_connections == 1
    assert configuration.server.threads == 2
    assert configuration.listeners[0].backlog == 3
    assert configuration.server.lifetime is None
    assert configuration.file == path
    assert configuration.places == {
        "max_connections": f"in {path}",
        "threads": "the variable MOORAGE_THREADS",
        "backlog": "the flag --backlog",
        "lifetime": "the flag --lifetime",
    }


def test_listeners_of_a_later_place_replace_those_of_an_earlier(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text("[[listener]]\nbind = '127.0.0.1:1'\nnodelay = false")
    assert [listener.bind for listener in read(from_flags({}), path, {}).listeners] == ["127.0.0.1:1"]
    listeners = read(from_flags({}, ["127.0.0.1:2"]), path, {}).listeners
    assert [(listener.bind, listener.nodelay) for listener in listeners] == [("127.0.0.1:2", True)]


def test_file_is_named_by_a_variable(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text("max_connections = 1")
    assert read(from_flags({}), None, {"MOORAGE_CONFIG": str(path)}).server.max_connections == 1


def test_file_of_the_working_directory_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "moorage.toml").write_text("max_children = 3")
    monkeypatch.chdir(tmp_path)
    assert read(from_flags({}), None, {}).program.max_children == 3


def test_bad_value_names_its_place(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text("[[listener]]\nbind = '127.0.0.1:1'\nbacklog = 0")
    with pytest.raises(SettingError, match=r"backlog = 0 \(in \[\[listener\]\] 1 of .*m.toml\) will not do"):
        read(from_flags({}), path, {})


def test_listener_on_the_command_line_has_networks_with_blanks() -> None:
    [listener] = read(from_flags({}, ["127.0.0.1:1,allow=10.0.0.0/8 ::1,unix_group=www"]), "/dev/null", {}).listeners
    assert (listener.allow, listener.unix_group) == (("10.0.0.0/8", "::1"), "www")


def test_network_that_will_not_do_names_its_place(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text("[[listener]]\nbind = '127.0.0.1:1'\ndeny = ['10.0.0.0/8', '10.0.0.300']")
    with pytest.raises(SettingError, match=r"^deny = '10.0.0.300' \(in \[\[listener\]\] 1 of .*m.toml\) will not do"):
        read(from_flags({}), path, {})
    with pytest.raises(SettingError, match=r"^allow = 'lan' \(the flag --bind\) will not do: give networks"):
        read(from_flags({}, ["127.0.0.1:1,allow=10.0.0.0/8 lan"]), "/dev/null", {})


def test_standard_librarys_order_of_arguments_gets_a_sentence() -> None:
    class Echo:
        pass

    with pytest.raises(SettingError, match=r"write Server\(Echo, \('127.0.0.1', 1\)\)"):
        check_order(("127.0.0.1", 1), Echo)
    with pytest.raises(SettingError, match="the handler comes first"):
        check_order("127.0.0.1:1", Echo)
    check_order(Echo, ("127.0.0.1", 1))
    check_order(Echo, None)


_value = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=8))
_names = st.sampled_from(["max_connections", "idle_timeout", "backlog", "nodelay", "unix_mode", "runner", "xyz"])


@given(bind=st.one_of(_value, st.tuples(_value, _value), st.lists(_value)), options=st.dictionaries(_names, _value))
def test_any_arguments_are_resolved_or_a_setting_error(bind: object, options: dict[str, object]) -> None:
    sentence = ""
    try:
        assert resolve(bind, options)[1]
    except SettingError as error:
        sentence = str(error)
    assert "\n" not in sentence


def test_nothing_is_opened_while_settings_are_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    resolve(["127.0.0.1:1", "unix:/x", "fd://3", "localhost:1"], {})
