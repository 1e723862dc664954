"""Delegation chains: the whole one holds; each attack is named; what is missing is told from what is a lie."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from lictor.certs.domain import TrustDomain
from lictor.evidence import bet, ect
from lictor.evidence.claims import new_id
from lictor.evidence.ect import Minted
from lictor.formats.errors import UsageError
from lictor.verifier import chain as module
from lictor.verifier.chain import Chain, read_chain, verify_chain

ONE, TWO = "spiffe://chain.test/monitor/one", "spiffe://chain.test/monitor/two"
A, B = "spiffe://chain.test/agent/a", "spiffe://chain.test/agent/b"


class Forge:
    """Mints tokens as a monitor would, adds them to a copy of its evidence file and verifies both files."""

    def __init__(self, made: Any, folder: Path) -> None:
        self.made, self.folder = made, folder
        self.wid = new_id()
        self.now = time.time()
        self._lines: dict[str, list[bytes]] = {"ect": [], "bet": []}

    def node(self, parents: tuple[str, ...] = (), **changes: Any) -> Minted:
        given = {"issuer": ONE, "subject": A, "audience": (B,), "wid": self.wid, "parents": parents, "now": self.now}
        given |= changes
        node = ect.mint(self.made.signers[given["issuer"]], **given)
        self.add("ect", node.token)
        return node

    def bet(self, node: Minted, kind: str = "bet", **changes: Any) -> str:
        claims = {
            "iss": ONE,
            "sub": A,
            "aud": [B],
            "iat": int(self.now),
            "exp": int(self.now) + 3600,
            "jti": new_id(),
            "wid": node.wid,
            "exec_act": "behavioral_verification",
            "pred": [node.jti],
            "bhv_policy": "urn:p",
            "bhv_result": "pass",
            "bhv_evidence": bet.EMPTY_EVIDENCE,
            "bhv_window": {"start": self.now - 1, "end": self.now},
            **changes,
        }
        token = bet.issue(claims, self.made.signers[claims["iss"]])
        self.add(kind, token)
        return str(claims["jti"])

    def add(self, kind: str, token: str) -> None:
        self._lines[kind].append(json.dumps({kind: token}, separators=(",", ":")).encode() + b"\n")

    def verify(self) -> Chain:
        lines = self.made.one.read_bytes().splitlines(keepends=True)
        for kind in ("bet", "ect"):
            at = next(n for n, line in enumerate(lines) if line.startswith(b'{"%s"' % kind.encode()))
            lines[at:at] = self._lines[kind]
        path = self.folder / "forged.jsonl"
        path.write_bytes(b"".join(lines))
        return verify_chain([path, self.made.two], self.made.ca.read_bytes())


@pytest.fixture
def forge(chain_files: Any, tmp_path: Path) -> Forge:
    return Forge(chain_files, tmp_path)


def whats(chain: Chain) -> list[str]:
    return [str(problem) for problem in chain.problems]


@pytest.mark.parametrize("verified", [True, False])
def test_the_whole_chain(chain_files: Any, verified: bool) -> None:
    ca = chain_files.ca.read_bytes()
    chain = verify_chain(chain_files.files, ca) if verified else read_chain(chain_files.files)
    assert (chain.verdict, whats(chain)) == ("intact", [])
    nodes = {node.ect.jti: node for node in chain.nodes.values()}
    sent = nodes[chain_files.delegation.node]
    [taken] = sent.children
    assert (sent.agent, sent.ect.issuer, taken.agent, taken.ect.issuer) == (A, ONE, B, TWO)
    assert len(sent.parents) == 1
    assert {one.ext["trigger"] for one in sent.bets} == {"delegation"}
    assert [one.subject for one in taken.bets] == [B, B]
    [nodes_of] = [found for found in chain.workflows().values() if sent in found]
    assert taken in nodes_of


def test_one_side_alone_is_a_gap(chain_files: Any) -> None:
    two = verify_chain([chain_files.two], chain_files.ca.read_bytes())
    assert two.verdict == "gap"
    assert any(f"of {ONE} is in none of the files" in what for what in whats(two))
    one = verify_chain([chain_files.one], chain_files.ca.read_bytes())
    assert one.verdict == "intact"


def test_forged_nodes_and_evidence_that_are_good(forge: Forge) -> None:
    root = forge.node()
    forge.bet(forge.node((root.jti,)))
    assert whats(forge.verify()) == []


def test_a_pruned_branch(forge: Forge) -> None:
    gone = new_id()
    node = forge.node((gone,))
    chain = forge.verify()
    assert whats(chain) == [f"missing: the predecessor {gone} of node {node.jti} is in none of the files"]
    assert chain.verdict == "gap"


def test_a_node_of_another_workflow(forge: Forge) -> None:
    other = forge.node(wid=new_id())
    node = forge.node((other.jti,))
    chain = forge.verify()
    what = f"bad: the predecessor {other.jti} of node {node.jti} is of another workflow ({other.wid})"
    assert (chain.verdict, whats(chain)) == ("bad", [what])


def test_a_forged_parent(forge: Forge) -> None:
    """Another monitor hangs its work under a node that was not addressed to its agent."""
    root = forge.node(audience=("spiffe://chain.test/agent/c",))
    node = forge.node((root.jti,), issuer=TWO, subject=B)
    [what] = whats(forge.verify())
    assert f"node {node.jti} names a predecessor that is addressed to spiffe://chain.test/agent/c, not to it" in what


def test_a_successor_that_is_older(forge: Forge) -> None:
    root = forge.node(now=forge.now + 31)
    node = forge.node((root.jti,))
    [what] = whats(forge.verify())
    assert f"bad: node {node.jti} is 31 s older than its predecessor {root.jti}, more than the skew of 30 s" == what


def test_a_successor_older_within_the_skew(forge: Forge) -> None:
    forge.node((forge.node(now=int(forge.now) + 30).jti,))
    assert whats(forge.verify()) == []


def test_a_shadow_node(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second node with the id of the first."""
    root = forge.node()
    monkeypatch.setattr(ect.read, "new_id", lambda: root.jti)
    forge.node(now=forge.now + 1)
    assert whats(forge.verify()) == [f"bad: two different nodes have the id {root.jti}"]


