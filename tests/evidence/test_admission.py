"""Delegations that come in: what is taken up and what is refused, each refusal with its reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lictor.evidence import admission, bet, ect
from lictor.evidence.admission import ReplayMemory, examine
from lictor.evidence.checkpoint import CheckpointSigner
from lictor.evidence.claims import KeyResolver, new_id
from lictor.evidence.entry import InboundDraft
from lictor.evidence.merkle import consistency_proof, leaf_hash, root
from lictor.evidence.store import NodeRow
from lictor.evidence.witnessed import WitnessedLine
from lictor.formats import base64url, jws
from lictor.formats.canonical import canonical
from lictor.formats.keys import KeySigner

PEER, AGENT_A, AGENT_B = (
    "spiffe://example.test/monitor/one",
    "spiffe://example.test/agent/a",
    "spiffe://example.test/agent/b",
)
ECHOED_TO = "spiffe://example.test/monitor/three"
ACCEPTED = {AGENT_B, "spiffe://example.test/monitor/two"}
NOW = 1_790_000_000.5
WID = new_id()


@pytest.fixture
def node(signer: KeySigner) -> ect.Minted:
    return mint(signer)


def mint(signer: KeySigner, **changes: Any) -> ect.Minted:
    given = {"issuer": PEER, "subject": AGENT_A, "audience": (AGENT_B,), "wid": WID, "parents": (), "now": NOW}
    return ect.mint(signer, **{**given, **changes})


def evidence(signer: KeySigner, node: ect.Minted, **changes: Any) -> str:
    claims = {
        "iss": PEER,
        "sub": AGENT_A,
        "aud": [AGENT_B],
        "iat": int(NOW),
        "exp": int(NOW) + 3600,
        "jti": new_id(),
        "wid": node.wid,
        "exec_act": "behavioral_verification",
        "pred": [node.jti],
        "bhv_policy": "urn:p",
        "bhv_result": "pass",
        "bhv_evidence": bet.EMPTY_EVIDENCE,
        "bhv_window": {"start": NOW - 1, "end": NOW},
    }
    return bet.issue({**claims, **changes}, signer)


@pytest.fixture
def ask(keys: KeyResolver) -> Callable[..., InboundDraft]:
    def ask(lines: list[str], bets: list[str], **changes: Any) -> InboundDraft:
        given: dict[str, Any] = {
            "agent_id": AGENT_B,
            "peer_id": PEER,
            "action_target": AGENT_B,
            "action_parameters": {"method": "POST"},
            "traceparent": None,
            "resolve": keys,
            "accepted": ACCEPTED,
            "now": NOW,
        }
        return examine(execution_context=lines, behavioral_evidence=bets, **{**given, **changes})

    return ask


Ask = Callable[..., InboundDraft]


def test_a_good_one(ask: Ask, signer: KeySigner, node: ect.Minted) -> None:
    token = evidence(signer, node)
    draft = ask([node.token], [token])
    assert (draft.decision, draft.reason, draft.detail, draft.wid) == ("allow", "allowed", "", WID)
    assert [(p["jti"], p["agent_id"], p["issuer"], p["token"]) for p in draft.parents] == [
        (node.jti, AGENT_A, PEER, node.token)
    ]
    assert [(e["policy"], e["result"]) for e in draft.evidence] == [("urn:p", "pass")]
    assert draft.action_parameters == {"method": "POST"}


LOGGED = {"log_origin": "", "first_seq": 0, "count": 1, "checkpoint_size": 9, "checkpoint_root": bet.EMPTY_EVIDENCE}


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({}, 3),
        ({"log_origin": "elsewhere.test/monitor"}, 2),
        ({"checkpoint_root": "root"}, 2),
        ({"checkpoint_root": None}, 2),
        ({"count": None}, 2),
    ],
)
def test_the_level_of_evidence(
    ask: Ask, signer: KeySigner, node: ect.Minted, changes: dict[str, Any], level: int
) -> None:
    said = {**LOGGED, "log_origin": PEER.removeprefix("spiffe://"), **changes}
    ext = {name: value for name, value in said.items() if value is not None}
    draft = ask([node.token], [evidence(signer, node, ext=ext)])
    assert [(one["level"], one.get("log_size")) for one in draft.evidence] == [(level, 9 if level == 3 else None)]


def test_two_parents_in_one_combined_line(ask: Ask, signer: KeySigner, node: ect.Minted) -> None:
    other = mint(signer)
    draft = ask([f"{node.token}, {other.token}"], [evidence(signer, node), evidence(signer, other)])
    assert [parent["jti"] for parent in draft.parents] == [node.jti, other.jti]


def test_lines_of_other_issuers_are_counted_not_relied_on(ask: Ask, signer: KeySigner, node: ect.Minted) -> None:
    foreign = mint(signer, issuer="spiffe://example.test/monitor/three", audience=("spiffe://elsewhere/x",))
    draft = ask([foreign.token, node.token], [evidence(signer, node)])
    assert (draft.decision, len(draft.parents)) == ("allow", 1)
    assert draft.action_parameters["foreign_lines"] == 1


@pytest.mark.parametrize(
    "earlier",
    [
        pytest.param({"subject": AGENT_A, "audience": (ECHOED_TO,)}, id="made out to who asked before"),
        pytest.param({"audience": ("spiffe://example.test/monitor/two",)}, id="made out to us as who asked before"),
        pytest.param({"now": NOW - 2000}, id="of work that came long ago"),
        pytest.param({"wid": new_id()}, id="of another workflow"),
    ],
)
def test_nodes_of_earlier_work_are_counted_not_relied_on(
    ask: Ask, signer: KeySigner, node: ect.Minted, earlier: dict[str, Any]
) -> None:
    """An agent hands on all lines that it got; only what the peer gives evidence of is what the work comes from."""
    draft = ask([mint(signer, **earlier).token, node.token], [evidence(signer, node)])
    assert (draft.decision, [parent["jti"] for parent in draft.parents]) == ("allow", [node.jti])
    assert draft.action_parameters["foreign_lines"] == 1


@pytest.mark.parametrize("jti", [[], {}, 1, None])
def test_a_node_whose_id_is_no_text(ask: Ask, signer: KeySigner, node: ect.Minted, jti: Any) -> None:
    claims = {**jws.parse_compact(node.token, typ=ect.ACCEPTED_TYP).claims(), "jti": jti}
    bad = jws.sign_compact({"typ": ect.TYP}, canonical(claims), signer)
    assert ask([bad], [evidence(signer, node)]).reason == "ect_invalid"
    assert ask([bad, node.token], [evidence(signer, node)]).decision == "allow"


@pytest.mark.parametrize(
    ("stated", "depth"),
    [([0], 1), ([2], 3), ([2, 5], 6), ([2, None], None), ([None], None), (["1"], None), ([True], None), ([-1], None),
     ([1.5], None), ([10_000], None)],
)  # fmt: skip
def test_the_depth_is_that_of_the_deepest_parent(
    ask: Ask, signer: KeySigner, stated: list[Any], depth: int | None
) -> None:
    nodes = [mint(signer, ext=None if one is None else {"depth": one}) for one in stated]
    draft = ask([node.token for node in nodes], [evidence(signer, node) for node in nodes])
    assert (draft.decision, draft.depth) == ("allow", depth)


SAFE = {"perf_profile": "urn:safety", "perf_score": 0.75}


@pytest.mark.parametrize(
    ("stated", "scores"),
    [
        ([SAFE], {"urn:safety": 0.75}),
        ([SAFE, {**SAFE, "perf_score": 0}], {"urn:safety": 0.0}),
        ([SAFE, {}], {}),
        ([SAFE, {**SAFE, "perf_profile": "urn:other"}], {}),
        ([{**SAFE, "perf_score": "1"}], {}),
        ([{**SAFE, "perf_score": True}], {}),
        ([{**SAFE, "perf_profile": ["urn:safety"]}], {}),
        ([{**SAFE, "perf_profile": "a b"}], {}),
        ([{**SAFE, "perf_profile": "\ue000"}], {}),
        ([{**SAFE, "perf_profile": "x" * 257}], {}),
        ([{"perf_score": 1}], {}),
    ],
)
def test_the_score_is_the_lowest_of_a_profile_that_all_parents_state(
    ask: Ask, signer: KeySigner, stated: list[dict[str, Any]], scores: dict[str, float]
) -> None:
    nodes = [mint(signer, ext=one) for one in stated]
    draft = ask([node.token for node in nodes], [evidence(signer, node) for node in nodes])
    assert (draft.decision, draft.scores) == ("allow", scores)


GROUP = ["a" * 43, "b" * 43]


@pytest.mark.parametrize(
    ("stated", "within"),
    [
        ([{}], []),
        ([{"within": [GROUP]}], [GROUP]),
        ([{"within": [GROUP]}, {"within": [GROUP, ["c" * 43]]}, {}], [GROUP, ["c" * 43]]),
    ],
)
def test_what_the_work_is_within_is_of_all_parents(
    ask: Ask, signer: KeySigner, stated: list[dict[str, Any]], within: list[list[str]]
) -> None:
    nodes = [mint(signer, ext=one) for one in stated]
    draft = ask([node.token for node in nodes], [evidence(signer, node) for node in nodes])
    assert (draft.decision, draft.within) == ("allow", within)


@pytest.mark.parametrize(
    "within", [5, "x", {}, ["a" * 43], [["a" * 42]], [["a" * 43 + "\n"]], [[5]], [["a" * 43] * 33], [[]] * 33, None]
)
def test_a_condition_that_cannot_be_read_is_refused(ask: Ask, signer: KeySigner, within: Any) -> None:
    node = mint(signer, ext={"within": within})
    draft = ask([node.token], [evidence(signer, node)])
    assert (draft.decision, draft.reason) == ("deny", "ect_invalid")


def test_more_conditions_than_a_node_can_name_are_refused(ask: Ask, signer: KeySigner) -> None:
    """Of several parents together: the node of the agent could not say what it is within."""
    digests = [[f"{n:043}"] for n in range(33)]
    for count, decision in ((32, "allow"), (33, "deny")):
        nodes = [mint(signer, ext={"within": some}) for some in (digests[:20], digests[10:count])]
        draft = ask([one.token for one in nodes], [evidence(signer, one) for one in nodes])
        assert draft.decision == decision
    assert (draft.reason, "33 bindings, more than 32" in draft.detail) == ("ect_invalid", True)


def test_evidence_is_as_old_as_the_end_of_its_window(ask: Ask, signer: KeySigner, node: ect.Minted) -> None:
    old = evidence(signer, node, bhv_window={"start": NOW - 90, "end": NOW - 80})
    draft = ask([node.token], [evidence(signer, node), old])
    assert [one["until"] for one in draft.evidence] == [int(NOW), NOW - 80]


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        pytest.param({"audience": (AGENT_A,)}, "ect_invalid", "not for us", id="aud"),
        pytest.param({"now": NOW - 901}, "ect_invalid", "expired", id="expired"),
        pytest.param({"now": NOW + 35}, "ect_invalid", "from the future", id="future"),
        pytest.param({"issuer": "spiffe://example.test/monitor/x"}, "ect_missing", "issued by the peer", id="issuer"),
    ],
)
def test_a_bad_node(
    ask: Ask, signer: KeySigner, node: ect.Minted, change: dict[str, Any], reason: str, detail: str
) -> None:
    draft = ask([mint(signer, **change).token], [evidence(signer, node)])
    assert (draft.decision, draft.reason, draft.parents, draft.evidence) == ("deny", reason, (), ())
    assert detail in draft.detail


@pytest.mark.parametrize("lines", [[], ["x"], ["a.b.c"], ["\x00"]])
def test_no_node(ask: Ask, signer: KeySigner, node: ect.Minted, lines: list[str]) -> None:
    draft = ask(lines, [evidence(signer, node)])
    assert (draft.decision, draft.reason) == ("deny", "ect_invalid" if lines else "ect_missing")


def test_a_bet_posing_as_a_node(ask: Ask, signer: KeySigner, node: ect.Minted) -> None:
    token = evidence(signer, node)
    draft = ask([token], [token])
    assert (draft.reason, "expected exec+jwt or wimse-exec+jwt" in draft.detail) == ("ect_invalid", True)


def test_a_node_posing_as_a_bet(ask: Ask, node: ect.Minted) -> None:
    draft = ask([node.token], [node.token])
    assert (draft.reason, "expected bet+jwt" in draft.detail) == ("bet_invalid", True)


def test_nodes_of_two_workflows(ask: Ask, signer: KeySigner, node: ect.Minted) -> None:
    other = mint(signer, wid=new_id())
    draft = ask([node.token, other.token], [evidence(signer, node), evidence(signer, other)])
    assert (draft.reason, "different workflows" in draft.detail) == ("ect_invalid", True)


def test_one_node_twice(ask: Ask, signer: KeySigner, node: ect.Minted) -> None:
    assert ask([node.token, node.token], [evidence(signer, node)]).reason == "ect_invalid"


@pytest.mark.parametrize(("older", "reason"), [(31, "ect_invalid"), (30, "allowed")])
def test_a_node_and_its_predecessor_in_time(ask: Ask, signer: KeySigner, older: int, reason: str) -> None:
    root = mint(signer)
    node = mint(signer, parents=(root.jti,), now=NOW - older)
    draft = ask([root.token, node.token], [evidence(signer, root), evidence(signer, node)])
    assert draft.reason == reason
    assert reason == "allowed" or f"the node {node.jti} is 31 s older than its predecessor {root.jti}" in draft.detail


def test_nodes_in_a_circle(ask: Ask, signer: KeySigner, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [new_id() for _ in range(3)]
    nodes = []
    for n, jti in enumerate(ids):
        monkeypatch.setattr(ect.read, "new_id", lambda jti=jti: jti)
        nodes.append(mint(signer, parents=(ids[n - 1],)))
    draft = ask([node.token for node in nodes], [evidence(signer, nodes[0]), *(evidence(signer, n) for n in nodes[1:])])
    assert (draft.reason, "is its own ancestor" in draft.detail) == ("ect_invalid", True)


def test_no_evidence(ask: Ask, node: ect.Minted) -> None:
    assert ask([node.token], []).reason == "bet_missing"


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        pytest.param({"aud": [AGENT_A]}, "not for us", id="aud"),
        pytest.param({"exp": int(NOW) - 1, "iat": int(NOW) - 2}, "expired", id="expired"),
        pytest.param({"sub": AGENT_B}, "is about", id="another agent"),
        pytest.param({"wid": new_id()}, "of the workflow", id="another workflow"),
        pytest.param({"pred": [new_id()]}, "did not come along", id="another node"),
        pytest.param({"iss": "spiffe://example.test/monitor/x"}, "no key", id="another issuer"),
    ],
)
def test_bad_evidence(ask: Ask, signer: KeySigner, node: ect.Minted, changes: dict[str, Any], detail: str) -> None:
    draft = ask([node.token], [evidence(signer, node), evidence(signer, node, **changes)])
    assert (draft.decision, draft.reason) == ("deny", "bet_invalid")
    assert detail in draft.detail


def test_too_many_lines(ask: Ask, signer: KeySigner, node: ect.Minted) -> None:
    refused = ask([node.token] * 17, [evidence(signer, node)])
    assert (refused.reason, "17 Execution-Context lines of the peer" in refused.detail) == ("ect_invalid", True)
    assert ask([*(mint(signer).token for _ in range(64)), node.token], [evidence(signer, node)]).reason == "ect_invalid"
    assert ask([node.token], [evidence(signer, node)] * 17).reason == "bet_invalid"


def test_work_that_has_come_a_long_way_brings_many_lines(ask: Ask, signer: KeySigner, node: ect.Minted) -> None:
    """An agent that hands on all that it got adds two with every station; only the peer's are relied on."""
    draft = ask([*(mint(signer).token for _ in range(63)), node.token], [evidence(signer, node)])
    assert (draft.decision, draft.action_parameters["foreign_lines"]) == ("allow", 63)


