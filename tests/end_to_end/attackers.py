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
from end_to_end.world import Monitor

from lictor.certs.domain import TrustDomain
from lictor.certs.evidence_keys import evidence_jwk
from lictor.evidence import bet, ect
from lictor.evidence.claims import new_id
from lictor.evidence.ledger import Ledger
from lictor.evidence.sqlite_store import SqliteStore
from lictor.evidence.store import NodeRow
from lictor.formats import base64url, jws
from lictor.formats.jws import Signer
from lictor.formats.keys import KeySigner

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
