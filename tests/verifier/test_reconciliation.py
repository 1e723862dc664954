"""The two ends of a delegation agree, or it is named what they differ in and what is not there."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lictor.evidence.bet import Bet
from lictor.evidence.ect import Ect
from lictor.formats import base64url
from lictor.formats.canonical import canonical
from lictor.verifier.chain import Chain, Node
from lictor.verifier.reconciliation import Edge, reconcile

TD = "chain.test"
A, B = f"spiffe://{TD}/agent/a", f"spiffe://{TD}/agent/b"
ONE, TWO = f"{TD}/monitor/one", f"{TD}/monitor/two"
OUTCOME = {
    "status": 200,
    "complete": True,
    "request_bytes": 10,
    "request_digest": "sha-256:q",
    "response_bytes": 20,
    "response_digest": "sha-256:r",
}
NODE, CHILD = "node-a", "node-b"
SHOWN, BACK = "bet-a", "bet-b"


def node(jti: str, agent: str, audience: tuple[str, ...], token: str) -> Node:
    return Node(Ect("iss", agent, audience, jti, "w", "agent_execution", (), 0, 600, {}, token))


def chain() -> Chain:
    found = Chain()
    found.nodes[("w", NODE)] = node(NODE, A, (B,), "token-a")
    found.nodes[("w", CHILD)] = node(CHILD, B, (), "token-b")
    for jti, agent in ((SHOWN, A), (BACK, B)):
        claims = ("iss", agent, (), jti, 0, 600, "w", (NODE,), "urn:p", "pass", "")
        found.bets[jti] = Bet(*claims, 0.0, 1.0, (), {}, jti)
    return found


def digest_of(token: str = "token-b") -> list[str]:
    return [base64url.encode(hashlib.sha256(token.encode()).digest())]


def outgoing(seq: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "seq": seq,
        "timestamp": 1000.0,
        "agent_id": A,
        "action_type": "delegation",
        "action_parameters": {"method": "POST"},
        "decision": "allow",
        "wid": "w",
        "node": NODE,
    } | changes


def incoming(seq: int = 0, parents: tuple[str, ...] = (NODE,), caller: str = A, **changes: Any) -> dict[str, Any]:
    told = {"direction": "inbound", "peer": f"spiffe://{ONE}", "caller": caller, "evidence": [{"jti": SHOWN}]}
    parameters = {**told, "parents": list(parents)}
    entry = outgoing(seq, agent_id=B, node=CHILD, timestamp=1000.1, action_parameters=parameters)
    return entry | changes


def ended(of: dict[str, Any], **changes: Any) -> dict[str, Any]:
    outcome = OUTCOME | changes
    return {**of, "seq": of["seq"] + 1, "timestamp": 1001.0, "outcome_of": of["seq"], "outcome": outcome}


CALLER = [outgoing(), ended(outgoing(), peer_ect=digest_of(), peer_bet=digest_of(BACK))]
CALLEE = [incoming(), ended(incoming())]


class Files:
    """Evidence files of two logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, origin: str, entries: list[dict[str, Any]], erased: int = 0) -> Path:
        leaf = "A" * 43
        start = {"origin": origin, "checkpoint": "note", "first_seq": 0, "count": len(entries) + erased}
        lines = [canonical({"lictor": "evidence/1", **start})]
        lines += [b'{"erased":{"leaf":"%s","seq":%d}}' % (leaf.encode(), seq) for seq in range(erased)]
        lines += [b'{"entry":%s,"leaf":"%s"}' % (canonical(entry), leaf.encode()) for entry in entries]
        lines.append(canonical({"end": {"count": start["count"], "checkpoint": "note"}}))
        path = self.folder / f"{origin.rpartition('/')[2]}.jsonl"
        path.write_bytes(b"\n".join(lines) + b"\n")
        return path


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_both_ends_agree(files: Files) -> None:
    paths = [files.write(ONE, CALLER), files.write(TWO, CALLEE)]
    assert reconcile(paths, chain()) == ([Edge("agreed", "w", NODE, A, B, CHILD)], [])
    assert reconcile(reversed(paths), chain())[1] == []


