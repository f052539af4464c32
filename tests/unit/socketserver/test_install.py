"""Unit tests of `moorage.socketserver.install`; what it does to a program is in tests/behaviour."""

import importlib
import pickle
import socket
import socketserver as stdlib
import sys
import types
import warnings
from collections.abc import Iterator

import pytest

from moorage import socketserver
from moorage.socketserver.install import _modules_with_stdlib_classes, install, uninstall


@pytest.fixture
def installed() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        install()
    yield
    uninstall()


@pytest.fixture
def latecomer() -> Iterator[types.ModuleType]:
    module = types.ModuleType("a_latecomer")
    module.Server = type("Server", (stdlib.TCPServer,), {})  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


@pytest.mark.usefixtures("installed")
def test_installed_module_is_what_programs_import() -> None:
    module = importlib.import_module("socketserver")
    assert module is socketserver
    assert module.TCPServer is socketserver.TCPServer


@pytest.mark.usefixtures("installed")
def test_installed_classes_say_that_they_are_of_socketserver_and_can_be_pickled() -> None:
    for name in socketserver.__all__:
        cls = getattr(socketserver, name)
        assert cls.__module__ == "socketserver"
        assert pickle.loads(pickle.dumps(cls)) is cls


@pytest.mark.usefixtures("installed")
def test_installed_module_has_what_programs_use_beside_the_public_names() -> None:
    assert sys.modules["socketserver"].socket is socket
    assert sys.modules["socketserver"]._SocketWriter is stdlib._SocketWriter  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="no_such_name"):
        sys.modules["socketserver"].no_such_name  # noqa: B018


def test_second_install_does_nothing(installed: None) -> None:
    install()
    assert sys.modules["socketserver"] is socketserver


def test_uninstall_puts_the_standard_librarys_module_back(installed: None) -> None:
    uninstall()
    assert sys.modules["socketserver"] is stdlib
    assert socketserver.TCPServer.__module__ == "moorage.socketserver"
    uninstall()
    assert sys.modules["socketserver"] is stdlib


def test_install_names_the_modules_that_took_classes_before_in_one_warning(latecomer: types.ModuleType) -> None:
    with pytest.warns(RuntimeWarning, match=r"imported before .* by .*a_latecomer") as caught:
        install()
    uninstall()
    assert len(caught) == 1


def test_modules_with_classes_of_ours_alone_are_not_named(latecomer: types.ModuleType) -> None:
    latecomer.Server = type("Server", (socketserver.TCPServer,), {})  # type: ignore[attr-defined]
    assert latecomer.__name__ not in _modules_with_stdlib_classes()


def test_public_names_are_the_standard_librarys_and_the_two_pools() -> None:
    new_in_3_12 = {"ForkingUnixStreamServer", "ForkingUnixDatagramServer"}
    assert set(socketserver.__all__) == {*stdlib.__all__, *new_in_3_12, "ThreadPoolTCPServer", "ProcessPoolTCPServer"}
