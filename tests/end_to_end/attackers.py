"""Attackers of a delegation: they hold a monitor's certificate and evidence key of the trust domain, or less."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import ssl
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx
from end_to_end.world import Monitor, Server, until

from lictor.certs.domain import TrustDomain
from lictor.certs.evidence_keys import evidence_jwk
from lictor.cli.init import write_binding
from lictor.evidence import bet, ect
from lictor.evidence.claims import new_id
from lictor.evidence.ledger import Ledger
from lictor.evidence.sqlite_store import SqliteStore
from lictor.evidence.store import NodeRow
from lictor.formats import base64url, jws
from lictor.formats.jws import Signer
from lictor.formats.keys import KeySigner
from lictor.verifier.bets import parse_bet

AGENT_A, AGENT_B = "spiffe://test.internal/agent/default", "spiffe://test.internal/agent/b"
URN_B = "urn:test:agent:b"
MESSAGE = {"jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": {"message": {"messageId": "m", "parts": []}}}


class Attacker:
    """What a monitor `name` of the trust domain can sign and send to another one's ingress, besides the truth."""

    def __init__(self, domain: TrustDomain, name: str, agent: str, audience: str) -> None:
        self.files = domain.monitor(name) if (domain.path / "monitors" / name).exists() else domain.add_monitor(name)
        self.id, self.agent, self.audience, self._domain = str(self.files.spiffe_id), agent, audience, domain
        self.signer: Signer = KeySigner.from_file(self.files.evidence_key)
        self.context = tls(domain, self.files.cert, self.files.key)

    def node(self, **changes: Any) -> dict[str, Any]:
        """The claims of a node as they should be; a change to None leaves a claim out."""
        now = int(time.time())
        return _changed(
            {
                "iss": self.id,
                "sub": self.agent,
                "aud": [self.audience],
                "iat": now,
                "exp": now + 600,
                "jti": new_id(),
                "wid": new_id(),
                "exec_act": ect.EXEC_ACT,
                "par": [],
                "pred": [],
                "ext": {"depth": 0},
                "ect_ext": {"depth": 0},
            },
            changes,
        )

    def bet(self, node: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
        """The claims of a BET under that node, as they should be."""
        now = int(time.time())
        return _changed(
            {
                "iss": self.id,
                "sub": node.get("sub", self.agent),
                "aud": [self.audience],
                "iat": now,
                "exp": now + 3600,
                "jti": new_id(),
                "wid": node.get("wid") or new_id(),
                "exec_act": ect.BEHAVIORAL_VERIFICATION,
                "par": [node["jti"]],
                "pred": [node["jti"]],
                "bhv_policy": "urn:test:policy:main",
                "bhv_result": "pass",
                "bhv_evidence": bet.EMPTY_EVIDENCE,
                "bhv_window": {"start": now - 60, "end": now},
            },
            changes,
        )

    def sign(self, claims: Mapping[str, Any], typ: str, signer: Signer | None = None, **header: Any) -> str:
        return jws.sign_compact({"typ": typ, **header}, json.dumps(claims).encode(), signer or self.signer)

    def tokens(self, node: Mapping[str, Any], **bets: Any) -> tuple[list[str], list[str]]:
        """A node and a BET under it, both as lictor writes them."""
        return [self.sign(node, ect.TYP)], [self.sign(self.bet(node, **bets), bet.TYP)]

    def send(
        self,
        callee: Monitor,
        nodes: Iterable[str],
        bets: Iterable[str],
        context: ssl.SSLContext | None = None,
    ) -> httpx.Response:
        """Hand on a piece of work."""
        lines = [*((ect.HEADER, token) for token in nodes), *((bet.HEADER, token) for token in bets)]
        with httpx.Client(verify=context or self.context, trust_env=False, timeout=30) as http:
            return http.post(f"https://127.0.0.1:{callee.ingress_port}/", json=MESSAGE, headers=lines)

    def log(self, path: Path, *nodes: Mapping[str, Any]) -> Path:
        """A ledger of this monitor, rightly signed, that holds these nodes."""

        async def write() -> None:
            origin = self.id.removeprefix("spiffe://")
            ledger = Ledger.open(SqliteStore(path), origin, self.signer)
            ledger.put_document("key", self.signer.kid, evidence_jwk(self.files.evidence_cert.read_bytes()))
            for one in nodes:
                parents = tuple(one["pred"])
                token = self.sign(one, ect.TYP)
                row = NodeRow(one["jti"], one["wid"], one["sub"], one["iss"], one["iat"], parents, token, "minted")
                ledger.add_node(row)
            await ledger.commit()
            await ledger.close()

        asyncio.run(write())
        return path


Sent = tuple[list[str], list[str]]
"""Lines of `Execution-Context` and of `Behavioral-Evidence`."""


class Callee:
    """A monitor with an ingress listener, and the agent behind it, which must notice nothing of what is refused."""

    def __init__(self, monitor: Monitor, agent: Server) -> None:
        self.monitor, self.agent = monitor, agent

    def delegations(self) -> list[dict[str, Any]]:
        found = [entry for entry in self.monitor.entries() if entry["action_type"] == "delegation"]
        return [entry for entry in found if "outcome_of" not in entry]

    def asks(self, incoming: dict[str, Any] | None) -> None:
        """Put a criterion of what must be shown into the binding, or take it out."""
        path, said = self.monitor.path / "bindings" / "inbound.json", len(self.monitor.output())
        rules = json.loads(path.read_text())
        del rules["expected_behaviors"][1:]
        if incoming is not None:
            criteria = {"type": "delegation", "incoming": incoming}
            rules["expected_behaviors"].append(
                {"behavior_id": "shown", "observable_actions": ["delegation"], "compliance_criteria": criteria}
            )
        rules["version"] = f"1.0.{int(rules['version'].rpartition('.')[2]) + 1}"
        write_binding(path, rules, self.monitor.domain)
        until(lambda: "bindings in force" in self.monitor.output()[said:], what="the reload")

    def takes(self, m: Attacker, sent: Sent) -> dict[str, Any]:
        """The entry of a delegation that is taken."""
        arrived = len(self.agent.requests)
        response = m.send(self.monitor, *sent)
        assert response.status_code == 200, response.text
        assert len(self.agent.requests) == arrived + 1
        entry = self.delegations()[-1]
        assert (entry["agent_id"], entry["action_parameters"]["peer"]) == (AGENT_B, m.id)
        return entry

    def refuses(self, m: Attacker, sent: Sent, reason: str, words: str) -> None:
        """403 with the reason; an entry; evidence of the anomaly; and nothing arrives."""
        arrived, before = len(self.agent.requests), len(self.delegations())
        response = m.send(self.monitor, *sent)
        problem = response.json()["error"]["data"]
        assert (response.status_code, problem["reason"]) == (403, reason), problem
        assert words in problem["detail"]
        assert len(self.agent.requests) == arrived
        [entry] = self.delegations()[before:]
        assert (entry["agent_id"], entry["decision"], entry["reason"]) == (m.id, "deny", reason)
        assert words in entry["action_parameters"]["refused"]
        anomaly = parse_bet(response.headers["behavioral-evidence"])
        assert (anomaly.subject, anomaly.result, anomaly.ext["trigger"]) == (m.id, "fail", "violation")
        assert (anomaly.ext["refused"]["seq"], anomaly.ext["refused"]["reason"]) == (entry["seq"], reason)
        assert anomaly.token in self.monitor.tokens("bets")


def tls(domain: TrustDomain, cert: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """TLS to an ingress listener, with this certificate or none."""
    context = ssl.create_default_context(cafile=str(domain.identity_ca))
    if cert is not None:
        context.load_cert_chain(cert, key)
    return context


def _changed(claims: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**claims, **changes}.items() if value is not None}


def part(value: object) -> str:
    return base64url.encode(json.dumps(value).encode())


def unsigned(claims: Mapping[str, Any], typ: str) -> str:
    """With the algorithm `none`."""
    return f"{part({'alg': 'none', 'typ': typ, 'kid': 'none'})}.{part(claims)}."


def with_mac(claims: Mapping[str, Any], typ: str, signer: Signer, secret: bytes) -> str:
    """HS256 with something public for a secret."""
    head = f"{part({'alg': 'HS256', 'typ': typ, 'kid': signer.kid})}.{part(claims)}"
    return f"{head}.{base64url.encode(hmac.digest(secret, head.encode(), hashlib.sha256))}"
