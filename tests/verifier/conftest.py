"""A log as a monitor makes it: two agents, three policies, refusals, delegations, a restart and a new evidence key."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lictor.certs.domain import TrustDomain
from lictor.certs.evidence_keys import evidence_jwk
from lictor.evidence.entry import ActionDraft, OutcomeDraft
from lictor.evidence.export import write_export
from lictor.evidence.ledger import Ledger
from lictor.evidence.recorder import PolicyInfo, Recorder
from lictor.evidence.sqlite_store import SqliteReader, SqliteStore
from lictor.formats.canonical import digest
from lictor.formats.keys import KeySigner

DOMAIN = "example.test"
MONITOR = f"spiffe://{DOMAIN}/monitor/one"
ORIGIN = f"{DOMAIN}/monitor/one"
ALPHA, BETA = f"spiffe://{DOMAIN}/agent/alpha", f"spiffe://{DOMAIN}/agent/beta"


def binding(policy_id: str, **severities: str) -> dict[str, Any]:
    behaviors = [{"behavior_id": name, "severity": severity} for name, severity in severities.items()]
    return {"policy_id": policy_id, "version": "1.0.0", "expected_behaviors": behaviors}


BINDINGS = [binding("urn:p:data", reads="high", writes="low"), binding("urn:p:tools", calls="critical")]


def info(document: dict[str, Any]) -> PolicyInfo:
    severities = {b["behavior_id"]: b["severity"] for b in document["expected_behaviors"]}
    return PolicyInfo(document["policy_id"], document["version"], digest(document), severities)


POLICIES = tuple(info(document) for document in BINDINGS)


def said(policy: PolicyInfo, behavior: str, result: str) -> dict[str, str]:
    ids = {"policy_id": policy.policy_id, "version": policy.version, "binding": policy.digest}
    return {**ids, "behavior_id": behavior, "result": result}


def action(agent: str, number: int, *behaviors: dict[str, str], kind: str = "http_request") -> ActionDraft:
    bad = not behaviors or any(one["result"] == "fail" for one in behaviors)
    decision, reason = ("deny", "not_in_allowlist") if bad else ("allow", "allowed")
    target = f"https://api.example.test/item/{number}"
    return ActionDraft(agent, kind, target, {"method": "GET"}, decision, reason, behaviors)


@dataclass(frozen=True)
class Log:
    """Where the files are."""

    trust: TrustDomain
    ledger: Path
    evidence: Path

    @property
    def ca(self) -> bytes:
        return self.trust.identity_ca.read_bytes()

    def lines(self) -> list[bytes]:
        return self.evidence.read_bytes().splitlines(keepends=True)


def start(store: SqliteStore, trust: TrustDomain) -> tuple[Ledger, Recorder]:
    files = trust.path / "monitors" / "one"
    signer = KeySigner.from_file(files / "evidence.key")
    ledger = Ledger.open(store, ORIGIN, signer)
    ledger.put_document("key", signer.kid, evidence_jwk((files / "evidence.pem").read_bytes()))
    for document in BINDINGS:
        ledger.put_document("binding", digest(document), document)

    def policies_for(agent: str) -> tuple[PolicyInfo, ...]:
        return POLICIES if agent == ALPHA else ()

    recorder = Recorder(ledger, signer, MONITOR, policies_for, (), 3600.0, 0.0, stored=store)
    return ledger, recorder


async def work(recorder: Recorder, rounds: int) -> None:
    data, tools = POLICIES
    for number in range(rounds):
        receipt = await recorder.record_action(action(ALPHA, number, said(data, "reads", "pass")))
        await recorder.record_action(action(ALPHA, number, said(tools, "calls", "pass"), kind="tool_call"))
        await recorder.record_outcome(OutcomeDraft(receipt.seq, {"status": 200, "duration_ms": 1.5}))
        if number % 3 == 0:
            await recorder.record_action(action(ALPHA, number, said(data, "writes", "fail")))
            await recorder.record_action(action(BETA, number))
        if number % 4 == 0:
            await recorder.record_action(action(ALPHA, number, said(data, "reads", "pass"), kind="delegation"))


async def fill(path: Path, trust: TrustDomain) -> None:
    for rounds in (9, 6):
        store = SqliteStore(path)
        ledger, recorder = start(store, trust)
        await work(recorder, rounds)
        if rounds == 6:
            await recorder.close()
            await work(recorder, 2)
        await ledger.close()


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Log:
    folder = tmp_path_factory.mktemp("log")
    trust = TrustDomain.create(folder / "trust", DOMAIN)
    trust.add_monitor("one")
    log = Log(trust, folder / "ledger.db", folder / "evidence.jsonl")
    asyncio.run(fill(log.ledger, trust))
    reader = SqliteReader(log.ledger)
    write_export(reader, log.evidence)
    reader.close()
    return log


@pytest.fixture
def log(made: Log, tmp_path: Path) -> Log:
    """A copy of one's own."""
    shutil.copy(made.ledger, tmp_path / "ledger.db")
    shutil.copy(made.evidence, tmp_path / "evidence.jsonl")
    return Log(made.trust, tmp_path / "ledger.db", tmp_path / "evidence.jsonl")


@pytest.fixture
def running(log: Log) -> Callable[[], tuple[Ledger, Recorder]]:
    """Starts a recorder on the copied ledger; whoever starts it closes the ledger."""
    return lambda: start(SqliteStore(log.ledger), log.trust)
