"""`lictor binding replay` as a person and as a script call it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import recorded

A = "spiffe://e.example/agent/default"
H = "https://example.com"

entry = partial(recorded.entry, agent_id=A, wid="w", node="n", lineage="root")


def binding(tmp_path: Path, *values: str) -> Path:
    criteria = {"type": "allowlist", "values": list(values)}
    behavior = {"behavior_id": "b", "observable_actions": ["http_request"], "compliance_criteria": criteria}
    document = {"policy_id": "urn:p:new", "evaluation_mode": "continuous", "expected_behaviors": [behavior]}
    path = tmp_path / "new.json"
    path.write_text(json.dumps(document))
    return path


Run = Callable[..., tuple[int, str]]
ENTRIES = [entry(f"{H}/a"), entry(f"{H}/b\x1b[2J[red]", "deny"), entry(f"{H}/c", "deny")]


def test_what_changes_against_an_evidence_file(run: Run, evidence: Callable[[list[Any]], Path], tmp_path: Path) -> None:
    path = evidence([*ENTRIES, b"{}"])
    code, text = run("binding", "replay", binding(tmp_path, f"{H}/c"), "--against", path)
    assert code == 1
    assert "0  allow → deny  http_request https://example.com/a" in text
    assert "2  deny → allow  http_request https://example.com/c" in text
    assert "3 actions of e.example/monitor/local judged; changed: 1 from allow to deny, 1 from deny to allow" in text
    assert "1 cannot be judged: not entries as a monitor writes them" in text
    code, text = run("binding", "replay", binding(tmp_path, f"{H}/c"), "--against", path, "--json")
    result = json.loads(text)
    assert (code, result["ok"], result["judged"], result["not_judged"]) == (1, False, 3, {"malformed": 1})
    assert [(change["seq"], change["before"], change["after"]) for change in result["changes"]] == [
        (0, "allow", "deny"),
        (2, "deny", "allow"),
    ]


def test_nothing_printed_moves_the_terminal(run: Run, evidence: Callable[[list[Any]], Path], tmp_path: Path) -> None:
    path = evidence([entry(f"{H}/b\x1b[2J[red]:x:", "allow")])
    code, text = run("binding", "replay", binding(tmp_path, f"{H}/c"), "--against", path)
    assert (code, "\x1b" in text, "[red]:x:" in text) == (1, False, True)


def test_the_bindings_in_force_change_nothing_in_the_ledger(
    run: Run, working_set: Callable[[list[Any]], Path], tmp_path: Path
) -> None:
    connect = entry("https://other.example/", "deny", action_parameters={"method": "CONNECT"})
    config = working_set([entry(f"{H}/a"), entry("https://other.example/x", "deny"), connect])
    code, text = run("binding", "replay", config.parent / "bindings", "-c", config, "--json")
    assert (code, json.loads(text)["judged"], json.loads(text)["not_judged"]) == (0, 3, {})
    code, text = run(
        "binding", "replay", binding(tmp_path, "https://other.example/x"), "-c", config, "--agent", "default"
    )
    assert code == 1
    assert "deny → open" in text


def test_wrong_use_is_said(run: Run, evidence: Callable[[list[Any]], Path], tmp_path: Path) -> None:
    path, new = evidence(ENTRIES), binding(tmp_path, f"{H}/a")
    (tmp_path / "twice").mkdir()
    for name in ("a.json", "b.json"):
        (tmp_path / "twice" / name).write_bytes(new.read_bytes())
    for args, complaint in (
        ((new, "--against", path, "--agent", "nobody"), "e.example/monitor/local has no action of nobody"),
        ((new,), "there is no lictor.toml"),
        (("none.json", "--against", path), "none.json does not exist"),
        (("twice", "--against", path), "twice/b.json: the policy_id urn:p:new is already in twice/a.json"),
    ):
        code, text = run("binding", "replay", *args)
        assert code == 2
        assert complaint in text
