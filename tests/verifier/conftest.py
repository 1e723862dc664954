"""A log as a monitor makes it: two agents, three policies, refusals, delegations, a restart and a new evidence key."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
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
from lictor.verifier.log import verify_lines
from lictor.verifier.report import LogReport

DOMAIN = "example.test"
MONITOR = f"spiffe://{DOMAIN}/monitor/one"
ORIGIN = f"{DOMAIN}/monitor/one"
ALPHA, BETA = f"spiffe://{DOMAIN}/agent/alpha", f"spiffe://{DOMAIN}/agent/beta"


def binding(policy_id: str, version: str = "1.0.0", **severities: str) -> dict[str, Any]:
    behaviors = [{"behavior_id": name, "severity": severity} for name, severity in severities.items()]
    return {"policy_id": policy_id, "version": version, "expected_behaviors": behaviors}


BINDINGS = [binding("urn:p:data", reads="high", writes="low"), binding("urn:p:tools", calls="critical")]
LATER = [binding("urn:p:data", "1.1.0", reads="high", writes="critical"), binding("urn:p:more", news="low")]


def info(document: dict[str, Any]) -> PolicyInfo:
    severities = {b["behavior_id"]: b["severity"] for b in document["expected_behaviors"]}
    return PolicyInfo(document["policy_id"], document["version"], digest(document), severities)


POLICIES = tuple(info(document) for document in BINDINGS)
LATER_POLICIES = tuple(info(document) for document in LATER)


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

    applying: list[PolicyInfo] = field(default_factory=lambda: list(POLICIES))

    def lines(self) -> list[bytes]:
        return self.evidence.read_bytes().splitlines(keepends=True)

    @property
    def later(self) -> tuple[PolicyInfo, ...]:
        """Other policies than those that apply."""
        return LATER_POLICIES

    async def work(self, recorder: Recorder, rounds: int) -> None:
        """Some actions of both agents, refused ones and delegations among them."""
        await work(recorder, rounds)

    async def story(self, recorder: Recorder) -> None:
        """What happens in a log, on a recorder that `running` started."""
        await work(recorder, 5)
        await exchange_bindings(recorder, self.applying)
        await recorder.close()
        await work(recorder, 2)


def start(store: SqliteStore, trust: TrustDomain, applying: list[PolicyInfo]) -> tuple[Ledger, Recorder]:
    files = trust.path / "monitors" / "one"
    signer = KeySigner.from_file(files / "evidence.key")
    ledger = Ledger.open(store, ORIGIN, signer)
    ledger.put_document("key", signer.kid, evidence_jwk((files / "evidence.pem").read_bytes()))
    for document in (*BINDINGS, *LATER):
        ledger.put_document("binding", digest(document), document)

    def policies_for(agent: str) -> tuple[PolicyInfo, ...]:
        return tuple(applying) if agent == ALPHA else ()

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


async def exchange_bindings(recorder: Recorder, applying: list[PolicyInfo]) -> None:
    """New bindings judge before their windows are open, old ones after theirs were closed."""
    tools = POLICIES[1]
    newer, more = LATER_POLICIES
    await recorder.record_action(action(ALPHA, 100, said(more, "news", "pass")))
    await recorder.record_action(action(ALPHA, 101, said(more, "news", "fail")))
    applying[:] = LATER_POLICIES
    await recorder.reload()
    await recorder.record_action(action(ALPHA, 102, said(tools, "calls", "pass")))
    await recorder.record_action(action(ALPHA, 103, said(tools, "calls", "fail")))
    await recorder.record_action(action(ALPHA, 104, said(more, "news", "fail"), said(newer, "reads", "pass")))
    await recorder.record_action(action(ALPHA, 105, said(newer, "writes", "fail")))
    applying[:] = POLICIES
    await recorder.reload()


async def fill(path: Path, trust: TrustDomain) -> None:
    applying = list(POLICIES)
    store = SqliteStore(path)
    ledger, recorder = start(store, trust, applying)
    await work(recorder, 9)
    await ledger.close()
    store = SqliteStore(path)
    ledger, recorder = start(store, trust, applying)
    await work(recorder, 5)
    await exchange_bindings(recorder, applying)
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
    return lambda: start(SqliteStore(log.ledger), log.trust, log.applying)


@pytest.fixture
def lines(made: Log) -> list[bytes]:
    return made.lines()


@pytest.fixture
def verify(made: Log) -> Callable[[list[bytes]], LogReport]:
    return lambda lines: verify_lines(lines, made.ca)


@pytest.fixture
def evidence_signer(made: Log) -> KeySigner:
    return KeySigner.from_file(made.trust.path / "monitors" / "one" / "evidence.key")
