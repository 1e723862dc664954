"""Evidence that cannot go along: of requests that are signed as they are, and about streams, once they have ended."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from end_to_end.apart import Hostile, Pair, message, settled
from end_to_end.attackers import tls
from end_to_end.signers import handed_on, proof, sign
from end_to_end.wire import Wire
from end_to_end.world import Monitor, until

from lictor.certs.domain import TrustDomain
from lictor.cli import cli
from lictor.evidence import bet, ect
from lictor.formats import base64url


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
    assert pair.b.entries_of(since[1]) == []
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


def test_a_stream_has_evidence_about_all_of_it_after_it(pair: Pair) -> None:
    """The caller's monitor takes trailers by itself. Nothing is held up; the agent, which asks for none, gets none."""
    since = pair.mark()
    pair.agent.go_on.clear()
    with pair.client() as http, http.stream("POST", pair.url, json=message("stream")) as response:
        pieces = response.iter_raw()
        assert next(pieces) == b"data: 1\n\n", "passed on while the agent still thinks"
        pair.agent.go_on.set()
        assert b"".join(pieces) == b"data: 2\n\n"
    outcome = pair.a.outcome(since[0])
    assert outcome["last_evidence"] == "trailers"
    covers_the_end(pair, since, outcome)


def test_a_stream_that_ends_with_its_connection(pair: Pair) -> None:
    """It is chunked from B on, so that something can come after it, and each has a connection of its own behind B."""
    for _ in range(2):
        since = pair.mark()
        with pair.client() as http:
            response = http.post(pair.url, json=message("until closed"))
        assert (response.status_code, response.content) == (200, b"all of it")
        outcome = pair.a.outcome(since[0])
        assert outcome["last_evidence"] == "trailers"
        covers_the_end(pair, since, outcome)


def test_over_http2_it_is_the_same(pair: Pair) -> None:
    """The agent's side; between monitors it is HTTP/1.1."""
    since = pair.mark()
    with pair.client(http2=True) as http:
        answers = [http.send(sign(pair.request(how, execution_context=handed_on()))) for how in ("", "stream")]
        assert [(answer.http_version, answer.status_code) for answer in answers] == [("HTTP/2", 200)] * 2
        assert pair.agent.problems == ["", ""]
        assert http.post(pair.url, json=message("stream"), headers={"te": "trailers"}).status_code == 200
    until(lambda: settled(pair.a, since[0]))
    found = [e["outcome"].get("last_evidence") for e in pair.a.entries_of(since[0]) if "outcome_of" in e]
    assert found == [None, "fetched", "trailers"]


def covers_the_end(pair: Pair, since: tuple[int, int], outcome: dict[str, Any]) -> None:
    """The last BET that A has recorded is in B's log, and covers the outcome of what came in there."""
    ended = pair.b.wait_for(lambda e: e.get("outcome_of", -1) >= since[1], since[1])
    found = {digest(token): bet.verify(token, pair.resolve) for token in pair.b.tokens("bets")}
    last = found[outcome["peer_bet"][-1]]
    assert last.start <= ended["timestamp"] < last.end
    assert last.result == "pass"
    assert outcome["response_digest"] == ended["outcome"]["response_digest"]


def digest(token: str) -> str:
    return base64url.encode(hashlib.sha256(token.encode()).digest())


@pytest.mark.parametrize("asked", [True, False], ids=["TE: trailers", "no TE"])
def test_agents_that_take_trailers_get_them(pair: Pair, asked: bool) -> None:
    """And of what the agent behind says in its trailers only what is no evidence: that is its monitor's to say."""
    body = json.dumps(message("stream")).encode()
    te = ["TE: trailers", "Connection: TE"] if asked else []
    with Wire(pair.a).tunnel(f"127.0.0.1:{pair.b.ingress_port}") as wire:
        lines = ["Content-Type: application/json", f"Content-Length: {len(body)}", *te, "Connection: close"]
        wire.send("\r\n".join(["POST / HTTP/1.1", f"Host: {wire.authority}", *lines, "", ""]).encode() + body)
        status, _, head = wire.read_head()
        rest = wire.read_rest()
    assert status == 200
    after = rest.partition(b"0\r\n")[2].decode()
    trailers = [tuple(line.split(": ")) for line in after.splitlines() if line]
    assert [value for name, value in trailers if name == "x-sum"] == ["1"]
    nodes = [value for name, value in trailers if name.lower() == "execution-context"]
    bets = [value for name, value in trailers if name.lower() == "behavioral-evidence"]
    if not asked:
        assert nodes == bets == []
        return
    assert nodes == [head["execution-context"]]
    [last] = bets
    assert bet.verify(last, pair.resolve).parents == (ect.verify(nodes[0], pair.resolve).jti,)
    assert last != head["behavioral-evidence"]


def test_a_signed_request_for_a_stream(pair: Pair) -> None:
    """Nothing may be added to it, not even that trailers are taken: what there is to say at the end is fetched."""
    since = pair.mark()
    with pair.client() as http:
        response = http.send(sign(pair.request("stream", execution_context=handed_on())))
    assert (response.status_code, pair.agent.problems) == (200, [""])
    outcome = pair.a.outcome(since[0])
    assert outcome["last_evidence"] == "fetched"
    assert len(outcome["peer_bet"]) == 2
    covers_the_end(pair, since, outcome)


def test_a_signed_answer_arrives_as_it_was_sent(pair: Pair) -> None:
    since = pair.mark()
    with pair.client() as http:
        response = http.send(pair.request("signed answer"))
    assert response.status_code == 200
    assert response.headers.get_list("execution-context") == ["of.the.agent"]
    assert "behavioral-evidence" not in response.headers
    outcome = pair.a.outcome(since[0])
    assert outcome["last_evidence"] == "fetched"
    covers_the_end(pair, since, outcome)


