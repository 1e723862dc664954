"""How many agents are kept in memory, and that one that was put aside goes on where it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import pytest

from lictor.evidence import agents as module
from lictor.evidence.bet import Bet
from lictor.evidence.entry import Resolution
from lictor.evidence.ledger import Ledger
from lictor.evidence.recorder import OutcomeDraft, PolicyInfo
from lictor.evidence.restore import restore
from lictor.evidence.sqlite_store import SqliteStore
from lictor.formats.keys import KeySigner

from .test_recorder import Monitor, action, covers, inbound, said

P = PolicyInfo("urn:p", "1.0.0", "digest-p", {"p1": "critical"})
Q = PolicyInfo("urn:q", "2.0.0", "digest-q", {"q1": "high"})
OWN, PARTNER = "spiffe://example.test/agent/", "spiffe://partner.test/monitor/"
FIRST = OWN + "0"


@pytest.fixture
async def monitor(
    open_ledger: Callable[[], tuple[Ledger, SqliteStore]], signer: KeySigner, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Monitor]:
    """With room for three agents of each trust domain."""
    monkeypatch.setattr(module, "MAX_AGENTS", 3)
    monitor = Monitor(open_ledger, signer)
    monitor.policies = {f"{OWN}{n}": (P,) for n in range(10)}
    yield monitor.start(interval=3600.0)
    await monitor.ledger.close()


async def act(monitor: Monitor, agent: str, **changes: Any) -> int:
    draft = action(agent, **{"behaviors": [said(P, "p1")], **changes})
    return (await monitor.recorder.record_action(draft)).seq


async def refuse(monitor: Monitor, agents: list[str]) -> None:
    for agent in agents:
        await act(monitor, agent, decision="deny", reason="default_deny", behaviors=[])


def kept(monitor: Monitor) -> list[str]:
    return [*monitor.recorder._agents._agents]


def assert_whole(monitor: Monitor, agent: str, counts: list[int], policy: str = "urn:p") -> list[Bet]:
    """Its windows follow each other without a gap, and each covers what it says."""
    bets = monitor.bets(agent, policy)
    assert [one.ext["count"] for one in bets] == counts
    assert all(covers(one, monitor.entries()) for one in bets)
    for before, after in pairwise(bets):
        assert (after.ext["prev_bet"], after.start) == (before.jti, before.end)
    return bets


async def test_identities_that_a_partner_makes_up_do_not_pile_up(monitor: Monitor) -> None:
    for number in range(0, 30, 5):
        await refuse(monitor, [f"{PARTNER}{n}" for n in range(number, number + 5)])
        await monitor.recorder.tick()
        assert kept(monitor) == [f"{PARTNER}{n}" for n in range(number + 2, number + 5)], "those seen last"


async def test_a_partner_pushes_out_nobody_of_another_domain(monitor: Monitor) -> None:
    first = await monitor.recorder.record_action(action(FIRST, behaviors=[said(P, "p1")]))
    await refuse(monitor, [f"{PARTNER}{n}" for n in range(10)])
    await monitor.recorder.tick()
    assert FIRST in kept(monitor)
    assert (await monitor.recorder.record_action(action(FIRST, behaviors=[said(P, "p1")]))).wid == first.wid


async def test_whoever_was_seen_lately_stays(monitor: Monitor) -> None:
    for n in (0, 1, 2, 0, 3):
        await act(monitor, f"{OWN}{n}")
    await monitor.recorder.tick()
    assert kept(monitor) == [OWN + "2", FIRST, OWN + "3"]


async def push_out(monitor: Monitor) -> None:
    for n in range(1, 4):
        await act(monitor, f"{OWN}{n}")
    await monitor.recorder.tick()
    assert FIRST not in kept(monitor)


@pytest.mark.parametrize("restarted", ["no", "orderly", "killed"])
async def test_one_that_was_put_aside_goes_on_where_it_was(monitor: Monitor, restarted: str) -> None:
    seq = await act(monitor, FIRST)
    await push_out(monitor)
    assert_whole(monitor, FIRST, [1])
    if restarted != "no":
        await monitor.stop(orderly=restarted == "orderly")
        monitor.start(interval=3600.0)  # says of what was under way that its outcome is unknown
    else:
        await monitor.recorder.record_outcome(OutcomeDraft(seq, {"status": 200}))
    await act(monitor, FIRST)
    await monitor.recorder.close()
    assert_whole(monitor, FIRST, [1, 2])


async def test_it_may_come_back_before_it_is_durable_that_it_was_put_aside(monitor: Monitor) -> None:
    await act(monitor, FIRST)
    for n in range(1, 4):
        await act(monitor, f"{OWN}{n}")
    ticking = asyncio.create_task(monitor.recorder.tick())
    await asyncio.sleep(0)
    assert FIRST not in kept(monitor)
    await act(monitor, FIRST)
    await ticking
    await act(monitor, FIRST)
    await monitor.recorder.close()
    assert_whole(monitor, FIRST, [1, 2])


async def test_policies_may_change_meanwhile(monitor: Monitor) -> None:
    await act(monitor, FIRST)
    await push_out(monitor)
    monitor.policies[FIRST] = (Q,)
    await monitor.recorder.reload()
    await act(monitor, FIRST, behaviors=[said(Q, "q1")])
    await monitor.recorder.close()
    assert_whole(monitor, FIRST, [1])
    [other] = assert_whole(monitor, FIRST, [1], "urn:q")
    assert (other.ext["prev_bet"], other.ext["binding_digest"]) == (None, Q.digest)


async def test_the_newer_version_of_a_policy_judges_what_comes_later(monitor: Monitor) -> None:
    await act(monitor, FIRST)
    await push_out(monitor)
    newer = monitor.policies[FIRST] = (PolicyInfo("urn:p", "1.1.0", "digest-p2", {"p1": "low"}),)
    await monitor.recorder.reload()
    await act(monitor, FIRST, behaviors=[said(newer[0], "p1")])
    await monitor.recorder.close()
    assert [one.ext["binding_digest"] for one in assert_whole(monitor, FIRST, [1, 1])] == ["digest-p", "digest-p2"]


async def test_whoever_works_for_others_stays(monitor: Monitor) -> None:
    receipt = await monitor.recorder.accept_delegation(inbound(FIRST))
    for n in range(1, 6):
        await act(monitor, f"{OWN}{n}")
    await monitor.recorder.tick()
    assert kept(monitor) == [FIRST, OWN + "4", OWN + "5"]
    assert (await monitor.recorder.delegation_response(receipt.node)).execution_context
    monitor.recorder.finish_delegation(receipt.node)
    await act(monitor, OWN + "6")
    await monitor.recorder.tick()
    assert FIRST not in kept(monitor)


async def test_what_waits_for_a_person_goes_on_in_the_windows_that_are_open_then(monitor: Monitor) -> None:
    asked = asyncio.create_task(act(monitor, FIRST, decision="hold", reason="x"))
    while not monitor.recorder._holds.waiting():
        await asyncio.sleep(0)
    await push_out(monitor)
    await act(monitor, FIRST)
    [waiting] = monitor.recorder._holds.waiting()
    monitor.recorder._holds.resolve(waiting.seq, Resolution(True, "approved", "user:me"))
    await asked
    await monitor.recorder.close()
    assert_whole(monitor, FIRST, [1, 2])


async def test_nothing_is_kept_from_being_erased_and_no_start_reads_back_for_who_was_put_aside(
    monitor: Monitor,
) -> None:
    await act(monitor, FIRST)
    await push_out(monitor)
    assert FIRST not in restore(monitor.store, lambda agent: monitor.policies[agent])
    await monitor.recorder.close()
    assert monitor.recorder.needed_from() == monitor.ledger.size
