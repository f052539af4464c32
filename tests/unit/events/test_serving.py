"""Events of a server: small frozen classes, each with its sentence."""

from dataclasses import FrozenInstanceError, is_dataclass

import pytest

from moorage.events import AcceptResumed, Event, serving


def test_every_event_is_a_small_frozen_class_with_a_sentence() -> None:
    kinds = [kind for kind in Event.__subclasses__() if kind.__module__ == serving.__name__]
    assert len(kinds) > 10
    for kind in kinds:
        assert is_dataclass(kind)
        assert kind.__doc__
    with pytest.raises(FrozenInstanceError):
        AcceptResumed(1.0).paused = 2.0  # type: ignore[misc]  # what is forbidden is what is tested