def test_both_logs_agree(pair: Pair) -> None:
    since = pair.mark()
    with pair.client() as http:
        for request in (
            sign(pair.request(execution_context=handed_on())),
            sign(pair.request("stream", execution_context=handed_on())),
            pair.request("stream"),
            pair.request("signed answer"),
        ):
            assert http.send(request).status_code == 200
    sent = [e["node"] for e in pair.a.entries()[since[0] :] if e.get("action_type") == "delegation"]
    ends = {"a": pair.a, "b": pair.b}
    for name, monitor in ends.items():
        until(lambda m=monitor, n=since[name == "b"]: settled(m, n), what=f"outcomes of {name}")
    ledgers = [str(monitor.path / "data" / "ledger.sqlite") for monitor in ends.values()]
    command = ["chain", "verify", *ledgers, "--trust", str(pair.domain.identity_ca), "--json"]
    shown = json.loads(CliRunner().invoke(cli, command).output)
    assert [log["verdict"] for log in shown["logs"]] == ["intact", "intact"]
    edges = {edge["node"]: edge["state"] for edge in shown["chain"]["edges"]}
    assert {edges[node] for node in sent} == {"agreed"}
    assert [p for p in shown["chain"]["problems"] if p["jti"] in sent] == []


@pytest.fixture
def hostile(pair: Pair) -> Hostile:
    return Hostile(pair)


def signed(pair: Pair) -> httpx.Request:
    return sign(pair.request(execution_context=handed_on()))


def test_what_is_delivered_is_admitted_as_if_it_had_come_along(pair: Pair, hostile: Hostile) -> None:
    """The way that the attacks below take is good for honest evidence."""
    request = signed(pair)
    assert hostile.deliver(request).status_code == 204
    assert hostile.send(request) == ""


def test_attack_delivered_once_taken_twice(pair: Pair, hostile: Hostile) -> None:
    request = signed(pair)
    hostile.deliver(request)
    assert [hostile.send(request), hostile.send(request)] == ["", "ect_missing"]


def test_attack_node_delivered_again(pair: Pair, hostile: Hostile) -> None:
    request, other = signed(pair), signed(pair)
    hostile.deliver(request)
    assert hostile.send(request) == ""
    assert hostile.deliver(other).status_code == 204
    assert hostile.send(other) == "ect_replayed"


def test_attack_other_evidence_for_the_same_request(pair: Pair, hostile: Hostile) -> None:
    request = signed(pair)
    assert hostile.deliver(request).status_code == 204
    nodes, bets = hostile.attacker.tokens(hostile.attacker.node())
    assert hostile.deliver(request, execution_context=nodes, behavioral_evidence=bets).status_code == 409
    assert hostile.deliver(request).status_code == 204, "the same once more, as after a broken connection"


@pytest.mark.parametrize("what", ["body", "path", "signature", "line"])
def test_attack_evidence_of_another_request(pair: Pair, hostile: Hostile, what: str) -> None:
    delivered = signed(pair)
    hostile.deliver(delivered)
    headers = [(name.decode(), value.decode()) for name, value in delivered.headers.raw]
    if what in ("signature", "line"):
        field = {"signature": "signature", "line": "execution-context"}[what]
        fresh = {"signature": signed(pair).headers["signature"], "line": handed_on()}[what]
        headers = [(name, fresh if name.lower() == field else value) for name, value in headers]
    url = pair.url + ("other" if what == "path" else "")
    body = delivered.read() + (b" " if what == "body" else b"")
    headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
    assert hostile.send(httpx.Request("POST", url, content=body, headers=headers)) == "ect_missing"


def test_attack_delivered_for_anothers_request(pair: Pair, hostile: Hostile) -> None:
    """What one monitor delivers is nothing to the request of another, and is not in its way."""
    other, request = Hostile(pair, "hostile-too"), signed(pair)
    hostile.deliver(request)
    assert other.send(request) == "ect_missing"
    assert other.deliver(request).status_code == 204
    assert other.send(request) == ""


def test_attack_evidence_of_anothers_node(pair: Pair, hostile: Hostile) -> None:
    """Delivered lines are held to the peer of the connection that the request comes on, as those that come along."""
    other, request = Hostile(pair, "hostile-too"), signed(pair)
    nodes, bets = other.tokens
    hostile.deliver(request, execution_context=nodes, behavioral_evidence=bets)
    assert hostile.send(request) == "ect_missing"


def test_attack_an_agent_delivers(pair: Pair, hostile: Hostile) -> None:
    agent = pair.domain.path / "agents" / "default"
    context = tls(pair.domain, agent / "cert.pem", agent / "key.pem")
    assert hostile.deliver(signed(pair), context).status_code == 403


def test_attack_evidence_about_anothers_delegation_is_fetched(pair: Pair, hostile: Hostile) -> None:
    since = pair.mark()
    with pair.client() as http:
        assert http.send(pair.request("signed answer")).status_code == 200
    outcome = pair.a.wait_for(lambda e: e.get("outcome", {}).get("last_evidence") == "fetched", since[0])
    with httpx.Client(verify=hostile.attacker.context, trust_env=False, timeout=30) as http:
        assert http.get(f"{pair.evidence_url}/delegations/{outcome['node']}").status_code == 404


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"execution_context":["a"]}', b"x" * 300_000])
def test_attack_deliveries_that_are_none(pair: Pair, hostile: Hostile, body: bytes) -> None:
    with httpx.Client(verify=hostile.attacker.context, trust_env=False, timeout=30) as http:
        assert http.put(f"{pair.evidence_url}/deliveries/x", content=body).status_code in (400, 413)
