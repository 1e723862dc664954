"""Evidence that cannot go along: of requests that are signed as they are, and about streams, once they have ended."""

from __future__ import annotations

import http.server
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from end_to_end.signers import handed_on, problem_with, proof, sign
from end_to_end.world import Monitor, Server, binding, free_port, target

from lictor.certs.domain import TrustDomain
from lictor.certs.evidence_keys import EvidenceKeys, evidence_jwk
from lictor.evidence import ect

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

    def client(self, **more: Any) -> httpx.Client:
        proxy = httpx.Proxy(self.a.url, ssl_context=self.a.agent_context())
        return httpx.Client(proxy=proxy, verify=self.a.target_context(), trust_env=False, timeout=60, **more)

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


@pytest.fixture(scope="module")
def pair(share_monitor: Callable[..., Monitor], domain: TrustDomain) -> Iterator[Pair]:
    made = Pair(share_monitor, domain)
    yield made
    made.agent.go_on.set()
    made.agent.close()


@pytest.fixture(autouse=True)
def fresh(pair: Pair) -> None:
    pair.agent.requests.clear()
    pair.agent.problems.clear()
    pair.agent.go_on.set()


def test_a_request_that_signs_its_context_arrives_as_it_was_sent(pair: Pair) -> None:
    since = pair.mark()
    with pair.client() as http:
        line = handed_on()
        request = sign(pair.request(execution_context=line))
        response = http.send(request)
    assert response.status_code == 200, response.text
    assert pair.agent.problems == [""]
    headers = pair.agent.requests[0][2]
    assert headers.get_all("Execution-Context") == [line]
    assert "Behavioral-Evidence" not in headers
    sent = pair.a.wait_for(lambda e: e.get("action_type") == "delegation", since[0])
    came = pair.b.wait_for(lambda e: e["action_parameters"].get("direction") == "inbound", since[1])
    assert came["action_parameters"]["parents"] == [sent["node"]]
    assert came["action_parameters"]["evidence_by"] == sent["action_parameters"]["evidence_by"] == "delivery"
    assert came["action_parameters"]["foreign_lines"] == 1
    callee = ect.verify(response.headers["execution-context"], pair.resolve)
    assert callee.parents == (sent["node"],)


def test_a_signature_of_other_fields_is_no_obstacle(pair: Pair) -> None:
    with pair.client() as http:
        response = http.send(sign(pair.request(), "@method", "@authority", "@request-target", "content-type"))
    assert response.status_code == 200, response.text
    assert pair.agent.problems == [""], "lines are added, and the signature still holds"
    assert len(pair.agent.requests[0][2].get_all("Execution-Context")) == 2
    assert "Behavioral-Evidence" in pair.agent.requests[0][2]


def test_a_workload_proof_that_binds_its_context(pair: Pair) -> None:
    line = handed_on()
    token = proof(execution_context=line)
    with pair.client() as http:
        response = http.send(
            pair.request(execution_context=line, workload_proof_token=token, workload_identity_token="wit")
        )
    assert response.status_code == 200, response.text
    assert pair.agent.requests[0][2].get_all("Execution-Context") == [line]
    assert pair.agent.requests[0][2]["Workload-Proof-Token"] == token


def test_many_at_once_each_get_their_own_evidence(pair: Pair) -> None:
    """Two workers, connections to any of them; what is delivered is found by either."""
    since = pair.mark()
    wrong: list[str] = []

    def send() -> None:
        with pair.client() as http:
            for _ in range(3):
                answer = http.send(sign(pair.request(execution_context=handed_on())))
                if answer.status_code != 200:
                    wrong.append(answer.text)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert pair.agent.problems == [""] * 12
    came = [e for e in pair.b.entries()[since[1] :] if e["action_parameters"].get("direction") == "inbound"]
    parents = [parent for entry in came for parent in entry["action_parameters"]["parents"]]
    assert len(parents) == len(set(parents)) == 12


def refused(pair: Pair, request: httpx.Request, reason: str) -> dict[str, Any]:
    """The entry of a request that A refuses for this reason; nothing of it has reached B."""
    since = pair.mark()
    with pair.client() as http:
        response = http.send(request)
    assert response.status_code == 403, response.text
    assert response.json()["error"]["data"]["reason"] == reason
    assert pair.agent.requests == []
    assert len(pair.b.entries()) == since[1]
    entry = pair.a.entries()[response.json()["error"]["data"]["entry"]]
    assert entry["action_type"] == "delegation"
    return entry


def test_a_monitor_that_cannot_be_reached_gets_no_work(pair: Pair) -> None:
    entry = refused(pair, sign(pair.request(path="unreached/x", execution_context="x")), "evidence_not_delivered")
    assert entry["decision"] == "allow", "it was to go out"
    outcome = pair.a.wait_for(lambda e: e.get("outcome_of") == entry["seq"])["outcome"]
    assert (outcome["status"], outcome["complete"]) == (0, False)
    assert outcome["error"].startswith("evidence_not_delivered: its monitor")


def test_a_target_that_does_not_say_where_evidence_goes(pair: Pair) -> None:
    """Catalog without `evidence`: see `pair`."""
    entry = refused(pair, sign(pair.request(path="none/x", execution_context="x")), "evidence_not_deliverable")
    assert entry["decision"] == "deny"


@pytest.mark.parametrize(
    ("what", "headers"),
    [
        ("no list", {"signature_input": 'sig="execution-context"', "signature": "sig=:YQ==:"}),
        ("no dictionary", {"signature_input": "sig=(", "signature": "sig=:YQ==:"}),
        ("no signature", {"signature_input": 'sig=("execution-context")'}),
        ("no input", {"signature": "sig=:YQ==:"}),
        ("another label", {"signature_input": 'sig=("execution-context")', "signature": "gis=:YQ==:"}),
        ("label twice", {"signature_input": 'sig=("@method"), sig=("execution-context")', "signature": "sig=:YQ==:"}),
        ("capitals", {"signature_input": 'sig=("Execution-Context")', "signature": "sig=:YQ==:"}),
        ("covers what is not there", {"signature_input": 'sig=("execution-context")', "signature": "sig=:YQ==:"}),
        ("proof that is none", {"workload_proof_token": "a.b.c"}),
    ],
)
def test_who_claims_to_cover_is_not_let_off(pair: Pair, what: str, headers: dict[str, str]) -> None:
    """A signature that may be read as covering or not covering is refused, so that nobody dodges evidence by it."""
    assert refused(pair, pair.request(**headers), "signature_doubtful")["decision"] == "deny"
