"""Two monitors, an agent that signs and one that verifies; and a third monitor, which may deliver and is hostile."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
import uuid
from collections.abc import Callable
from typing import Any

import httpx
from end_to_end.attackers import Attacker
from end_to_end.signers import problem_with
from end_to_end.world import Monitor, Server, binding, free_port, target
from mitmproxy import http as http_flow

from lictor.addons.ways import request_digest
from lictor.certs.domain import TrustDomain
from lictor.certs.evidence_keys import EvidenceKeys, evidence_jwk

AGENT_B = "spiffe://test.internal/agent/b"
URN_B = "urn:test:agent:b"
UNREACHED, WRONG = "urn:test:agent:unreached", "urn:test:agent:wrong"


class Agent(Server):
    """Behind monitor B: verifies what is signed, and answers as the message says."""

    def __init__(self) -> None:
        super().__init__(None)
        self.problems: list[str] = []
        self.go_on = threading.Event()

    def take(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        self.requests.append((handler.command, handler.path, handler.headers, body))
        if "signature" in handler.headers:
            self.problems.append(problem_with(handler, body))
        how = json.loads(body)["params"]["message"].get("how", "")
        handler.send_response(200)
        if how == "signed answer":
            handler.send_header("Execution-Context", "of.the.agent")
            handler.send_header("Signature-Input", 'sig=("@status" "execution-context");created=1')
            handler.send_header("Signature", "sig=:c2lnbmF0dXJl:")
        if how == "stream":
            self.stream(handler)
            return
        if how == "until closed":
            handler.end_headers()
            handler.wfile.write(b"all of it")
            handler.close_connection = True
            return
        handler.send_header("Content-Length", "2")
        handler.end_headers()
        handler.wfile.write(b"{}")

    def stream(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for piece in (b"data: 1\n\n", b"data: 2\n\n"):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            assert self.go_on.wait(15)
        handler.wfile.write(b"0\r\nBehavioral-Evidence: of.the.agent\r\nX-Sum: 1\r\n\r\n")


class Pair:
    """Monitor A before an agent that signs, monitor B, with two workers, before one that verifies."""

    def __init__(self, make: Callable[..., Monitor], domain: TrustDomain) -> None:
        self.domain, self.agent = domain, Agent()
        self.evidence_port = free_port()
        inbound = binding(delegation=[URN_B]) | {"subjects": ["spiffe://test.internal/monitor/*"]}
        ingress = f'agent = "{AGENT_B}"\nurn = "{URN_B}"\nupstream = "http://127.0.0.1:{self.agent.port}"'
        self.b = make("b", {"inbound": inbound}, ingress=ingress, workers=2, evidence=self.evidence_port)
        self.url = f"https://127.0.0.1:{self.b.ingress_port}/"
        there = {"agent": AGENT_B, "monitor": monitor_id(self.b), "evidence": self.evidence_url}
        targets = (
            target(URN_B, "agent", f"{self.url}**", **there)
            + target(
                UNREACHED,
                "agent",
                f"{self.url}unreached/**",
                **there | {"evidence": f"https://127.0.0.1:{free_port()}"},
            )
            + target("urn:test:agent:none", "agent", f"{self.url}none/**", agent=AGENT_B, monitor=monitor_id(self.b))
        )
        self.a = make("a", {"main": binding(delegation=[URN_B, UNREACHED, "urn:test:agent:none"])}, targets)

    @property
    def evidence_url(self) -> str:
        return f"https://127.0.0.1:{self.evidence_port}"

    def client(self, http2: bool = False) -> httpx.Client:
        proxy, context = httpx.Proxy(self.a.url, ssl_context=self.a.agent_context()), self.a.target_context()
        if http2:  # httpx offers HTTP/1.1 first
            context.set_alpn_protocols(["h2"])
            context.set_alpn_protocols = lambda offered: None  # type: ignore[method-assign]
        return httpx.Client(proxy=proxy, verify=context, trust_env=False, timeout=60, http2=http2)

    def request(self, how: str = "", path: str = "", **headers: str) -> httpx.Request:
        lines = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.Request("POST", self.url + path, json=message(how), headers={"user-agent": "x", **lines})

    def mark(self) -> tuple[int, int]:
        return len(self.a.entries()), len(self.b.entries())

    def resolve(self, kid: str, iss: str, at: float | None = None) -> Any:
        keys = EvidenceKeys(self.domain.identity_ca.read_bytes())
        for path in self.domain.path.glob("monitors/*/evidence.pem"):
            keys.add_jwk(evidence_jwk(path.read_bytes()))
        return keys.resolve(kid, iss, at)


def message(how: str) -> dict[str, Any]:
    params = {"message": {"messageId": str(uuid.uuid4()), "parts": [], "how": how}}
    return {"jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": params}


def monitor_id(monitor: Monitor) -> str:
    return f"spiffe://test.internal/monitor/{monitor.name}"


def settled(monitor: Monitor, since: int) -> bool:
    """Whether every delegation has its outcome on disk."""
    found = [entry for entry in monitor.entries()[since:] if entry["action_type"] == "delegation"]
    return 2 * sum("outcome_of" in one for one in found) == len(found)


class Hostile:
    """A monitor that may delegate here, with evidence of its own, and what it delivers and sends."""

    def __init__(self, pair: Pair, name: str = "hostile") -> None:
        self.pair, self.attacker = pair, Attacker(pair.domain, name, "spiffe://test.internal/agent/x", AGENT_B)
        self.tokens = self.attacker.tokens(self.attacker.node())

    def deliver(self, request: httpx.Request, context: ssl.SSLContext | None = None, **tokens: Any) -> httpx.Response:
        nodes, bets = self.tokens
        body = {"execution_context": nodes, "behavioral_evidence": bets, "checkpoint": []} | tokens
        with httpx.Client(verify=context or self.attacker.context, trust_env=False, timeout=30) as http:
            return http.put(f"{self.pair.evidence_url}/deliveries/{known_as(request)}", json=body)

    def send(self, request: httpx.Request) -> str:
        """The reason why B refuses it, "" if it lets it in."""
        with httpx.Client(verify=self.attacker.context, trust_env=False, timeout=30) as http:
            response = http.send(request)
        return str(response.json()["error"]["data"]["reason"]) if response.status_code == 403 else ""


def known_as(request: httpx.Request) -> str:
    """What B knows the request by."""
    headers = http_flow.Headers((name.lower(), value) for name, value in request.headers.raw)
    return request_digest(http_flow.Request.make(request.method, str(request.url), request.read(), headers))