def row(jti: str, iat: float, origin: Any = "received") -> NodeRow:
    return NodeRow(jti, WID, AGENT_A, PEER, iat, (), "token", origin)


def test_replay_is_scoped_by_workflow_and_all_or_nothing() -> None:
    memory = ReplayMemory([], NOW)
    assert memory.take([(WID, "a")], NOW) is None
    assert "a was taken before" in str(memory.take([(WID, "b"), (WID, "a")], NOW))
    assert memory.take([("other", "a"), (WID, "b")], NOW) is None


def test_replay_memory_lasts_as_long_as_the_token_could_be_accepted() -> None:
    memory = ReplayMemory([], NOW)
    memory.take([(WID, "a")], NOW)
    assert memory.take([(WID, "a")], NOW + 30 + 900 + 30) is not None
    assert memory.take([(WID, "a")], NOW + 961) is None


def test_replay_memory_survives_a_restart() -> None:
    stored = [row("old", NOW - 931), row("new", NOW - 929), row("minted", NOW, "minted")]
    memory = ReplayMemory(stored, NOW)
    assert memory.take([(WID, "new")], NOW) is not None
    assert memory.take([(WID, "old"), (WID, "minted")], NOW) is None


def test_a_full_replay_memory_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_REMEMBERED", 1)
    memory = ReplayMemory([], NOW)
    assert memory.take([(WID, "a")], NOW) is None
    assert "could not be told from a replay" in str(memory.take([(WID, "b")], NOW))
    assert memory.take([(WID, "b")], NOW + 1000) is None


