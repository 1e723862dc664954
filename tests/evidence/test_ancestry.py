"""Nodes that come in, held to those that are known: each rule, what is only pending, and what is honest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lictor.evidence import ancestry, ect
from lictor.evidence.ancestry import Ancestry
from lictor.evidence.claims import new_id
from lictor.evidence.sqlite_store import SqliteStore
from lictor.evidence.store import Batch, NodeRow
from lictor.formats.keys import KeySigner

OWN, PEER, THIRD = (f"spiffe://example.test/monitor/{name}" for name in ("own", "peer", "third"))
AGENT = "spiffe://example.test/agent/a"
NOW = 1_790_000_000.0
WID, ELSEWHERE, ID = new_id(), new_id(), new_id()


class World:
    """A store, and what a monitor knows that looks into it."""

    def __init__(self, path: Path, signer: KeySigner) -> None:
        self.store, self.signer = SqliteStore(path), signer
        self.restart()

    def restart(self) -> None:
        self.known = Ancestry(self.store, [row for row in self.store.nodes() if row.origin == "received"], OWN, NOW)

    def row(self, *parents: str, **changes: Any) -> NodeRow:
        """A node of the peer that comes after `parents`."""
        audience = changes.pop("audience", (OWN,))
        row = replace(NodeRow(new_id(), WID, AGENT, PEER, NOW, parents, "", "received"), **changes)
        token = ect.mint(
            self.signer,
            issuer=row.issuer,
            subject=row.agent_id,
            audience=audience,
            wid=row.wid,
            parents=parents,
            now=row.iat,
        ).token
        return replace(row, token=token)

    def keep(self, *rows: NodeRow) -> None:
        self.store.append(Batch(nodes=list(rows)))

    def take(self, *rows: NodeRow, durable: bool = True) -> tuple[str, int]:
        found = self.known.admit(rows, NOW)
        if durable and not found[0]:
            self.keep(*rows)
        return found

    def chain(self, length: int, **changes: Any) -> NodeRow:
        """The last of so many nodes that were taken, one after the other."""
        last = self.row(**changes)
        self.take(last)
        for _ in range(length - 1):
            last = self.row(last.jti, **changes)
            assert self.take(last) == ("", 0)
        return last


@pytest.fixture
def world(tmp_path: Path, signer: KeySigner) -> Iterator[World]:
    made = World(tmp_path / "ledger.sqlite", signer)
    with closing(made.store):
        yield made


Known = Callable[[World], NodeRow]
Came = Callable[[World, NodeRow], NodeRow]
OTHERS = {"issuer": THIRD, "agent_id": "spiffe://example.test/agent/c"}

BAD: dict[str, tuple[Known, Came, str]] = {
    "a predecessor that is younger": (lambda w: w.row(iat=NOW + 31), lambda w, p: w.row(p.jti), "is 31 s older than"),
    "work of another's agent": (
        lambda w: w.row(issuer=OWN, origin="minted", audience=(OWN, THIRD)),
        lambda w, p: w.row(p.jti),
        "names a predecessor that is addressed to",
    ),
    "what another handed on": (
        lambda w: w.row(issuer=THIRD),
        lambda w, p: w.row(p.jti),
        f"names a predecessor that is addressed to {OWN}, not to it",
    ),
    "its issuer's node of another workflow": (
        lambda w: w.row(wid=ELSEWHERE),
        lambda w, p: w.row(p.jti),
        f"is of another workflow ({ELSEWHERE})",
    ),
    "our own node of another workflow": (
        lambda w: w.row(issuer=OWN, wid=ELSEWHERE, origin="minted", audience=(PEER,)),
        lambda w, p: w.row(p.jti),
        f"is of another workflow ({ELSEWHERE})",
    ),
    "a node of another workflow after one of none": (
        lambda w: w.row(wid=ELSEWHERE),
        lambda w, p: w.row(p.jti, wid=""),
        f"is of another workflow ({ELSEWHERE})",
    ),
    "a cycle": (lambda w: w.row(ID), lambda w, p: w.row(p.jti, jti=ID), f"node {ID} is its own ancestor"),
    "a predecessor that comes after its successor and is younger": (
        lambda w: w.row(ID),
        lambda w, p: w.row(jti=ID, iat=NOW + 31),
        f"is 31 s older than its predecessor {ID}",
    ),
    "an id of another's node": (
        lambda w: w.row(**OTHERS),
        lambda w, p: w.row(jti=p.jti),
        f"taken in this workflow: {THIRD}",
    ),
    "an id of one's own": (
        lambda w: w.row(),
        lambda w, p: w.row(jti=p.jti, iat=NOW - 1),
        f"taken in this workflow: {PEER}",
    ),
    "a node once more": (lambda w: w.row(), lambda w, p: p, f"taken in this workflow: {PEER}"),
    "an id of our own node": (
        lambda w: w.row(issuer=OWN, origin="minted"),
        lambda w, p: w.row(jti=p.jti),
        f"taken in this workflow: {OWN}",
    ),
}


@pytest.mark.parametrize("when", ["in the store", "taken", "taken at the same time", "taken, before a restart"])
@pytest.mark.parametrize("name", BAD)
def test_refused(world: World, name: str, when: str) -> None:
    make, come, words = BAD[name]
    known = make(world)
    if known.origin == "minted" or when == "in the store":
        world.keep(known)
        world.restart()
    else:
        world.take(known, durable=when != "taken at the same time" or known.wid == ELSEWHERE)
    if when == "taken, before a restart":
        world.restart()
    row = come(world, known)
    problem, _ = world.take(row)
    assert words in problem
    assert world.store.node(row.wid, row.jti) in (None, known)
    assert world.take(world.row(row.jti, iat=NOW + 1))[0] == "" or known.jti == row.jti, "what was refused is not known"


GOOD: dict[str, tuple[Known, Came, int]] = {
    "a root": (lambda w: w.row(), lambda w, p: w.row(), 0),
    "a successor": (lambda w: w.row(), lambda w, p: w.row(p.jti), 0),
    "a predecessor within the skew": (lambda w: w.row(iat=NOW + 30), lambda w, p: w.row(p.jti), 0),
    "given to the monitor": (
        lambda w: w.row(issuer=OWN, origin="minted", audience=(PEER,)),
        lambda w, p: w.row(p.jti),
        0,
    ),
    "given to the agent": (
        lambda w: w.row(issuer=OWN, origin="minted", audience=(AGENT,)),
        lambda w, p: w.row(p.jti),
        0,
    ),
    "what a third party gave it": (
        lambda w: w.row(**OTHERS, audience=(OWN, PEER)),
        lambda w, p: w.row(p.jti),
        0,
    ),
    "our own node that comes back": (lambda w: w.row(issuer=OWN, origin="minted"), lambda w, p: p, 0),
    "the id of another workflow's node": (lambda w: w.row(wid=ELSEWHERE), lambda w, p: w.row(jti=p.jti), 0),
    "the id of a node of no workflow": (lambda w: w.row(wid=""), lambda w, p: w.row(jti=p.jti), 0),
    "an id that a third party has in another workflow": (
        lambda w: w.row(**OTHERS, wid=ELSEWHERE),
        lambda w, p: w.row(p.jti),
        1,
    ),
    "an id that a third party has in no workflow": (lambda w: w.row(**OTHERS, wid=""), lambda w, p: w.row(p.jti), 1),
    "a predecessor of no workflow": (lambda w: w.row(wid=""), lambda w, p: w.row(p.jti), 0),
    "a predecessor that nobody knows": (lambda w: w.row(), lambda w, p: w.row(p.jti, new_id(), new_id()), 2),
    "a predecessor that comes late": (lambda w: w.row(ID), lambda w, p: w.row(jti=ID), 0),
    "a predecessor that comes late, with one before": (lambda w: w.row(ID), lambda w, p: w.row(new_id(), jti=ID), 1),
    "a second one with the same predecessor": (lambda w: w.row(ID), lambda w, p: w.row(ID), 1),
}


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("name", GOOD)
def test_taken(world: World, name: str, restarted: bool) -> None:
    make, come, pending = GOOD[name]
    known = make(world)
    if known.origin == "minted":
        world.keep(known)
    else:
        world.take(known)
    if restarted:
        world.restart()
    came = come(world, known)
    assert world.take(came) == ("", pending)


def test_nodes_that_come_together_are_known_to_each_other(world: World) -> None:
    first = world.row(new_id())
    both = world.row(first.jti), first
    assert world.take(*both) == ("", 1)
    one, other = world.row(ID), world.row()
    assert world.take(one)[0] == ""
    link = world.row(one.jti)
    problem, _ = world.take(world.row(link.jti, jti=ID), link, other)
    assert problem == f"node {ID} is its own ancestor"
    assert world.take(world.row(one.jti, link.jti, other.jti)) == ("", 2), "all or none of them"


def test_a_cycle_over_many(world: World) -> None:
    last = world.row(ID)
    world.take(last)
    for _ in range(20):
        last = world.row(last.jti, new_id())
        world.take(last)
    assert world.take(world.row(last.jti, jti=ID))[0] == f"node {ID} is its own ancestor"
    assert world.take(world.row(last.jti)) == ("", 0)


def test_a_late_one_with_a_long_chain_is_not_walked_to_its_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    last = world.chain(10)
    world.take(world.row(ID))
    monkeypatch.setattr(ancestry, "MAX_WALK", 9)
    assert "has more than 9 ancestors" in world.take(world.row(last.jti, jti=ID))[0]
    assert world.take(world.row(last.parents[0], jti=ID)) == ("", 0)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ancestry, "MAX_ANCESTORS", 20)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("restarted", [False, True])
def test_too_many_ancestors(world: World, restarted: bool) -> None:
    """The last that is taken gives a node that has exactly as many as may be."""
    last = world.chain(20)
    if restarted:
        world.restart()
    problem, _ = world.take(world.row(last.jti))
    assert "would have more than 20 known ancestors" in problem
    assert world.take(world.row(last.parents[0])) == ("", 0)
    assert world.take(world.row()) == ("", 0)


@pytest.mark.usefixtures("few")
def test_too_many_ancestors_in_the_store_before_the_rule_was(world: World) -> None:
    rows = [world.row(jti=ID)]
    for _ in range(50):
        rows.append(world.row(rows[-1].jti))
    world.keep(*rows)
    assert "more than 20 known ancestors" in world.take(world.row(rows[-1].jti))[0]
    assert world.take(world.row(rows[18].jti)) == ("", 0)


@pytest.mark.usefixtures("few")
def test_ancestors_on_several_paths_count_once(world: World) -> None:
    """Six times to two and back to one: 19 nodes, 190 paths."""
    last = world.chain(1)
    for _ in range(6):
        sides = [world.row(last.jti), world.row(last.jti)]
        for side in sides:
            assert world.take(side) == ("", 0)
        last = world.row(*(side.jti for side in sides))
        assert world.take(last) == ("", 0)
    assert world.take(end := world.row(last.jti)) == ("", 0)
    assert "more than 20" in world.take(world.row(end.jti))[0]


@pytest.mark.usefixtures("few")
def test_ancestors_that_come_last_count_too(world: World) -> None:
    """A chain that comes from its end to its beginning."""
    ids = [new_id() for _ in range(30)]
    for before, jti in zip(ids[1:], ids, strict=False):
        assert world.take(world.row(before, jti=jti)) == ("", 1)
    assert "more than 20" in world.take(world.row(ids[0]))[0]
    assert world.take(world.row(ids[15])) == ("", 0)


@pytest.mark.usefixtures("few")
def test_an_old_circle_in_the_store_ends_no_count_and_no_walk(world: World) -> None:
    one, other = new_id(), new_id()
    world.keep(world.row(other, jti=one), world.row(one, jti=other))
    assert world.take(world.row(one)) == ("", 0)


def test_what_is_remembered_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAX_NEW", "MAX_NAMED", "MAX_COUNTED"):
        monkeypatch.setattr(ancestry, name, 8)
    monkeypatch.setattr(ancestry, "MAX_ANCESTORS", 25)
    last = world.chain(1)
    for _ in range(20):
        last = world.row(last.jti, new_id())
        assert world.take(last) == ("", 1)
    kept = world.known._new, world.known._named, world.known._counts
    assert [len(one) for one in kept] == [8, 8, 8]
    assert world.known.admit([world.row()], NOW + 2000) == ("", 0)
    assert not world.known._named, "nobody can send them any more"
