"""Devcert: the command hands on what it was given, and prints what it is told."""

import pytest

from moorage import devcert
from moorage.errors import OperatorError
from support.commands import Said


def test_names_folder_and_force_are_handed_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def make(names: tuple[str, ...], folder: str, force: bool) -> list[str]:
        asked.append((tuple(names), folder, force))
        return ["one", "two"]

    monkeypatch.setattr(devcert, "make", make)
    assert Said(capsys, "devcert").out == "one\ntwo\n"
    Said(capsys, "devcert", "--folder", "/x", "--force", "a.test", "b.test")
    assert asked == [((), ".", False), (("a.test", "b.test"), "/x", True)]


def test_refusal_is_one_sentence_and_status_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(*_: object) -> list[str]:
        raise OperatorError("cert.pem is there already")

    monkeypatch.setattr(devcert, "make", make)
    said = Said(capsys, "devcert")
    assert (said.status, said.out, said.err) == (2, "", "moorage: cert.pem is there already\n")
