"""Rules: which network decides, and what becomes of a file that changes."""

import ipaddress
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import moorage.rules as rules_module
from moorage.config import ListenerSettings
from moorage.errors import SettingError
from moorage.events import Event, Events, RulesLoaded, RulesRejected
from moorage.rules import Rules, load_rules, load_trusted

DECISIONS = 10_000


def v4(host: str) -> Any:
    return host, 4711


def v6(host: str, scope: int = 0) -> Any:
    return host, 4711, 0, scope


def admits(rules: Rules, host: str) -> bool:
    return rules.admits(v6(host) if ":" in host else v4(host))


# --- who may come in ---------------------------------------------------------------------------------


def test_rules_without_networks_admit_everybody() -> None:
    rules = Rules()
    assert admits(rules, "192.0.2.1")
    assert admits(rules, "2001:db8::1")
    assert rules.networks == 0


def test_rules_that_deny_admit_all_others() -> None:
    rules = Rules(deny=["192.0.2.0/24"])
    assert [admits(rules, host) for host in ("192.0.1.255", "192.0.2.0", "192.0.2.255", "192.0.3.0")] == [
        True, False, False, True,
    ]  # fmt: skip
    assert admits(rules, "2001:db8::1")


def test_rules_that_allow_deny_all_others_of_both_families() -> None:
    rules = Rules(allow=["10.0.0.0/8"])
    assert admits(rules, "10.255.255.255")
    assert not admits(rules, "11.0.0.0")
    assert not admits(rules, "9.255.255.255")
    assert not admits(rules, "2001:db8::1")


@pytest.mark.parametrize("turned", [False, True])
def test_most_specific_network_decides_in_whatever_order(turned: bool) -> None:
    allow, deny = ["10.0.0.0/8", "10.1.2.0/24"], ["10.1.0.0/16", "10.1.2.3"]
    rules = Rules(allow[::-1], deny[::-1]) if turned else Rules(allow, deny)
    found = {
        host: admits(rules, host) for host in ("10.0.0.1", "10.1.1.1", "10.1.2.1", "10.1.2.3", "10.1.2.4", "10.2.0.0")
    }
    assert found == {
        "10.0.0.1": True, "10.1.1.1": False, "10.1.2.1": True, "10.1.2.3": False, "10.1.2.4": True, "10.2.0.0": True,
    }  # fmt: skip


def test_denial_wins_where_both_are_equally_specific() -> None:
    rules = Rules(["10.0.0.0/8", "all"], ["10.0.0.0/8"])
    assert not admits(rules, "10.0.0.1")
    assert admits(rules, "11.0.0.1")


