"""Two monitors of one trust domain and a delegation from one's agent to the other's, as real evidence files."""

from __future__ import annotations

import asyncio
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from lictor.certs.domain import TrustDomain
from lictor.certs.evidence_keys import EvidenceKeys, evidence_jwk
from lictor.evidence.admission import examine
from lictor.evidence.entry import KEY_ROTATION, ActionDraft, Receipt, own_fields
from lictor.evidence.export import write_export
from lictor.evidence.ledger import Ledger
from lictor.evidence.recorder import Recorder
from lictor.evidence.sqlite_store import SqliteReader, SqliteStore
from lictor.formats.keys import KeySigner

# Where the tests are started with these ignored (nohup, `&` in a script), so would be all that they start.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

CHAIN_DOMAIN = "chain.test"
ONE, TWO = f"spiffe://{CHAIN_DOMAIN}/monitor/one", f"spiffe://{CHAIN_DOMAIN}/monitor/two"
AGENT_A, AGENT_B = f"spiffe://{CHAIN_DOMAIN}/agent/a", f"spiffe://{CHAIN_DOMAIN}/agent/b"


@dataclass(frozen=True)
class ChainFiles:
    """The evidence files of both monitors, the one CA, both signers, and a refusal's evidence as its header has it."""

    folder: Path
    ca: Path
    one: Path
    two: Path
    signers: dict[str, KeySigner]
    refusal: str
    delegation: Receipt

    @property
    def files(self) -> tuple[Path, Path]:
        return self.one, self.two


class _Side:
    """A monitor with its ledger."""

    def __init__(self, folder: Path, trust: TrustDomain, name: str) -> None:
        files = trust.path / "monitors" / name
        self.id = f"spiffe://{CHAIN_DOMAIN}/monitor/{name}"
        self.signer = KeySigner.from_file(files / "evidence.key")
        self.jwk = evidence_jwk((files / "evidence.pem").read_bytes())
        self.store = SqliteStore(folder / f"{name}.db")
        self.ledger = Ledger.open(self.store, f"{CHAIN_DOMAIN}/monitor/{name}", self.signer)
        self.ledger.put_document("key", self.signer.kid, self.jwk)
        self.recorder = Recorder(self.ledger, self.signer, self.id, lambda _: (), (), 3600.0, stored=self.store)

    async def end(self, evidence: Path) -> None:
        await self.recorder.close()
        path = self.store.path
        await self.ledger.close()
        reader = SqliteReader(path)
        write_export(reader, evidence)
        reader.close()


def _draft(agent: str, kind: str, target: str, audience: tuple[str, ...] = ()) -> ActionDraft:
    return ActionDraft(agent, kind, target, {"method": "POST"}, "flag", "allowed", (), audience=audience)


async def _work(folder: Path, trust: TrustDomain) -> tuple[str, Receipt, dict[str, KeySigner]]:
    one, two = _Side(folder, trust, "one"), _Side(folder, trust, "two")
    keys = EvidenceKeys(trust.identity_ca.read_bytes())
    keys.add_jwk(one.jwk)
    denied = ActionDraft(AGENT_A, "http_request", "https://evil.test/", {}, "deny", "default_deny", ())
    refusal = (await one.recorder.record_action(denied)).behavioral_evidence[0]
    sent = await one.recorder.record_action(_draft(AGENT_A, "delegation", "urn:chain:b", (AGENT_B,)))
    inbound = examine(
        agent_id=AGENT_B,
        peer_id=ONE,
        action_target=AGENT_B,
        action_parameters={},
        execution_context=sent.execution_context,
        behavioral_evidence=sent.behavioral_evidence,
        traceparent=None,
        resolve=keys.resolve,
        accepted={AGENT_B, TWO},
        now=two.ledger.now(),
    )
    taken = await two.recorder.accept_delegation(inbound)
    assert taken.decision == "allow", taken.detail
    await two.recorder.record_action(_draft(AGENT_B, "tool_call", "urn:chain:tool"))
    await two.recorder.delegation_response(taken.node)
    two.recorder.finish_delegation(taken.node)
    await one.end(folder / "one.jsonl")
    await two.end(folder / "two.jsonl")
    return refusal, sent, {ONE: one.signer, TWO: two.signer}


@pytest.fixture(scope="session")
def chain_files(tmp_path_factory: pytest.TempPathFactory) -> ChainFiles:
    folder = tmp_path_factory.mktemp("chain")
    trust = TrustDomain.create(folder / "trust", CHAIN_DOMAIN)
    for name in ("one", "two"):
        trust.add_monitor(name)
    refusal, sent, signers = asyncio.run(_work(folder, trust))
    return ChainFiles(folder, trust.identity_ca, folder / "one.jsonl", folder / "two.jsonl", signers, refusal, sent)


@pytest.fixture
def two_histories(chain_files: ChainFiles, tmp_path: Path) -> tuple[Path, Path]:
    """The log of the first monitor, gone on in two ways, each signed by it."""

    async def go_on(path: Path) -> None:
        ledger = Ledger.open(SqliteStore(path), ONE.removeprefix("spiffe://"), chain_files.signers[ONE])
        ledger.add(own_fields(ONE, KEY_ROTATION, {"kid": path.stem, "previous_kid": ""}))
        await ledger.close()

    paths = tmp_path / "left.db", tmp_path / "right.db"
    for path in paths:
        shutil.copy(chain_files.folder / "one.db", path)
        asyncio.run(go_on(path))
    return paths
