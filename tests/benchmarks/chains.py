"""What a delegation chain costs: verifying a long one, and handing work on beside a call that is merely allowed."""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from lictor.certs.domain import TrustDomain
from lictor.certs.evidence_keys import evidence_jwk
from lictor.evidence.claims import new_id
from lictor.evidence.export import write_export
from lictor.evidence.issuer import Issuer
from lictor.evidence.ledger import Ledger
from lictor.evidence.lineage import Place
from lictor.evidence.sqlite_store import SqliteReader, SqliteStore
from lictor.evidence.windows import Window
from lictor.formats import jws
from lictor.formats.keys import KeySigner
from lictor.proxy import loop
from lictor.verifier.chain import verify_chain

from ..end_to_end.world import Monitor, binding, target
from . import contestants
from .evidence import POLICY
from .load import Generator, Link, Load, complete

AGENT, CALLEE = (f"spiffe://{contestants.TRUST_DOMAIN}/agent/{name}" for name in ("bench", "callee"))
LONG, SHORT = 10_000, 1_000
ROUNDS = 3
CALLS, WARM_UP = 600, 100
URN = "urn:bench:agent"
AGENT_HOST, DATA_HOST = "localhost", "127.0.0.1"
SENT = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "SendMessage",
    "params": {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "x" * 400}]}},
}


def measure(directory: Path) -> dict[str, float]:
    """All figures of this module; everything is made in `directory`."""
    trust = TrustDomain.create(directory / "chains-trust", contestants.TRUST_DOMAIN)
    trust.add_monitor("one")
    trust.add_agent("bench")
    figures = _verifying(directory, trust)
    figures |= _handing_on(directory, trust)
    for name, value in figures.items():
        print(f"{name:32} {value:12.3f}")
    return figures


# --- verifying ---


def _verifying(directory: Path, trust: TrustDomain) -> dict[str, float]:
    """Ratios of processor time: the machine's other work does not count."""
    long, short = (loop.run(_make(directory, trust, nodes)) for nodes in (LONG, SHORT))
    public = KeySigner.from_file(trust.monitor("one").evidence_key).public_key()
    ca = trust.identity_ca.read_bytes()
    growth, rates = [], []
    for _ in range(ROUNDS):
        few = [_verify(short, ca, SHORT) for _ in range(3)]
        many = _verify(long, ca, LONG)
        growth.append(many / statistics.median(few))
        rates.append(_check_signatures(long, public) / many)
    return {"chain_10k_vs_1k": statistics.median(growth), "chain_verify_vs_bare_signature": statistics.median(rates)}


async def _make(directory: Path, trust: TrustDomain, nodes: int) -> Path:
    """The evidence file of a line of `nodes` nodes, each with a BET."""
    files = trust.monitor("one")
    monitor = str(files.spiffe_id)
    signer = KeySigner.from_file(files.evidence_key)
    store = SqliteStore(directory / f"chain-{nodes}.db", "os")
    ledger = Ledger.open(store, monitor.removeprefix("spiffe://"), signer)
    ledger.put_document("key", signer.kid, evidence_jwk(files.evidence_cert.read_bytes()))
    ledger.add({"agent_id": AGENT})
    issuer = Issuer(ledger, signer, monitor, ())
    mint = issuer.minter(AGENT)
    wid, window = new_id(), _window(ledger.now())
    before: tuple[str, ...] = ()
    for _ in range(nodes):
        node = mint(wid, before, (CALLEE,), {"depth": 0})
        issuer.issue(window, Place(wid, node.jti, "asserted"), ledger.now(), "delegation", (CALLEE,))
        before = (node.jti,)
    await ledger.commit()
    await ledger.close()
    path = directory / f"chain-{nodes}.jsonl"
    with closing(SqliteReader(store.path)) as reader:
        write_export(reader, path)
    return path


def _window(start: float) -> Window:
    window = Window(AGENT, POLICY, start, 0, None)
    window.add(0, b"{}")
    window.judge("reads", "pass", "allow")
    return window