def test_all_is_every_address_of_both_families() -> None:
    rules = Rules(["192.0.2.1", "2001:db8::/64"], ["all"])
    assert admits(rules, "192.0.2.1")
    assert admits(rules, "2001:db8::5")
    assert not admits(rules, "192.0.2.2")
    assert not admits(rules, "::1")
    assert not admits(rules, "255.255.255.255")
    assert not admits(rules, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")


@pytest.mark.parametrize("host", ["0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"])
def test_first_and_last_address_are_found(host: str) -> None:
    assert not admits(Rules(deny=[host]), host)
    assert admits(Rules(allow=[host]), host)


def test_scope_of_a_local_address_does_not_matter() -> None:
    rules = Rules(deny=["fe80::/10", "fe80::1%eth0"])
    assert not rules.admits(v6("fe80::1%eth0", 2))
    assert not rules.admits(v6("fe80::2%lo", 1))
    assert rules.admits(v6("fec0::1"))


def test_mapped_address_is_judged_as_the_ipv4_address_it_is() -> None:
    rules = Rules(deny=["10.0.0.0/8"])
    assert not rules.admits(v6("::ffff:10.1.2.3"))
    assert rules.admits(v6("::ffff:11.1.2.3"))


def test_mapped_network_is_the_ipv4_network_it_is() -> None:
    rules = Rules(deny=["::ffff:10.0.0.0/104"])
    assert not admits(rules, "10.1.2.3")
    assert admits(rules, "11.1.2.3")
    assert admits(Rules(deny=["::/0"]), "10.1.2.3"), "every IPv6 address is no IPv4 address"


@pytest.mark.parametrize("addr", ["", "/run/client", b"\0abstract", None])
def test_peer_of_a_unix_socket_is_admitted(addr: Any) -> None:
    assert Rules(allow=["10.0.0.0/8"]).admits(addr)


@pytest.mark.parametrize("bits", [32, 128])
def test_rules_decide_as_the_longest_prefix_does(bits: int) -> None:
    """Exactly, over ten thousand addresses, a thousand networks that are nested again and again."""
    dice = random.Random(bits)
    kind = ipaddress.IPv4Network if bits == 32 else ipaddress.IPv6Network
    seeds = [dice.getrandbits(bits) for _ in range(100)]

    def network() -> Any:
        prefix = dice.randint(1, bits)
        return kind((dice.choice(seeds) >> (bits - prefix) << (bits - prefix), prefix))

    allow, deny = [network() for _ in range(500)], [network() for _ in range(500)]
    by_network = dict.fromkeys(allow, True) | dict.fromkeys(deny, False)
    rules = Rules([str(one) for one in allow], [str(one) for one in deny])
    assert rules.networks == len(by_network)
    address = ipaddress.IPv4Address if bits == 32 else ipaddress.IPv6Address

    def expected(number: int) -> bool:
        for prefix in range(bits, -1, -1):
            verdict = by_network.get(kind((number >> (bits - prefix) << (bits - prefix), prefix)))
            if verdict is not None:
                return verdict
        return False

    for _ in range(DECISIONS // 10):
        base = dice.choice(seeds)
        for number in {(base + dice.randint(-3, 3)) % (1 << bits), base ^ 1 << dice.randrange(bits)}:
            assert admits(rules, str(address(number))) is expected(number), address(number)


# --- mistakes ----------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rules"


def test_file_says_what_the_settings_say(file: Path) -> None:
    file.write_text(
        "# who we are\n\nallow 10.0.0.0/8   # our own\n\tdeny\t10.1.0.0/16\nallow all\ndeny 2001:db8::/32\r\n"
    )
    rules = Rules(deny=["10.2.0.0/16"], path=str(file))
    found = [admits(rules, host) for host in ("10.0.0.1", "10.1.0.1", "10.2.0.1", "1.1.1.1", "2001:db8::1", "::1")]
    assert found == [True, False, False, True, False, True]
    assert rules.networks == 6


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("permit 10.0.0.0/8", "'permit 10.0.0.0/8' is no rule"),
        ("allow", "'allow' is no rule"),
        ("allow 10.0.0.0/8 10.1.0.0/16", "is no rule"),
        ("Allow 10.0.0.0/8", "is no rule"),
        ("deny 10.0.0.1/8", "'10.0.0.1/8' is no network"),
        ("deny 10.0.0.0/33", "'10.0.0.0/33' is no network"),
        ("deny example.org", "'example.org' is no network"),
        ("deny 010.0.0.0/8", "is no network"),
        ("deny \x00", "is no network"),
        ("deny \xff", "is no network"),
        ("x" * 1000, "xxx...' is no rule"),
    ],
)
def test_mistake_names_file_and_line(file: Path, line: str, said: str) -> None:
    file.write_bytes(f"deny 10.0.0.0/8\n# fine\n{line}\n".encode("latin-1"))
    with pytest.raises(SettingError) as caught:
        Rules(path=str(file))
    assert f"{file}, line 3: " in str(caught.value)
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("names", [("allow", "deny"), ("proxy_trusted", "")])
def test_mistake_in_the_settings_names_the_setting(names: tuple[str, str]) -> None:
    with pytest.raises(SettingError, match=rf"^{names[0]}: '10\.0\.0\.1/8' is no network: write one such as"):
        Rules(allow=["10.0.0.1/8"], names=names)


def test_file_that_is_not_there_is_named(file: Path) -> None:
    with pytest.raises(SettingError, match=f"rules_file {file} cannot be read: No such file"):
        Rules(path=str(file))


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_named_and_not_waited_for(file: Path, make: Callable[[Path], None]) -> None:
    make(file)
    with pytest.raises(SettingError, match=f"rules_file {file} cannot be used: it is not a file"):
        Rules(path=str(file))


# --- a file that changes -----------------------------------------------------------------------------


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def age(file: Path) -> None:
    """As if it had been written a minute ago."""
    os.utime(file, (time.time() - 60,) * 2)


def replace(file: Path, text: str) -> None:
    """As an operator should: nobody ever reads half of it."""
    new = file.with_name("new")
    new.write_text(text)
    age(new)
    new.replace(file)


def watched(file: Path, clock: Clock) -> tuple[Rules, list[Event]]:
    rules, said = Rules(path=str(file), clock=clock), list[Event]()
    rules.events = Events()
    rules.events.subscribe(said.append)
    return rules, said


def look(rules: Rules, clock: Clock) -> None:
    clock.now += 1.5
    rules.refresh()


def test_file_that_changes_is_read_again(file: Path, clock: Clock) -> None:
    file.write_text("deny 10.0.0.0/8\n")
    rules, said = watched(file, clock)
    replace(file, "deny 11.0.0.0/8\nallow all\n")
    look(rules, clock)
    assert (admits(rules, "10.0.0.1"), admits(rules, "11.0.0.1")) == (True, False)
    assert said == [RulesLoaded(str(file), 3)]
    look(rules, clock)
    assert len(said) == 1


def test_file_that_changes_is_not_looked_at_more_than_once_a_second(file: Path, clock: Clock) -> None:
    file.write_text("deny 10.0.0.0/8\n")
    rules, said = watched(file, clock)
    replace(file, "deny 11.0.0.0/8\n")
    clock.now += 0.5
    rules.refresh()
    assert said == []
    assert not admits(rules, "10.0.0.1")


