"""Options: flags made from settings."""

import click

from moorage.cli.options import option
from moorage.config import ListenerSettings, ProgramSettings, ServerSettings
from moorage.config.settings import SHARED_SETTINGS
from moorage.config.sources import LIST_NAMES, flag
from moorage.config.values import names
from support.commands import flags_of


def test_every_setting_has_its_flag_in_serve_check_and_doctor() -> None:
    settings = {flag(name) for kind in (ServerSettings, ListenerSettings) for name in names(kind)}
    own = {flag(name) for name in names(ProgramSettings)}
    assert flags_of("serve") == settings | {"--config"}
    assert flags_of("check") == settings | own | {"--config"}
    assert flags_of("doctor") == settings | {"--config", "--json"}


def test_run_has_the_flags_of_what_our_socketserver_can_be_told() -> None:
    told = {flag(name) for name in (*SHARED_SETTINGS, *names(ProgramSettings))}
    assert flags_of("run") == told | {"--config", "-m"}


def test_control_takes_what_leads_to_a_running_server() -> None:
    assert flags_of("control") == {"--name", "--control", "--json", "--config"}


def test_list_can_be_given_several_times_and_says_so() -> None:
    for settings in (ServerSettings, ListenerSettings):
        for name in names(settings):
            made = option(settings, name)
            assert isinstance(made, click.Option)
            assert made.multiple == (name in LIST_NAMES)
            assert (made.help or "").endswith("can be given several times") == (name in LIST_NAMES)


def test_flag_names_what_it_takes() -> None:
    taken = {"allow": "NETWORKS", "tls_cert": "PATHS", "tls_alpn": "WORDS", "tls_verify": "off|optional|required"}
    assert {name: option(ListenerSettings, name).metavar for name in taken} == taken
    assert option(ServerSettings, "accept_rate").metavar == "RATE"
