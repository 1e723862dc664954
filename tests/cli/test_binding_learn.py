"""`lictor binding learn` as a person and as a script call it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

A = "spiffe://e.example/agent/default"
H = "https://h.example"


def entry(target: Any, **more: Any) -> dict[str, Any]:
    return {
        "agent_id": A,
        "action_type": "http_request",
        "action_target": target,
        "action_parameters": {"method": "GET"},
        "decision": "allow",
        "reason": "allowed",
        "behaviors": [],
        "wid": "w",
        "node": "n",
        "lineage": "root",
        **more,
    }


ENTRIES = [*(entry(f"{H}/u/{i}") for i in range(5)), entry(f"{H}/x")]


def test_a_draft_from_an_evidence_file_is_good_as_it_stands(
    run: Callable[..., tuple[int, str]], evidence: Callable[[list[Any]], Path], tmp_path: Path
) -> None:
    evidence(ENTRIES)
    code, text = run("binding", "learn", "evidence.jsonl", "--agent", "default")
    assert code == 0
    draft = json.loads(text)
    assert draft["expected_behaviors"][0]["compliance_criteria"]["values"] == [f"{H}/u/*", f"{H}/x"]
    assert "6 allowed actions among the entries 0 to 5 of e.example/monitor/local" in draft["description"]
    (tmp_path / "draft.json").write_text(text)
    assert run("binding", "check", "draft.json", "--strict")[0] == 0


def test_a_draft_from_a_ledger_goes_to_a_file_that_is_not_there_yet(
    run: Callable[..., tuple[int, str]], working_set: Callable[[list[Any]], Path], tmp_path: Path
) -> None:
    config = working_set([*ENTRIES, entry(f"{H}/no", decision="deny", reason="default_deny")])
    args = ("binding", "learn", "-c", config, "--agent", A, "--generalise", "0", "--include-denied")
    code, text = run(*args, "-o", "draft.json", "--json")
    result = json.loads(text)
    assert (code, result["actions"], result["left_out"]) == (0, 7, {})
    assert json.loads((tmp_path / "draft.json").read_text()) == result["binding"]
    assert len(result["binding"]["expected_behaviors"][0]["compliance_criteria"]["values"]) == 7
    assert run(*args, "-o", "draft.json") == (2, "draft.json exists already: name another file, or remove it first")


def test_entries_that_are_none_break_nothing(
    run: Callable[..., tuple[int, str]], evidence: Callable[[list[Any]], Path]
) -> None:
    odd: list[Any] = [b"{x}", b'{"agent_id":' + b"[" * 2000 + b"}", b"{}", entry(7), entry(f"{H}/**"), entry(f"{H}/x")]
    evidence(odd)
    code, text = run("binding", "learn", "evidence.jsonl", "--agent", "default", "--json")
    result = json.loads(text)
    assert (code, result["actions"], result["left_out"]) == (0, 1, {"malformed": 1, "not_a_pattern": 1})


def test_wrong_use_is_said(
    run: Callable[..., tuple[int, str]], evidence: Callable[[list[Any]], Path], tmp_path: Path
) -> None:
    path = evidence(ENTRIES)
    assert run("binding", "learn", path, "--agent", "other") == (
        2,
        f"e.example/monitor/local has no action of other to learn from; it has {A}",
    )
    assert "there is no lictor.toml" in run("binding", "learn", "--agent", "default")[1]
    path.write_bytes(b"{}\n")
    assert (
        "is not an evidence file as `lictor log export` writes it"
        in run("binding", "learn", path, "--agent", "default")[1]
    )
    evidence(ENTRIES)
    path.write_bytes(path.read_bytes()[:-20])
    assert "the file ends within line" in run("binding", "learn", path, "--agent", "default")[1]