@pytest.mark.parametrize("ruin", ["mistake", "gone"])
def test_file_that_will_not_do_leaves_the_rules_from_before(file: Path, clock: Clock, ruin: str) -> None:
    file.write_text("deny 10.0.0.0/8\n")
    rules, said = watched(file, clock)
    if ruin == "gone":
        file.unlink()
    else:
        replace(file, "deny 11.0.0.0/8\ndeny nonsense\n")
    look(rules, clock)
    assert (admits(rules, "10.0.0.1"), admits(rules, "11.0.0.1")) == (False, True)
    [rejected] = said
    assert isinstance(rejected, RulesRejected)
    assert rejected.path == str(file)
    assert ("line 2" if ruin == "mistake" else "cannot be read") in rejected.reason
    replace(file, "deny 11.0.0.0/8\n")
    look(rules, clock)
    assert isinstance(said[-1], RulesLoaded)
    assert admits(rules, "10.0.0.1")


@pytest.mark.parametrize("text", ["", "# nobody\n"])
def test_file_that_lost_all_rules_leaves_those_from_before(file: Path, clock: Clock, text: str) -> None:
    file.write_text("deny 10.0.0.0/8\n")
    rules, said = watched(file, clock)
    replace(file, text)
    look(rules, clock)
    assert not admits(rules, "10.0.0.1")
    [rejected] = said
    assert isinstance(rejected, RulesRejected)
    assert "is empty, and it had rules: write `allow all`" in rejected.reason
    replace(file, "allow all\n")
    look(rules, clock)
    assert admits(rules, "10.0.0.1")


def test_file_that_never_had_rules_may_stay_empty(file: Path, clock: Clock) -> None:
    file.write_text("")
    rules, said = watched(file, clock)
    replace(file, "# nobody yet\n")
    look(rules, clock)
    assert said == [RulesLoaded(str(file), 0)]


def test_file_that_is_being_written_is_read_when_it_is_left_alone(file: Path, clock: Clock) -> None:
    file.write_text("deny 10.0.0.0/8\ndeny 11.0.0.0/8\n")
    rules, said = watched(file, clock)
    file.write_text("deny 10.0.0.0/8\n")
    look(rules, clock)
    assert said == []
    assert not admits(rules, "11.0.0.1")
    look(rules, clock)
    assert said == [RulesLoaded(str(file), 1)]


def test_file_that_changes_while_it_is_read_is_not_taken(
    file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("deny 10.0.0.0/8\n")
    rules, said = watched(file, clock)
    replace(file, "deny 11.0.0.0/8\n")
    read = rules_module._read

    def slowly(path: str) -> Any:
        found = read(path)
        replace(file, "deny 12.0.0.0/8\n")
        return found

    monkeypatch.setattr(rules_module, "_read", slowly)
    look(rules, clock)
    monkeypatch.undo()
    assert said == []
    assert not admits(rules, "10.0.0.1")
    look(rules, clock)
    assert said == [RulesLoaded(str(file), 1)]
    assert not admits(rules, "12.0.0.1")


def test_file_that_could_not_be_read_once_is_tried_again(
    file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(24, "Too many open files")

    file.write_text("deny 10.0.0.0/8\n")
    rules, said = watched(file, clock)
    replace(file, "deny 11.0.0.0/8\n")
    monkeypatch.setattr("moorage.rules.os.open", refuse)
    for _ in range(3):
        look(rules, clock)
    assert [type(event) for event in said] == [RulesRejected]
    monkeypatch.undo()
    look(rules, clock)
    assert said[1:] == [RulesLoaded(str(file), 1)]
    assert not admits(rules, "11.0.0.1")


def test_file_changes_also_where_nobody_listens(file: Path, clock: Clock) -> None:
    file.write_text("deny 10.0.0.0/8\n")
    rules = Rules(path=str(file), clock=clock)
    for text in ("nonsense\n", "deny 11.0.0.0/8\n"):
        replace(file, text)
        look(rules, clock)
    assert admits(rules, "10.0.0.1")


def test_rules_without_a_file_have_nothing_to_refresh() -> None:
    Rules(deny=["10.0.0.0/8"]).refresh()


# --- of a listener -----------------------------------------------------------------------------------


def test_listener_without_rules_has_none() -> None:
    assert load_rules(ListenerSettings()) is None
    assert load_trusted(ListenerSettings()) is None


def test_listener_has_the_rules_of_its_settings(file: Path) -> None:
    file.write_text("deny 10.1.0.0/16\n")
    rules = load_rules(ListenerSettings(allow=("10.0.0.0/8",), deny=("10.2.0.0/16",), rules_file=str(file)))
    assert rules is not None
    found = [admits(rules, host) for host in ("10.0.0.1", "10.1.0.1", "10.2.0.1", "11.0.0.1")]
    assert found == [True, False, False, False]


def test_trusted_are_those_of_the_setting_alone() -> None:
    trusted = load_trusted(ListenerSettings(proxy_trusted=("10.0.0.0/8",), deny=("10.0.0.0/8",)))
    assert trusted is not None
    assert admits(trusted, "10.0.0.1")
    assert not admits(trusted, "11.0.0.1")
