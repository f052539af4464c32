"""local: attributes that each fiber and each thread has for itself."""

import gc
import threading
import weakref
from typing import Any

import pytest

from moorage.locals import local
from support.strands import FiberStrands, Strands, pause, run_all
from support.waiting import eventually


class Thing:
    """Dies where the test can see it."""


def test_local_is_seen_by_its_strand_alone(strands: Strands) -> None:
    mine = local()
    mine.name = "test"

    def use(name: str) -> list[object]:
        seen = [getattr(mine, "name", None)]
        mine.name = name
        for _ in range(5):
            pause()
        return [*seen, mine.name]

    answers = run_all(strands, lambda: use("a"), lambda: use("b"))
    assert answers == [[None, "a"], [None, "b"]]
    assert mine.name == "test"


def test_local_of_a_fiber_that_is_used_again_starts_empty(hub: FiberStrands) -> None:
    mine = local()

    def use() -> bool:
        had = hasattr(mine, "name")
        mine.name = "me"
        return had

    assert [hub.start(use).result() for _ in range(3)] == [False, False, False]


def test_local_value_dies_with_its_strand(strands: Strands) -> None:
    mine, seen = local(), []

    def keep() -> None:
        thing = Thing()
        seen.append(weakref.ref(thing))
        mine.thing = thing

    strands.start(keep).result()
    eventually(lambda: gc.collect() >= 0 and seen[0]() is None)


def test_local_value_dies_with_the_local(strands: Strands) -> None:
    def keep() -> object:
        mine = local()
        mine.thing = thing = Thing()
        seen = weakref.ref(thing)
        del mine, thing
        gc.collect()
        return seen()

    assert strands.start(keep).result() is None


def test_local_subclass_is_initialised_for_each_strand(strands: Strands) -> None:
    class Mine(local):
        limit = 10

        def __init__(self, *names: str, **others: int) -> None:
            self.names = list(names)
            self.others = others

        @property
        def count(self) -> int:
            return len(self.names)

    mine = Mine("one", "two", three=3)
    mine.names.append("test")

    def use() -> list[object]:
        return [mine.names, mine.others, mine.count, mine.limit]

    assert run_all(strands, use, use) == [[["one", "two"], {"three": 3}, 2, 10]] * 2
    assert mine.count == 3


def test_local_attribute_hides_that_of_the_class(strands: Strands) -> None:
    class Mine(local):
        limit = 10

    mine = Mine()
    mine.limit = 20
    assert (mine.limit, strands.start(lambda: mine.limit).result()) == (20, 10)
    del mine.limit
    assert mine.limit == 10


def test_local_init_that_fails_is_tried_again(strands: Strands) -> None:
    fails: list[Exception] = []

    class Mine(local):
        def __init__(self) -> None:
            if fails:
                raise fails.pop()
            self.ready = True

    mine = Mine()

    def use() -> list[object]:
        fails.append(ValueError("not yet"))
        with pytest.raises(ValueError, match="not yet"):
            _ = mine.ready
        return [mine.ready]

    assert strands.start(use).result() == [True]


@pytest.mark.parametrize("kind", [local, threading.local])
def test_local_without_init_takes_no_arguments(kind: Any) -> None:
    with pytest.raises(TypeError, match="Initialization arguments are not supported"):
        kind(1)


@pytest.mark.parametrize("kind", [local, threading.local])
def test_local_behaves_as_an_object(kind: Any) -> None:
    class Mine(kind):  # type: ignore[misc]  # both kinds go through the same steps
        __slots__ = ("shared",)
        double: Any = property(
            lambda self: self.number * 2,
            lambda self, value: setattr(self, "number", value // 2),
            lambda self: delattr(self, "number"),
        )

    make: Any = Mine  # of a class that is known only when it runs
    mine = make()
    mine.double = 8
    mine._key = "the user's"
    mine.shared = 1
    assert (mine.number, mine.double, mine._key) == (4, 8, "the user's")
    assert vars(mine) == {"number": 4, "_key": "the user's"}
    assert {"number", "double"} <= set(dir(mine))
    del mine.double
    for name in ("number", "double", "missing"):
        assert not hasattr(mine, name)
    with pytest.raises(AttributeError):
        del mine.number
    with pytest.raises(AttributeError):
        mine.__dict__ = {}
    with pytest.raises(AttributeError):
        del mine.__dict__
