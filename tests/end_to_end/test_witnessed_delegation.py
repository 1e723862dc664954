"""A callee that wants the log behind a caller's evidence witnessed: real monitors, a real witness."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from command_line import lictor, spawned
from end_to_end.witnesses import Witness
from end_to_end.world import Monitor, Server, binding, until

from lictor.certs.evidence_keys import EvidenceKeys, evidence_jwk
from lictor.cli.init import write_binding
from lictor.evidence import bet
from lictor.evidence.witnessed import HEADER, verify_line
from lictor.formats.signed_note import parse_note

AGENT_B, URN_B = "spiffe://test.internal/agent/b", "urn:test:agent:b"
MESSAGE = {"jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": {"message": {"messageId": "m", "parts": []}}}


class Pair:
    """Monitor A, whose log has a witness, and monitor B, which asks for it."""

    def __init__(self, a: Monitor, b: Monitor, local: Server, witness: Witness, stranger: Witness) -> None:
        self.a, self.b, self.local, self.witness, self.stranger = a, b, local, witness, stranger
        self.url = f"https://127.0.0.1:{b.ingress_port}/"

    def delegate(self, *more: tuple[str, str]) -> httpx.Response:
        proxy = httpx.Proxy(self.a.url, ssl_context=self.a.agent_context())
        with httpx.Client(proxy=proxy, verify=self.a.target_context(), trust_env=False, timeout=20) as http:
            return http.post(self.url, json=MESSAGE, headers=list(more))

    def ask_for(self, version: str, *keys: str, **more: float) -> None:
        """Put a binding in force at B that asks for these witnesses."""
        document = binding("urn:test:policy:inbound", version, delegation=[URN_B])
        asked = {"issuers": ["spiffe://test.internal/monitor/*"], "witnesses": {"keys": [*keys], **more}}
        criteria = {"type": "delegation", "incoming": asked}
        document["expected_behaviors"].append(
            {"behavior_id": "bhv-witnessed", "observable_actions": ["delegation"], "compliance_criteria": criteria}
        )
        said = len(self.b.output())
        write_binding(
            self.b.path / "bindings/inbound.json",
            {**document, "subjects": ["spiffe://test.internal/monitor/*"]},
            self.b.domain,
        )
        until(lambda: f"inbound {version}" in self.b.output()[said:], what="the binding is in force")


@pytest.fixture(scope="module")
def pair(share_monitor: Callable[..., Monitor], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder, local = tmp_path_factory.mktemp("witnessed"), Server(None)
    first = binding("urn:test:policy:inbound", "0.1.0", delegation=[URN_B])
    b = share_monitor(
        "b",
        {"inbound": {**first, "subjects": ["spiffe://test.internal/monitor/*"]}},
        ingress=f'agent = "{AGENT_B}"\nurn = "{URN_B}"\nupstream = "http://127.0.0.1:{local.port}"',
    )
    table = f'[[target]]\nurn = "{URN_B}"\nkind = "agent"\nmatch = ["https://127.0.0.1:{b.ingress_port}/**"]\n'
    a = share_monitor("a", {"main": binding(delegation=[URN_B])}, f'{table}agent = "{AGENT_B}"\n', start=False)
    logs = folder / "logs"
    logs.write_text(lictor("log", "key", "-c", a.config).stdout)
    witness, stranger = (Witness(folder, name, logs) for name in ("w.example", "stranger.example"))
    a.config.write_text(f"{a.config.read_text()}{witness.table}\n[witnessing]\ninterval_s = 0.1\n")
    witness.start()
    a.start()
    yield Pair(a, b, local, witness, stranger)
    a.stop()
    witness.stop()
    local.close()


def witnessed(pair: Pair) -> httpx.Response:
    """A delegation, once the witness has signed something of the log."""
    return until(lambda: (r := pair.delegate()).status_code == 200 and r, what="the log is witnessed")


def reason(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["data"]["reason"])


def test_the_line_proves_that_the_log_behind_the_evidence_was_witnessed(pair: Pair, domain: Any) -> None:
    pair.ask_for("1.0.0", pair.witness.vkey, max_age_s=300)
    witnessed(pair)
    _, _, headers, _ = pair.local.requests[-1]
    keys = EvidenceKeys(domain.identity_ca.read_bytes())
    name = f"spiffe://{domain.name}/monitor/{pair.a.name}"
    keys.add_jwk(evidence_jwk((domain.path / "monitors" / pair.a.name / "evidence.pem").read_bytes()))
    tokens = [bet.verify(token, keys.resolve) for token in headers.get_all("Behavioral-Evidence")]
    (line,) = headers.get_all(HEADER)
    note = verify_line(line, tokens, name, keys.resolve)
    assert {signed.name for signed in parse_note(note).signatures} == {name.removeprefix("spiffe://"), "w.example"}
    arrived = [e for e in pair.b.entries() if e["action_parameters"].get("direction") == "inbound"][-1]
    assert arrived["action_parameters"]["checkpoint"] == note


def test_another_witness_is_not_enough_and_a_replay_says_what_the_monitor_said(pair: Pair, tmp_path: Path) -> None:
    pair.ask_for("2.0.0", pair.stranger.vkey)
    since = len(pair.b.entries())
    refused = pair.delegate()
    assert (refused.status_code, reason(refused)) == (403, "not_witnessed")
    denied = pair.b.wait_for(lambda e: e.get("reason") == "not_witnessed", since)
    assert pair.stranger.name not in denied["action_parameters"]["checkpoint"]
    pair.ask_for("3.0.0", pair.witness.vkey)
    seen = len(pair.local.requests)
    witnessed(pair)
    assert len(pair.local.requests) == seen + 1

    evidence, binding_file = tmp_path / "b.jsonl", pair.b.path / "bindings/inbound.json"
    assert lictor("log", "export", evidence, "-c", pair.b.config).returncode == 0
    replayed = spawned("binding", "replay", binding_file, "--against", evidence, "--json")
    changes = [c for c in json.loads(replayed.stdout)["changes"] if c["action_type"] == "delegation"]
    assert [(c["before"], c["after"], c["reason_before"]) for c in changes] == [("deny", "allow", "not_witnessed")]


def test_without_a_line_or_with_more_than_one_it_is_refused(pair: Pair) -> None:
    pair.ask_for("4.0.0", pair.witness.vkey)
    witnessed(pair)
    line = pair.local.requests[-1][2][HEADER]
    seen = len(pair.local.requests)
    for handed_on in (line, "what is no line"):
        answer = pair.delegate((HEADER, handed_on))
        assert (answer.status_code, reason(answer)) == (403, "checkpoint_invalid")
    assert len(pair.local.requests) == seen, "nothing of it arrives"
