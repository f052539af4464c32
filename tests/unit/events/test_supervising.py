"""Events of a supervisor: in the list of all events, each with its sentence."""

from dataclasses import is_dataclass

from moorage.events import EVENT_TYPES, Event, ServerStarted, WorkerReady


def test_list_of_events_holds_each_of_them_once() -> None:
    assert len(EVENT_TYPES) == len(set(EVENT_TYPES)) == len(Event.__subclasses__())
    assert {ServerStarted, WorkerReady} <= set(EVENT_TYPES)


def test_every_event_is_a_frozen_class_with_a_sentence() -> None:
    for kind in EVENT_TYPES:
        assert is_dataclass(kind)
        assert kind.__doc__
