"""Checked configuration: what is wrong is named by its key; the rest is tried with the configurations that use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lictor.formats.errors import UsageError
from lictor.formats.settings import address, read_settings, spiffe_id

SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string"},
        "period": {"type": "number"},
        "safe": {"const": True, "$comment": "is never off"},
        "list": {"type": "array", "items": {"type": "object", "additionalProperties": False, "properties": {"a": {}}}},
    },
}


def test_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('name = "n"\nperiod = 1.5\n')
    assert read_settings(path, SCHEMA, "") == {"name": "n", "period": 1.5}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('nane = ""', "unknown key nane, did you mean name"),
        ("zzz = 1", r"unknown key zzz \(known here: name, period, safe, list\)"),
        ("[[list]]\nb = 1", r"unknown key list\[0\].b"),
        ("period = nan", "period: nan is not a finite number"),
        ("period = 'x'", "period: 'x' is not of type 'number'"),
        ("safe = false", "safe: is never off"),
        ("name", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=what):
        read_settings(path, SCHEMA, "")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no .*: make one"):
        read_settings(tmp_path / "x.toml", SCHEMA, "make one")


def test_addresses_and_identities() -> None:
    assert address("[::1]:80", "a") == ("::1", 80)
    with pytest.raises(UsageError, match="a: the port 70000"):
        address("h:70000", "a")
    assert spiffe_id("spiffe://x/y", "a") == "spiffe://x/y"
    with pytest.raises(UsageError, match="a: "):
        spiffe_id("spiffe://X/y", "a")