DIFFERENT = {
    "status": (CALLER, [incoming(), ended(incoming(), status=500)], "status: 200 and 500"),
    "request": (CALLER, [incoming(), ended(incoming(), request_digest="sha-256:x")], "request_digest"),
    "response": (CALLER, [incoming(), ended(incoming(), response_digest="sha-256:x")], "response_digest"),
    "size": (CALLER, [incoming(), ended(incoming(), response_bytes=21)], "response_bytes: 20 and 21"),
    "workflow": (CALLER, [incoming(wid="v"), ended(incoming(wid="v"))], "the workflow: w and v"),
    "agent": (CALLER, [incoming(caller=B), ended(incoming(caller=B))], "who delegates"),
    "taken before it was sent": (CALLER, [incoming(timestamp=900.0)], "time by more than the skew"),
    "taken after it had ended": (CALLER, [incoming(timestamp=1100.0)], "time by more than the skew"),
    "node that came back": (
        [outgoing(), ended(outgoing(), peer_ect=digest_of("other"))],
        CALLEE,
        "the caller did not get node-b",
    ),
    "no node came back": ([outgoing(), ended(outgoing())], CALLEE, "the caller did not get node-b"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_the_ends_differ(files: Files, name: str) -> None:
    caller, callee, what = DIFFERENT[name]
    edges, problems = reconcile([files.write(ONE, caller), files.write(TWO, callee)], chain())
    assert [edge.state for edge in edges] == ["contradicted"]
    assert {problem.kind for problem in problems} == {"bad"}
    assert what in " ".join(problem.what for problem in problems)


@pytest.mark.parametrize("side", ["caller", "callee"])
def test_what_broke_off_is_not_said_to_agree(files: Files, side: str) -> None:
    unknown = {"status": 0, "complete": False, "error": "unknown: the monitor ended"}
    caller = [outgoing(), ended(outgoing(), **unknown)] if side == "caller" else CALLER
    callee = [incoming(), ended(incoming(), **unknown)] if side == "callee" else CALLEE
    edges, problems = reconcile([files.write(ONE, caller), files.write(TWO, callee)], chain())
    assert ([edge.state for edge in edges], problems) == (["broken_off"], [])


def test_brought_by_another_monitor(files: Files) -> None:
    _, problems = reconcile([files.write(f"{TD}/monitor/three", CALLER), files.write(TWO, CALLEE)], chain())
    assert "the monitor that brought it" in problems[0].what


def test_taken_twice(files: Files) -> None:
    again = [*CALLEE, incoming(2), ended(incoming(2))]
    _, problems = reconcile([files.write(ONE, CALLER), files.write(TWO, again)], chain())
    assert "was taken more than once" in problems[0].what


@pytest.mark.parametrize(
    ("caller", "callee", "state", "kind", "what"),
    [
        (CALLER, None, "one_sided", "missing", "came in is in none of the files"),
        (None, CALLEE, "one_sided", "missing", "went out is in none of the files"),
        ([], CALLEE, "one_sided", "bad", "knows nothing of the delegation"),
        (CALLER, [incoming(parents=("other",), decision="deny")], "one_sided", "bad", f"the log of {B} knows nothing"),
        ([outgoing(), ended(outgoing(), status=403)], None, "refused", None, ""),
        ([outgoing(), ended(outgoing(), status=0, complete=False)], None, "refused", None, ""),
        ([outgoing()], None, "open", None, ""),
        (CALLER, [incoming()], "open", None, ""),
        ([outgoing(decision="deny")], None, None, None, ""),
    ],
)
def test_one_end_only(files: Files, caller: Any, callee: Any, state: Any, kind: Any, what: str) -> None:
    paths = [files.write(o, entries) for o, entries in ((ONE, caller), (TWO, callee)) if entries is not None]
    edges, problems = reconcile(paths, chain())
    assert [edge.state for edge in edges] == ([state] if state else [])
    assert [problem.kind for problem in problems] == ([kind] if kind else [])
    assert what in " ".join(problem.what for problem in problems)


RESTS = [incoming(), ended(incoming())]
RESTS[0]["action_parameters"] = {**RESTS[0]["action_parameters"], "evidence": [{"jti": SHOWN, "log_size": 2}]}
LATER = {"agent_id": A, "action_type": "http_request", "timestamp": 1031.1}
UNSHOWN = [outgoing(), ended(outgoing(), peer_ect=digest_of(), peer_bet=[])]
OTHER = incoming(parents=("other",), decision="deny")


@pytest.mark.parametrize(
    ("caller", "callee", "kind"),
    [
        pytest.param([LATER | {"timestamp": 1030.0}], RESTS, "missing", id="the caller's log was read before"),
        pytest.param([LATER | {"timestamp": 900.0}] * 2, RESTS, "bad", id="it is as long as the evidence says"),
        pytest.param([LATER], RESTS, "bad", id="it goes on for longer than clocks differ"),
        pytest.param(UNSHOWN, [OTHER], "missing", id="the callee's log was read before"),
        pytest.param(UNSHOWN, [OTHER, LATER | {"timestamp": 1031.0}], "missing", id="no longer than clocks differ"),
        pytest.param(UNSHOWN, [OTHER, LATER | {"timestamp": 1031.2}], "bad", id="the callee's log goes on"),
        pytest.param(CALLER, [OTHER], "bad", id="the callee's evidence is there, the entry is not"),
    ],
)
def test_what_was_read_too_early_accuses_nobody(files: Files, caller: Any, callee: Any, kind: str) -> None:
    _, problems = reconcile([files.write(ONE, caller), files.write(TWO, callee)], chain())
    assert [problem.kind for problem in problems] == [kind]
    assert ("read it again" in problems[0].what) is (kind == "missing")


@pytest.mark.parametrize(
    ("gone", "what"),
    [
        (NODE, f"the node {NODE} of the delegation in entry 0 of {ONE} is"),
        (CHILD, f"the node {CHILD} of the delegation in entry 0 of {TWO} is"),
        (SHOWN, f"the BET {SHOWN} that came with the delegation {NODE} is"),
        (BACK, f"the evidence that came back from the delegation {NODE} is"),
    ],
)
def test_a_token_that_is_on_record_and_not_there(files: Files, gone: str, what: str) -> None:
    pruned = chain()
    pruned.nodes.pop(("w", gone), None)
    pruned.bets.pop(gone, None)
    _, problems = reconcile([files.write(ONE, CALLER), files.write(TWO, CALLEE)], pruned)
    assert [(problem.kind, problem.what) for problem in problems] == [("missing", f"{what} in none of the files")]


def test_a_line_that_the_agent_added_to_its_answer_is_not_missed(files: Files) -> None:
    came_back = digest_of(BACK) + digest_of("added")
    caller = [outgoing(), ended(outgoing(), peer_ect=digest_of() + digest_of("added"), peer_bet=came_back)]
    assert reconcile([files.write(ONE, caller), files.write(TWO, CALLEE)], chain())[1] == []


def test_a_node_that_took_the_place_of_the_first_came_back(files: Files) -> None:
    found = chain()
    found.nodes[("w", CHILD)].children.append(node("node-c", B, (), "token-c"))
    caller = [outgoing(), ended(outgoing(), peer_ect=digest_of("token-c"), peer_bet=digest_of(BACK))]
    assert reconcile([files.write(ONE, caller), files.write(TWO, CALLEE)], found)[1] == []


@pytest.mark.parametrize(("until", "kinds"), [(1001.0, []), (1000.9, ["bad"])])
def test_what_came_after_a_stream_covers_its_end(files: Files, until: float, kinds: list[str]) -> None:
    found = chain()
    found.bets["last"] = replace(found.bets[BACK], jti="last", end=until, token="last")
    came = digest_of(BACK) + digest_of("last")
    caller = [outgoing(), ended(outgoing(), peer_ect=digest_of(), peer_bet=came, last_evidence="trailers")]
    _, problems = reconcile([files.write(ONE, caller), files.write(TWO, CALLEE)], found)
    assert [problem.kind for problem in problems] == kinds


def test_what_was_erased_is_missing_and_no_lie(files: Files) -> None:
    _, problems = reconcile([files.write(ONE, [], erased=2), files.write(TWO, CALLEE)], chain())
    assert [problem.kind for problem in problems] == ["missing"]


@pytest.mark.parametrize("lost", [slice(-1, None), slice(1, 2), slice(1, -1), slice(1, None)])
@pytest.mark.parametrize("side", [ONE, TWO])
def test_what_a_file_lost_is_missing_and_no_lie(files: Files, side: str, lost: slice) -> None:
    """Cut off at the end, or with a gap: what verifying the log itself reports."""
    others = [outgoing(2, node="other"), outgoing(3, node="another")]
    unrelated = [incoming(parents=("other",), decision="deny"), *others]
    paths = {ONE: files.write(ONE, CALLER), TWO: files.write(TWO, CALLEE)}
    spoilt = files.write(side, others if side == ONE else unrelated)
    whole = reconcile(paths.values(), chain())[1]
    assert "bad" in [problem.kind for problem in whole]
    lines = spoilt.read_bytes().splitlines(keepends=True)
    del lines[lost]
    spoilt.write_bytes(b"".join(lines))
    problems = reconcile(paths.values(), chain())[1]
    assert {problem.kind for problem in problems} == {"missing"}


@pytest.mark.parametrize(
    "entry", [[], {"action_type": "delegation"}, incoming(action_parameters={"direction": "inbound"})]
)
def test_malformed_entries_end_the_reading_of_their_file(files: Files, entry: Any) -> None:
    path = files.write(TWO, CALLEE)
    path.write_bytes(
        path.read_bytes().replace(b'{"entry":{', b'{"entry":%s,"leaf":"x"}\n{"entry":{' % canonical(entry), 1)
    )
    edges, _ = reconcile([files.write(ONE, CALLER), path], chain())
    assert [edge.state for edge in edges] == ["one_sided"]
