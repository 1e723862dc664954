"""Delegations that are refused for what the monitor's own log has: nodes that came in before, or that it minted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from end_to_end.attackers import AGENT_A, AGENT_B, URN_B, Attacker, Callee
from end_to_end.refused_delegations import after
from end_to_end.world import Monitor, Server, binding

from lictor.certs.domain import TrustDomain
from lictor.evidence.claims import new_id
from lictor.evidence.sqlite_store import SqliteStore
from lictor.evidence.store import Batch, NodeRow


@pytest.fixture(scope="module")
def agent() -> Iterator[Server]:
    with contextlib.closing(Server(None)) as server:
        yield server


def set_up(share_monitor: Callable[..., Monitor], name: str, agent: Server, **options: Any) -> Monitor:
    rules = {**binding(delegation=[URN_B]), "subjects": ["spiffe://test.internal/monitor/*"]}
    ingress = f'agent = "{AGENT_B}"\nurn = "{URN_B}"\nupstream = "http://127.0.0.1:{agent.port}"'
    return share_monitor(name, {"inbound": rules}, ingress=ingress, **options)


@pytest.fixture(scope="module")
def callee(share_monitor: Callable[..., Monitor], agent: Server) -> Callee:
    return Callee(set_up(share_monitor, "knowing", agent), agent)


@pytest.fixture(scope="module")
def mallory(domain: TrustDomain) -> Attacker:
    return Attacker(domain, "mallory", AGENT_A, AGENT_B)


@pytest.fixture(scope="module")
def other(domain: TrustDomain) -> Attacker:
    return Attacker(domain, "other", AGENT_A, AGENT_B)


def known(m: Attacker, callee: Callee, **changes: Any) -> dict[str, Any]:
    """A node of `m` that the callee has taken."""
    claims = m.node(**changes)
    callee.takes(m, m.tokens(claims))
    return claims


AFTER_KNOWN: dict[str, tuple[Callable[[Attacker, Callee], dict[str, Any]], str]] = {
    "a predecessor that is younger": (
        lambda m, callee: (lambda p: m.node(wid=p["wid"], iat=p["iat"] - 40, **after(p["jti"])))(known(m, callee)),
        "s older than its predecessor",
    ),
    "a cycle": (
        lambda m, callee: (lambda p: m.node(wid=p["wid"], jti=p["pred"][0], **after(p["jti"])))(
            known(m, callee, **after(new_id()))
        ),
        "is its own ancestor",
    ),
    "a node of another workflow": (
        lambda m, callee: m.node(**after(known(m, callee)["jti"])),
        "is of another workflow",
    ),
    "our own node of another workflow": (
        lambda m, callee: m.node(**after(callee.takes(m, m.tokens(m.node()))["node"])),
        "is of another workflow",
    ),
    "the id of another's node": (
        lambda m, callee: m.node(
            **{name: callee.delegations()[-1][of] for name, of in (("wid", "wid"), ("jti", "node"))}
        ),
        "is taken in this workflow",
    ),
}


@pytest.mark.parametrize("name", AFTER_KNOWN)
def test_refused_by_what_is_known(callee: Callee, mallory: Attacker, name: str) -> None:
    make, words = AFTER_KNOWN[name]
    known(mallory, callee)
    callee.refuses(mallory, mallory.tokens(make(mallory, callee)), "ect_invalid", words)


def test_a_restart_forgets_nothing(callee: Callee, mallory: Attacker, other: Attacker) -> None:
    claims = known(mallory, callee, **after(new_id()))
    taken = callee.delegations()[-1]["node"]
    callee.monitor.stop()
    callee.monitor.start()
    circle = mallory.node(wid=claims["wid"], jti=claims["pred"][0], **after(claims["jti"]))
    callee.refuses(mallory, mallory.tokens(circle), "ect_invalid", "is its own ancestor")
    for above in (claims["jti"], taken):
        forged = other.tokens(other.node(wid=claims["wid"], **after(above)))
        callee.refuses(other, forged, "ect_invalid", "names a predecessor that is addressed to")
    given = mallory.node(wid=claims["wid"], **after(taken))
    assert "pending_parents" not in callee.takes(mallory, mallory.tokens(given))["action_parameters"]


def test_more_ancestors_than_may_be_are_known(
    share_monitor: Callable[..., Monitor], agent: Server, mallory: Attacker
) -> None:
    """10,000 of them: the one before the last is as far as work may go."""
    monitor = set_up(share_monitor, "deep", agent, start=False)
    ids, wid, since = [new_id() for _ in range(10_000)], new_id(), int(time.time())
    rows = [
        NodeRow(jti, wid, AGENT_A, mallory.id, since, (before,) if before else (), "", "received")
        for before, jti in zip(["", *ids], ids, strict=False)
    ]
    path = monitor.path / "data" / "ledger.sqlite"
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(SqliteStore(path)) as store:
        store.append(Batch(nodes=rows))
    deep = Callee(monitor.start(), agent)
    deep.takes(mallory, mallory.tokens(mallory.node(wid=wid, **after(ids[-2]))))
    too_many = mallory.tokens(mallory.node(wid=wid, **after(ids[-1])))
    deep.refuses(mallory, too_many, "ect_invalid", "more than 10000 known ancestors")