def _verify(path: Path, ca: bytes, nodes: int) -> float:
    """Seconds."""
    began = time.process_time()
    chain = verify_chain([path], ca)
    took = time.process_time() - began
    if (chain.verdict, len(chain.nodes), len(chain.bets)) != ("intact", nodes, nodes):
        raise SystemExit(f"the chain is {chain.verdict}: {chain.problems[:3]}")
    return took


def _check_signatures(path: Path, public: jws.PublicKey) -> float:
    """Seconds for the signatures alone of every node and BET in the file."""
    records = map(json.loads, path.read_bytes().splitlines())
    tokens = [record.get("ect") or record["bet"] for record in records if "ect" in record or "bet" in record]
    parsed = [jws.parse_compact(token, typ=frozenset({"exec+jwt", "bet+jwt"})) for token in tokens]
    began = time.process_time()
    for one in parsed:
        jws.verify_raw("EdDSA", one.signing_input, one.signature, public)
    return time.process_time() - began


# --- handing on ---


def _handing_on(directory: Path, trust: TrustDomain) -> dict[str, float]:
    folder = directory / "chains"
    folder.mkdir()
    with contestants.upstream(folder, trust) as up, _monitor(folder, trust, up) as monitor:
        agent = trust.path / "agents" / "bench"
        load = Load(
            "keepalive",
            1,
            1.0,
            DATA_HOST,
            up.https_port,
            str(trust.interception_root),
            "127.0.0.1",
            monitor.port,
            str(trust.identity_ca),
            str(agent / "cert.pem"),
            str(agent / "key.pem"),
        )
        delegated, plain = _alternate(load)
        made = Counter(entry.get("action_type") for entry in monitor.entries() if "outcome_of" not in entry)
        if made["delegation"] != CALLS + WARM_UP or made["data_source_access"] != CALLS + WARM_UP:
            raise SystemExit(f"{CALLS + WARM_UP} calls of each kind were made, recorded are {made}")
    mine, theirs = statistics.median(delegated), statistics.median(plain)
    print(f"a delegation: p50 {mine * 1000:.2f} ms; the same request, merely allowed: p50 {theirs * 1000:.2f} ms")
    return {"delegation_vs_plain_p50": mine / theirs}


@contextmanager
def _monitor(folder: Path, trust: TrustDomain, up: contestants.Upstream) -> Iterator[Monitor]:
    """One monitor, for which nginx is an agent under one name and an API under another."""
    agent, data = (f"https://{host}:{up.https_port}/**" for host in (AGENT_HOST, DATA_HOST))
    targets = target(URN, "agent", agent, agent=CALLEE) + target("urn:bench:data", "data_source", data)
    allowed = binding(delegation=[URN], data_source_access=["urn:bench:data"])
    more = f'[interception]\nupstream_ca = "{up.ca}"\n'
    monitor = Monitor(folder / "monitor", trust, "local", {"main": allowed}, targets, more=more)
    try:
        yield monitor.start()
    finally:
        monitor.stop()


def _alternate(load: Load) -> tuple[list[float], list[float]]:
    """Latencies in seconds of delegations and of plain calls, in turn, each kind over its own connection."""
    body = json.dumps(SENT).encode()
    kinds = []
    for host in (AGENT_HOST, DATA_HOST):
        head = f"POST / HTTP/1.1\r\nHost: {host}:{load.target_port}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        found: list[float] = []
        kinds.append((Generator(replace(load, target_host=host)).open(), head.encode() + body, found))
    for _ in range(WARM_UP + CALLS):
        for link, request, latencies in kinds:
            latencies.append(_call(link, request))
    return kinds[0][2][WARM_UP:], kinds[1][2][WARM_UP:]


def _call(link: Link, request: bytes) -> float:
    began = time.perf_counter()
    link.send(request)
    answer = b""
    while not complete(answer):
        answer += link.receive()
    return time.perf_counter() - began
