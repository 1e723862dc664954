"""Bindings are taken from disk only when all of them are good and follow what was in force."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from lictor.bindings.succession import Past, Succession
from lictor.formats.errors import UsageError
from lictor.proxy.config import BindingSettings
from lictor.proxy.reload import BindingsOnDisk


def write(path: Path, version: str, value: str | None = "urn:test:one") -> None:
    behavior: dict[str, Any] = {
        "behavior_id": "b",
        "observable_actions": ["tool_call"],
        "compliance_criteria": {"type": "allowlist", "values": [value]},
    }
    document = {
        "policy_id": f"urn:policy:{path.stem}",
        "version": version,
        "expected_behaviors": [behavior] if value else [],
        "evaluation_mode": "continuous",
    }
    new = path.with_suffix(".new")
    new.write_text(json.dumps(document))
    os.replace(new, path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        write(tmp_path / f"{name}.json", "1.0.0")
    return tmp_path


@pytest.fixture
def on_disk(folder: Path) -> BindingsOnDisk:
    made = BindingsOnDisk(BindingSettings(folder, (), True, "test.internal"))
    made.follow(Succession(()))
    return made


def versions(on_disk: BindingsOnDisk) -> list[str]:
    return [binding.version for binding in on_disk.current]


def test_a_good_change_is_taken(folder: Path, on_disk: BindingsOnDisk) -> None:
    assert not on_disk.poll()
    write(folder / "one.json", "1.1.0", "urn:test:two")
    assert on_disk.poll()
    assert versions(on_disk) == ["1.1.0", "1.0.0"]
    write(folder / "three.json", "1.0.0")
    write(folder / "two.json", "1.1.0", None)
    assert on_disk.poll()
    assert versions(on_disk) == ["1.1.0", "1.0.0", "1.1.0"]


def test_an_older_one_is_not_taken(folder: Path, on_disk: BindingsOnDisk, caplog: pytest.LogCaptureFixture) -> None:
    former = (folder / "one.json").read_bytes()
    write(folder / "one.json", "1.1.0", "urn:test:two")
    assert on_disk.poll()
    (folder / "one.json").write_bytes(former)
    with caplog.at_level(logging.ERROR):
        assert not on_disk.poll()
    assert "is older than 1.1.0" in caplog.text
    assert versions(on_disk) == ["1.1.0", "1.0.0"]


def test_none_disappears(folder: Path, on_disk: BindingsOnDisk, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "two.json").unlink()
    with caplog.at_level(logging.ERROR):
        assert not on_disk.poll()
    assert "urn:policy:two was in force and is gone" in caplog.text
    assert len(on_disk.current) == 2


def test_what_is_there_at_the_start_must_follow_too(folder: Path) -> None:
    before = BindingsOnDisk(BindingSettings(folder, (), True, "test.internal")).current
    (folder / "one.json").unlink()
    found = BindingsOnDisk(BindingSettings(folder, (), True, "test.internal"))
    with pytest.raises(UsageError, match="urn:policy:one was in force and is gone"):
        found.follow(Succession(Past.of(b.document, b.digest) for b in before))
