from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from lictor.bindings.signing import sign
from lictor.bindings.target import Target
from lictor.formats.errors import UsageError, VerificationError
from lictor.formats.keys import KeySigner, to_jwk
from lictor.proxy.config import BindingSettings
from lictor.proxy.tools import META, Tools, pins_document

URN, PLAIN = "urn:example:tool:calc", "urn:example:tool:plain"


class Kept(dict[str, str]):
    """The values of a store."""

    def meta(self, name: str) -> str | None:
        return self.get(name)


class Place:
    def __init__(self, path: Path) -> None:
        self.pins, self.kept = path / "pins.json", Kept()
        self.key = KeySigner.of(ed25519.Ed25519PrivateKey.generate())
        (path / "operator.jwk").write_text(json.dumps(to_jwk(self.key.public_key())))
        bindings = BindingSettings(path, (path / "operator.jwk",), False, "test.internal")
        match = ("https://c.example/mcp",)
        targets = (Target(URN, "tool", match, "mcp", pins=self.pins), Target(PLAIN, "tool", match))
        self.config: Any = SimpleNamespace(targets=targets, bindings=bindings)

    def approve(self, urn: str = URN, key: KeySigner | None = None, **tools: str) -> None:
        document = pins_document(urn, tools)
        self.pins.write_text(json.dumps(document))
        self.pins.with_name("pins.json.sig").write_text(sign(document, key or self.key))

    def tools(self) -> Tools:
        return Tools(self.config, self.kept, self.kept.__setitem__)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_was_approved_and_listed_is_for_the_workers(place: Place) -> None:
    place.approve(add="d1")
    tools = place.tools()
    assert tools.for_workers() == {"pins": {URN: {"add": "d1"}}, "listed": {}}
    assert tools.take(URN, {"add": "d2"})
    assert not tools.take(URN, {"add": "d2"})
    assert tools.take(URN, {"sub": "d3"})
    assert tools.for_workers()["listed"] == {URN: {"add": "d2", "sub": "d3"}}
    assert json.loads(place.kept[META]) == {URN: {"add": "d2", "sub": "d3"}}
    assert place.tools().for_workers() == tools.for_workers(), "a restart forgets nothing"


def test_only_servers_of_the_catalog_are_remembered(place: Place) -> None:
    tools = place.tools()
    assert not tools.take("urn:example:tool:other", {"add": "d"})
    assert not tools.take(PLAIN, {"add": "d"})
    place.kept[META] = json.dumps({"urn:example:tool:gone": {"add": "d"}})
    assert place.tools().for_workers()["listed"] == {}


def test_where_there_is_no_file_nothing_is_approved(place: Place) -> None:
    assert place.tools().for_workers()["pins"] == {URN: {}}


def test_a_change_is_taken_when_it_is_good(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.approve(add="d1")
    tools = place.tools()
    assert not tools.poll()
    place.approve(add="d2", sub="d3")
    assert tools.poll()
    assert tools.for_workers()["pins"] == {URN: {"add": "d2", "sub": "d3"}}
    place.pins.write_text("{}")
    with caplog.at_level(logging.ERROR):
        assert not tools.poll()
        assert not tools.poll()
    assert caplog.text.count("cannot be taken, what there was stays in force") == 1
    assert tools.for_workers()["pins"] == {URN: {"add": "d2", "sub": "d3"}}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "cannot be read as approved tools"),
        ("[]", "cannot be read as approved tools"),
        ("{}", "it has no tools with digests"),
        ('{"tools": {"a": 1}}', "it has no tools with digests"),
        (json.dumps(pins_document(PLAIN, {"a": "d"})), f"approves tools of '{PLAIN}', expected {URN}"),
        (json.dumps({**pins_document(URN, {"a": "d"}), "more": 1}), "approves tools of"),
        (json.dumps(pins_document(URN, {"a": "d"})), "is not signed"),
    ],
)
def test_a_file_that_is_not_one(place: Place, text: str, complaint: str) -> None:
    place.pins.write_text(text)
    with pytest.raises(UsageError, match=complaint):
        place.tools()


def test_a_file_that_another_key_has_signed(place: Place) -> None:
    place.approve(key=KeySigner.of(ed25519.Ed25519PrivateKey.generate()), add="d1")
    with pytest.raises(VerificationError, match="not trusted here"):
        place.tools()
