"""Sources: what each place says, and the sentence for what nobody knows."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.config.sources import from_environment, from_file, from_flags, parse_bind
from moorage.errors import SettingError


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_file_in_the_directory_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "moorage.toml", "max_connections = 7")
    layer = from_file(None, tmp_path)
    assert layer.path == path
    assert layer.options["max_connections"].value == 7
    assert layer.options["max_connections"].place == f"in {path}"
    assert layer.listeners is None


def test_own_file_wins_over_pyproject(tmp_path: Path) -> None:
    write(tmp_path / "moorage.toml", "max_connections = 7")
    write(tmp_path / "pyproject.toml", "[tool.moorage]\nmax_connections = 8")
    assert from_file(None, tmp_path).options["max_connections"].value == 7


def test_section_of_pyproject_is_read(tmp_path: Path) -> None:
    write(tmp_path / "pyproject.toml", "[tool.moorage]\nmax_connections = 8\n[tool.other]\nx = 1")
    assert from_file(None, tmp_path).options["max_connections"].value == 8


@pytest.mark.parametrize("text", ["", "[tool.other]", "tool = 3", "[tool]\nmoorage = 3"])
def test_pyproject_without_a_section_is_passed_over(tmp_path: Path, text: str) -> None:
    write(tmp_path / "pyproject.toml", text)
    assert from_file(None, tmp_path).path is None


def test_no_file_gives_an_empty_layer(tmp_path: Path) -> None:
    assert from_file(None, tmp_path).options == {}


def test_listeners_come_from_bind_and_from_tables(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.toml",
        'bind = ["127.0.0.1:1", "127.0.0.1:2"]\n[[listener]]\nbind = "unix:/x"\nunix_mode = 0o660',
    )
    layer = from_file(path, tmp_path)
    assert layer.listeners is not None
    assert [listener["bind"].value for listener in layer.listeners] == ["127.0.0.1:1", "127.0.0.1:2", "unix:/x"]
    assert layer.listeners[2]["unix_mode"].value == 0o660


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("max_conections = 7", "there is no setting max_conections .*did you mean max_connections"),
        ("zzz = 7", "moorage check"),
        ("max_connections", "is not TOML"),
        ("listener = 3", r"\[\[listener\]\]"),
        ("[[listener]]\nnodelay = true", "bind is missing"),
        ("[[listener]]\nbind = 'x:1'\nidle_timeout = 3", r"idle_timeout \(in \[\[listener\]\] 1 of"),
    ],
)
def test_mistake_in_a_file_names_key_and_file(tmp_path: Path, text: str, sentence: str) -> None:
    path = write(tmp_path / "m.toml", text)
    with pytest.raises(SettingError, match=sentence) as caught:
        from_file(path, tmp_path)
    assert str(path) in str(caught.value)


def test_file_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="cannot be read: No such file"):
        from_file(tmp_path / "absent.toml", tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"x = '\xe9'")
    with pytest.raises(SettingError, match="not UTF-8"):
        from_file(tmp_path / "latin.toml", tmp_path)


@given(st.text())
def test_any_file_is_read_or_a_setting_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        from_file(path, path.parent)
    except SettingError:
        pass


def test_environment_gives_settings_and_several_addresses() -> None:
    layer = from_environment({"MOORAGE_IDLE_TIMEOUT": "5m", "MOORAGE_BIND": "a:1 b:2,nodelay=off", "PATH": "/bin"})
    assert layer.options["idle_timeout"].value == "5m"
    assert layer.options["idle_timeout"].place == "the variable MOORAGE_IDLE_TIMEOUT"
    assert layer.listeners is not None
    assert [listener["bind"].value for listener in layer.listeners] == ["a:1", "b:2"]
    assert layer.listeners[1]["nodelay"].value == "off"


def test_list_after_an_address_may_be_given_in_parts() -> None:
    """In a variable, where a blank would begin the next address."""
    layer = from_environment({"MOORAGE_BIND": "a:1,allow=10.0.0.0/8,nodelay=off,allow=::1 b:2,allow=all"})
    assert layer.listeners is not None
    assert [listener["allow"].value for listener in layer.listeners] == ["10.0.0.0/8 ::1", "all"]
    assert parse_bind("a:1,tls-cert=/a,tls-cert=/b /c", "a test")["tls_cert"].value == "/a /b /c"


def test_flag_of_a_list_may_be_given_several_times() -> None:
    layer = from_flags({"allow": ("10.0.0.0/8", "::1 ::2"), "deny": (), "backlog": None, "nodelay": False})
    assert {name: given.value for name, given in layer.options.items()} == {
        "allow": "10.0.0.0/8 ::1 ::2",
        "nodelay": False,
    }
    assert layer.options["allow"].place == "the flag --allow"


def test_place_for_addresses_that_holds_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"bind \(the variable MOORAGE_BIND\) is empty"):
        from_environment({"MOORAGE_BIND": " "})
    with pytest.raises(SettingError, match=r"bind .* is empty"):
        from_file(write(tmp_path / "m.toml", "bind = []"), tmp_path)


def test_unknown_variable_is_named_with_the_nearest() -> None:
    with pytest.raises(SettingError, match="MOORAGE_IDLE_TIMEOT: did you mean MOORAGE_IDLE_TIMEOUT"):
        from_environment({"MOORAGE_IDLE_TIMEOT": "5m"})


def test_variables_of_a_kubernetes_service_named_moorage_are_passed_over() -> None:
    service = {
        "MOORAGE_SERVICE_HOST": "10.0.0.1",
        "MOORAGE_SERVICE_PORT": "20000",
        "MOORAGE_SERVICE_PORT_ECHO": "20000",
        "MOORAGE_PORT": "tcp://10.0.0.1:20000",
        "MOORAGE_PORT_20000_TCP": "tcp://10.0.0.1:20000",
        "MOORAGE_PORT_20000_TCP_ADDR": "10.0.0.1",
    }
    assert from_environment(service).options == {}


def test_variables_of_ours_that_are_no_settings_are_passed_over() -> None:
    ours = {"MOORAGE_CONFIG": "/x", "MOORAGE_PURE": "1", "MOORAGE_UPGRADE": "5,100,99"}
    assert from_environment(ours).options == {}


def test_flags_that_were_not_given_are_left_out() -> None:
    layer = from_flags({"max_connections": "5", "idle_timeout": None, "nodelay": False}, ["a:1"])
    assert layer.options.keys() == {"max_connections", "nodelay"}
    assert layer.options["max_connections"].place == "the flag --max-connections"
    assert layer.listeners is not None
    assert from_flags({}).listeners is None


def test_bind_takes_settings_of_its_listener_after_commas() -> None:
    options = parse_bind("unix:/x,unix-mode=660,backlog=5", "the flag --bind")
    assert {name: given.value for name, given in options.items()} == {
        "bind": "unix:/x",
        "unix_mode": "660",
        "backlog": "5",
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a:1,nodelaj=off", r"no setting nodelaj \(the flag --bind\): did you mean nodelay"),
        ("a:1,nodelay", "write name=value"),
        ("a:1,idle_timeout=3", "no setting idle_timeout"),
        ("a:1,bind=b:2", "no setting bind"),
    ],
)
def test_mistake_in_bind_names_it(text: str, sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        parse_bind(text, "the flag --bind")
