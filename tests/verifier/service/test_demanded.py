"""BETs on demand: computed again from the log when they are issued, and once more when they are verified."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from lictor.evidence.bet import EMPTY_EVIDENCE, Bet
from lictor.evidence.demand import Demands
from lictor.evidence.issuer import Issuer
from lictor.evidence.ledger import Ledger
from lictor.evidence.recorder import Recorder
from lictor.evidence.retention import BY_HAND, Retention
from lictor.evidence.sqlite_store import SqliteReader
from lictor.evidence.windows import Window
from lictor.formats.errors import UsageError
from lictor.formats.keys import KeySigner
from lictor.verifier.bets import parse_bet
from lictor.verifier.log import verify_log

ALPHA, BETA = "spiffe://example.test/agent/alpha", "spiffe://example.test/agent/beta"
DATA = "urn:p:data"


@dataclass
class Demanding:
    """A running log with a past, and BETs on demand over it."""

    log: Any
    ledger: Ledger
    issuer: Issuer
    demands: Demands
    recorder: Recorder

    async def demand(self, *args: Any) -> list[Bet]:
        return [parse_bet(token) for token in await self.demands.issue(*args)]

    def verdict(self) -> tuple[str, str]:
        report = verify_log(self.log.ledger, self.log.ca)
        return report.verdict, str(report.problem or "")

    def issued(self, policy: str = DATA, agent: str = ALPHA) -> list[Bet]:
        reader = SqliteReader(self.log.ledger)
        found = [parse_bet(row.token) for row in reader.bets(agent, policy)]
        reader.close()
        return found


@pytest.fixture
async def demanding(log: Any, running: Callable[[], Any]) -> AsyncIterator[Demanding]:
    ledger, recorder = running()
    signer = KeySigner.from_file(log.trust.path / "monitors" / "one" / "evidence.key")
    issuer = Issuer(ledger, signer, "spiffe://example.test/monitor/one", ("spiffe://example.test/verifier",))
    policies = recorder._agents._policies_for
    yield Demanding(log, ledger, issuer, Demands(ledger, issuer, policies, lambda: SqliteReader(log.ledger)), recorder)
    await ledger.close()


async def test_over_the_window_of_a_bet_it_says_the_same(demanding: Demanding) -> None:
    chained = demanding.issued()
    compared = set()
    for one in chained:
        [again] = await demanding.demand(ALPHA, DATA, one.start, one.end)
        assert (again.evidence, again.start, again.end) == (one.evidence, one.start, one.end)
        assert again.ext["count"] == one.ext["count"]
        in_doubt = {"default_denied", "unjudged"} & {*one.ext}  # verdicts of bindings that were just being exchanged
        same_binding = again.ext["binding_digest"] == one.ext["binding_digest"]  # not so where nothing was judged
        if same_binding and "binding_versions" not in again.ext and not in_doubt:
            assert (again.result, again.details) == (one.result, one.details)
            compared.add(again.result)
    assert compared == {"pass", "partial", "fail"}
    assert demanding.verdict() == ("intact", "")


async def test_it_stands_beside_the_chain(demanding: Demanding) -> None:
    chain = [one.jti for one in demanding.issued()]
    [whole] = await demanding.demand(ALPHA, DATA)
    assert (whole.ext["trigger"], whole.ext["evaluation_mode"], whole.ext["prev_bet"]) == ("demand", "on_demand", None)
    assert whole.jti not in chain
    every = await demanding.demand(ALPHA)
    assert [one.policy for one in every] == [DATA, "urn:p:tools"]
    assert {one.evidence for one in every} == {every[0].evidence}, "the same entries under each policy"
    assert demanding.verdict() == ("intact", "")


async def test_the_versions_of_a_binding_are_all_named(demanding: Demanding) -> None:
    [whole] = await demanding.demand(ALPHA, DATA)
    assert sorted(whole.ext["binding_versions"].values()) == ["1.0.0", "1.1.0"]
    assert whole.result == "fail", "`writes` is critical in the later version, and was violated"


async def test_an_idle_window_and_an_agent_under_default_deny(demanding: Demanding) -> None:
    first = demanding.issued()[0].start
    [idle] = await demanding.demand(ALPHA, DATA, 1000.0, first - 1)
    assert (idle.evidence, idle.ext["count"], idle.result) == (EMPTY_EVIDENCE, 0, "pass")
    [denied] = await demanding.demand(BETA)
    assert (denied.policy, denied.result) == ("urn:lictor:policy:default-deny", "fail")
    assert demanding.verdict() == ("intact", "")


async def test_what_cannot_be_demanded(demanding: Demanding) -> None:
    now = demanding.ledger.now()
    for args, message in [
        ((ALPHA, None, None, now + 100), "which is to come"),
        ((ALPHA, None, now - 1, now - 2), "reversed or empty"),
        ((ALPHA, "urn:p:unknown"), "it has urn:lictor:policy:default-deny, urn:p:data, urn:p:more, urn:p:tools"),
        (("spiffe://example.test/agent/nobody",), "no entry of spiffe://example.test/agent/nobody"),
        (("spiffe://example.test/agent/nobody", None, 1.0), "no entry of spiffe://example.test/agent/nobody at all"),
        ((ALPHA, None, None, 1000.0), "no entry of spiffe://example.test/agent/alpha before 1000"),
    ]:
        with pytest.raises(UsageError, match=message):
            await demanding.demand(*args)
    assert demanding.verdict() == ("intact", "")


async def test_what_is_erased_cannot_be_vouched_for_again(demanding: Demanding) -> None:
    [whole] = await demanding.demand(ALPHA, DATA)
    cut = whole.start + (whole.end - whole.start) / 2
    monitor = "spiffe://example.test/monitor/one"
    keeping = Retention(demanding.ledger, demanding.ledger._store, monitor, demanding.recorder.needed_from)
    await keeping.erase(cut, BY_HAND)
    with pytest.raises(UsageError, match="are erased, so nothing can be said of"):
        await demanding.demand(ALPHA, DATA, whole.start)
    [rest] = await demanding.demand(ALPHA, DATA)
    assert whole.start < rest.start
    assert rest.ext["first_seq"] > whole.ext["first_seq"]
    [again] = await demanding.demand(ALPHA, DATA, rest.start)
    assert (again.evidence, again.start) != (whole.evidence, whole.start)
    assert demanding.verdict() == ("intact", "")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("an entry left out", "count of BET"),
        ("a violation left out", "bhv_details of BET"),
        ("an entry of somebody else", "bhv_evidence of BET"),
        ("a version left out", "binding_versions of BET"),
    ],
)
async def test_a_signed_lie_is_found(
    demanding: Demanding, monkeypatch: pytest.MonkeyPatch, spoil: str, message: str
) -> None:
    issue = demanding.issuer.issue_past

    def lie(window: Window, place: Any, end: float, now: float, versions: dict[str, str]) -> str:
        if spoil == "an entry left out":
            window.count -= 1
        elif spoil == "a violation left out":
            window.tallies["writes"].violations -= 1
        elif spoil == "an entry of somebody else":
            window._hash.update(b",{}")
        else:
            versions.popitem()
        return issue(window, place, end, now, versions)

    monkeypatch.setattr(demanding.issuer, "issue_past", lie)
    await demanding.demand(ALPHA, DATA)
    verdict, problem = demanding.verdict()
    assert verdict == "bad"
    assert problem.startswith(message)