def test_the_same_id_in_another_workflow_is_another_node(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    root = forge.node()
    monkeypatch.setattr(ect.read, "new_id", lambda: root.jti)
    forge.node(wid="a0b1c2d3-e4f5-6789-abcd-ef0123456789")
    assert whats(forge.verify()) == []


def test_a_cycle(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [new_id() for _ in range(3)]
    for n, jti in enumerate(ids):
        monkeypatch.setattr(ect.read, "new_id", lambda jti=jti: jti)
        forge.node((ids[n - 1],))
    chain = forge.verify()
    assert chain.verdict == "bad"
    assert whats(chain) == [f"bad: node {jti} is its own ancestor, or comes after one that is" for jti in ids]


def test_too_many_ancestors_are_refused_not_cut_off(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ANCESTORS", 5)
    nodes = [forge.node()]
    for _ in range(5):
        nodes.append(forge.node((nodes[-1].jti,)))
    assert forge.verify().verdict == "intact"
    last = forge.node((nodes[-1].jti,))
    assert whats(forge.verify()) == [f"bad: node {last.jti} has more than 5 ancestors"]


def test_a_wide_workflow_has_no_deep_ancestry(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ANCESTORS", 5)
    root = forge.node()
    middle = [forge.node((root.jti,)) for _ in range(4)]
    forge.node(tuple(node.jti for node in middle))
    assert whats(forge.verify()) == []


def test_a_bet_posing_as_a_node(forge: Forge) -> None:
    jti = forge.bet(forge.node(), kind="ect")
    [what] = whats(forge.verify())
    assert what == f"bad: node {jti}: the token's typ is 'bet+jwt', expected exec+jwt or wimse-exec+jwt"


def test_a_node_posing_as_a_bet(forge: Forge) -> None:
    node = forge.node()
    forge.add("bet", node.token)
    [what] = whats(forge.verify())
    assert what == f"bad: BET {node.jti}: the token's typ is 'exec+jwt', expected bet+jwt"


@pytest.mark.parametrize(
    ("changes", "later", "what"),
    [
        pytest.param({"sub": B}, 0, f"is about {B}, its node about {A}", id="another agent"),
        pytest.param({}, 40, "older than its node", id="older"),
    ],
)
def test_a_bet_that_does_not_belong_to_its_node(forge: Forge, changes: dict[str, Any], later: float, what: str) -> None:
    forge.bet(forge.node(now=forge.now + later), **changes)
    [found] = whats(forge.verify())
    assert found.startswith("bad: ")
    assert what in found


def test_a_bet_of_another_workflow(forge: Forge) -> None:
    forge.bet(forge.node(), wid=new_id())
    [found] = whats(forge.verify())
    assert "is of another workflow" in found


def test_a_bet_without_its_node(forge: Forge) -> None:
    jti = forge.bet(forge.node(), pred=[gone := new_id()])
    assert whats(forge.verify()) == [f"missing: the node {gone} of BET {jti} is in none of the files"]


def test_two_bets_of_one_id(forge: Forge) -> None:
    node = forge.node()
    jti = forge.bet(node)
    forge.bet(node, jti=jti, bhv_result="fail")
    assert whats(forge.verify()) == [f"bad: two different BETs have the id {jti}"]


def test_a_changed_node(forge: Forge) -> None:
    one, two = forge.node(), forge.node()
    head, _, signature = one.token.split(".")
    forge.add("ect", f"{head}.{two.token.split('.')[1]}.{signature}")
    [what] = whats(forge.verify())
    assert what == f"bad: node {two.jti}: the signature is wrong"


def test_a_node_that_was_never_signed_by_its_monitor(forge: Forge) -> None:
    given = {"issuer": ONE, "subject": A, "audience": (B,), "wid": forge.wid, "parents": (), "now": forge.now}
    forged = ect.mint(forge.made.signers[TWO], **given)
    forge.add("ect", forged.token)
    chain = forge.verify()
    assert chain.verdict == "bad"
    assert f"of '{ONE}' is known that the identity CA vouches for" in whats(chain)[0]


def test_evidence_under_another_ca(chain_files: Any, tmp_path: Path) -> None:
    other = TrustDomain.create(tmp_path / "trust", "chain.test").identity_ca.read_bytes()
    chain = verify_chain(chain_files.files, other)
    assert chain.verdict == "bad"
    assert "not signed by the identity CA" in whats(chain)[0]


def test_a_file_that_is_no_evidence(chain_files: Any, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("{}\n")
    chain = verify_chain([tmp_path / "x"], chain_files.ca.read_bytes())
    assert chain.verdict == "bad"
    with pytest.raises(UsageError):
        verify_chain([tmp_path / "absent"], chain_files.ca.read_bytes())


def test_ledgers_do_as_well_as_files(chain_files: Any) -> None:
    ledgers = [chain_files.folder / "one.db", chain_files.folder / "two.db"]
    assert verify_chain(ledgers, chain_files.ca.read_bytes()).verdict == "intact"


def test_a_chain_as_json(chain_files: Any) -> None:
    shown = json.loads(json.dumps(read_chain(chain_files.files).to_json()))
    nodes = {node["jti"]: node for workflow in shown["workflows"] for node in workflow["nodes"]}
    sent = nodes[chain_files.delegation.node]
    assert sent["agent"] == A
    assert nodes[sent["children"][0]]["agent"] == B
    assert [(one["result"], one["agent"]) for one in sent["bets"]] == [("fail", A)]
