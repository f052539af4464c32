"""Finding: the setting, its value as written, and where that was said."""

from moorage.config import Listener
from moorage.doctor.finding import Finding, Level, listeners_of, of_server
from support.patients import settings


def test_finding_of_the_server_names_value_and_place() -> None:
    where = of_server(settings(idle_timeout="5m"), "idle_timeout")
    assert where.is_chosen
    assert where.warning("it is long", "make it short") == Finding(
        Level.WARNING, "it is long", "idle_timeout", "300s", "the argument idle_timeout", "make it short"
    )


def test_finding_of_a_default_says_so() -> None:
    where = of_server(settings(), "idle_timeout")
    assert (where.place, where.is_chosen) == ("default", False)
    assert [where.note("a", "b").level, where.error("a", "b").level] == [Level.NOTE, Level.ERROR]


def test_finding_of_a_listener_names_the_listener() -> None:
    one, two = listeners_of(settings([Listener("127.0.0.1:1", backlog=3), "127.0.0.1:2"], backlog=4))
    assert [one.where("backlog").setting, two.where("backlog").setting] == [
        "backlog of 127.0.0.1:1",
        "backlog of 127.0.0.1:2",
    ]
    assert [one.where("backlog").place, two.where("backlog").place] == [
        "an argument of Listener",
        "the argument backlog",
    ]
    assert one.where("bind").setting == "bind"


def test_levels_have_an_order() -> None:
    assert Level.ERROR > Level.WARNING > Level.NOTE