def test_a_checkpoint_must_be_of_the_log_that_the_evidence_rests_on(
    ask: Ask, signer: KeySigner, node: ect.Minted
) -> None:
    leaves = [leaf_hash(b"0"), leaf_hash(b"1"), leaf_hash(b"2")]
    rests = {"checkpoint_size": 3, "checkpoint_root": base64url.encode(root(leaves))}
    token = evidence(signer, node, ext=rests)
    note = CheckpointSigner(PEER.removeprefix("spiffe://"), signer).sign(1, leaves[0])
    line = WitnessedLine(note, 3, tuple(consistency_proof(leaves, 1))).text()
    assert ask([node.token], [token]).checkpoint == ""
    assert ask([node.token], [token], checkpoint=[line]).checkpoint == note
    another = evidence(signer, node, ext={**rests, "checkpoint_size": 4})
    for bets, lines in [([token], [line, line]), ([token], [f"{line},{line}"]), ([token], ["x"]), ([another], [line])]:
        draft = ask([node.token], bets, checkpoint=lines)
        assert (draft.decision, draft.reason) == ("deny", "checkpoint_invalid"), draft
        assert draft.detail.startswith(("Behavioral-Evidence-Checkpoint: ", "2 Behavioral-Evidence-Checkpoint lines"))
