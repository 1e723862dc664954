"""Two trust domains with a monitor each, and a Verifier of one of them that takes the evidence of both."""

from __future__ import annotations

import contextlib
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from cryptography import x509
from end_to_end.world import binding
from pushed import Pusher
from serving import Served, conforms

from lictor.bindings.registry import load_binding
from lictor.certs.authority import CLIENT_AUTH, DOCUMENT_SIGNING, SERVER_AUTH, Issuer, issue, new_key, pem
from lictor.certs.bundle import make_bundle
from lictor.certs.contexts import client_context
from lictor.certs.domain import TrustDomain
from lictor.certs.evidence_keys import evidence_jwk
from lictor.certs.monitors import host_name
from lictor.evidence.disclosure import disclose
from lictor.evidence.ledger import Ledger
from lictor.evidence.sqlite_store import SqliteReader, SqliteStore
from lictor.formats.keys import KeySigner, write_private

OWN, PARTNER = "v.test", "w.test"
VERIFIER = f"spiffe://{OWN}/verifier/v"
OURS, THEIRS = f"spiffe://{OWN}/monitor/m", f"spiffe://{PARTNER}/monitor/m"
B = f"spiffe://{PARTNER}/agent/b"
TABLE = f'[[federation]]\ntrust_domain = "{PARTNER}"\nbundle = "w.json"\n'
NAMED = f"""monitors = ["spiffe://{OWN}/monitor/*", "spiffe://{PARTNER}/monitor/*"]
relying_parties = ["spiffe://{OWN}/*", "{B}"]
{TABLE}"""
RULES = binding(tool_call=["urn:test:good"])
DIGEST = load_binding(json.dumps(RULES).encode(), "rules").digest


@dataclass
class World:
    """Two trust domains in a folder, in which the bundle of the partner's lies."""

    folder: Path
    domains: dict[str, TrustDomain]

    @classmethod
    def make(cls, folder: Path) -> World:
        """A monitor in each domain; in ours a Verifier and an agent, too."""
        domains = {name: TrustDomain.create(folder / name, name) for name in (OWN, PARTNER)}
        for domain in domains.values():
            domain.add_monitor("m")
        domains[OWN].add_verifier("v")
        domains[OWN].add_agent("good")
        made = cls(folder, domains)
        made.exchange()
        return made

    def exchange(self) -> None:
        beside = self.folder / "beside"
        beside.write_text(json.dumps(make_bundle(self.domains[PARTNER])))
        beside.rename(self.folder / "w.json")

    def issuer(self, ca: str) -> Issuer:
        path = self.domains[ca].path
        return Issuer.load(path / "identity-ca.pem", path / "identity-ca.key")

    def cert(self, ca: str, uri: str) -> tuple[Path, Path]:
        """What the CA of a domain issues for whatever it is asked for."""
        key, stem = new_key(), f"minted-{len(list(self.folder.iterdir()))}"
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri), host_name("127.0.0.1")]
        usages = [SERVER_AUTH, CLIENT_AUTH]
        made = issue(self.issuer(ca), key.public_key(), subject="minted", usages=usages, names=names, days=1)
        files = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        files[0].write_bytes(pem(made))
        write_private(files[1], key)
        return files

    def context(self, ca: str, uri: str) -> ssl.SSLContext:
        """A client's of the Verifier, which it knows."""
        return client_context(self.domains[OWN].identity_ca, *self.cert(ca, uri))

    def pusher(self, name: str, agent: str = B) -> Pusher:
        return Pusher(self.domains[name].monitor("m"), agent)

    def jwk(self, signer: KeySigner, ca: str, uri: str) -> dict[str, Any]:
        """A monitor's evidence key as the CA of a domain certifies it for whomever."""
        names = [x509.UniformResourceIdentifier(uri)]
        public = signer.public_key()
        cert = issue(self.issuer(ca), public, subject="e", usages=[DOCUMENT_SIGNING], names=names, days=1)
        return evidence_jwk(pem(cert))


async def call(
    served: Served, context: ssl.SSLContext, method: str, path: str, body: Any = None, session: Any = None
) -> tuple[int, str]:
    """Status and body; (0, what) where not even the handshake was completed."""
    async with contextlib.AsyncExitStack() as stack:
        session = session or await stack.enter_async_context(aiohttp.ClientSession())
        url = f"https://127.0.0.1:{served.port}{path}"
        try:
            async with session.request(method, url, json=body, ssl=context) as answer:
                found = await answer.read()
                conforms(method, path, answer.status, answer.headers["Content-Type"], found)
                return answer.status, found.decode()
        except aiohttp.ClientError as e:
            return 0, str(e)


def evidence(pusher: Pusher, **changes: Any) -> dict[str, Any]:
    """As a monitor pushes it to this Verifier."""
    return {"keys": [pusher.jwk], "bets": [pusher.bet(aud=[VERIFIER])]} | changes


async def shown(
    world: World, pusher: Pusher, target: str = "urn:test:good", other: Pusher | None = None, *, both: bool = False
) -> str:
    """A disclosure of what an agent did, by a monitor, which says that this was all right.

    `other`: another key of it, which is in the log too; `both`: and has signed the checkpoint as well.
    """
    policy = {"policy_id": RULES["policy_id"], "version": "1.0.0", "binding": DIGEST}
    entry = {
        "agent_id": pusher.agent,
        "action_type": "tool_call",
        "action_target": target,
        "action_parameters": {"method": "POST"},
        "decision": "allow",
        "reason": "allowed",
        "behaviors": [{**policy, "behavior_id": "bhv-tool_call", "result": "pass"}],
        "wid": "w",
        "node": "n",
        "lineage": "root",
    }
    path = world.folder / f"{len(list(world.folder.iterdir()))}.db"
    ledger = Ledger.open(SqliteStore(path), pusher.id.removeprefix("spiffe://"), pusher.signer)
    for one in (other, pusher):
        if one is not None:
            ledger.put_document("key", one.signer.kid, one.jwk)
    if both and other is not None:
        ledger.sign_with(pusher.signer, other.signer)
    ledger.add(entry)
    await ledger.commit()
    await ledger.close()
    with contextlib.closing(SqliteReader(path)) as reader:
        return disclose(reader, 0).text()
