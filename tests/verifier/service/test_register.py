"""What BETs say together: gaps that close, forks, two histories; and what is then said of the agent."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from lictor.evidence.bet import Bet
from lictor.formats.errors import UsageError
from lictor.verifier.service.appraisal import References
from lictor.verifier.service.ear import Submodule
from lictor.verifier.service.register import Register, Span

ISSUER, AGENT, POLICY = "spiffe://x/monitor/m", "spiffe://x/agent/a", "urn:p"
OTHER = "spiffe://x/monitor/other"
NOW = 1000.0


def bet(jti: str, prev: str | None = None, at: float = 100.0, **changes: Any) -> Bet:
    """A BET over the ten seconds before `at`."""
    ext = {
        "prev_bet": prev,
        "checkpoint_size": int(at),
        "checkpoint_root": f"root-{int(at)}",
        "binding_digest": "d1",
        "count": 3,
    } | changes.pop("ext", {})
    given = {
        "issuer": ISSUER,
        "subject": AGENT,
        "audience": (),
        "jti": jti,
        "iat": int(at),
        "exp": int(at) + 3600,
        "wid": "w",
        "parents": ("n",),
        "policy": POLICY,
        "result": "pass",
        "evidence": "e",
        "start": at - 10,
        "end": at,
        "details": (),
        "ext": ext,
        "token": f"head.{jti}-{sorted(changes.items())}.signature",
    }
    return Bet(**(given | changes))


@pytest.fixture
def register(tmp_path: Path) -> Register:
    return Register(tmp_path / "register.sqlite")


def take(register: Register, *bets: Bet, references: References | None = None) -> Submodule:
    for one in bets:
        register.add([one], NOW)
    return said(register, references)


def said(register: Register, references: References | None = None, period: float = 3600) -> Submodule:
    return register.appraisal(AGENT, Span.last(period, NOW), references or References())


def whats(module: Submodule) -> list[str]:
    return [reason["what"] for reason in module.behavior["reasons"]]


def test_nothing_is_known_of_an_agent_without_evidence(register: Register) -> None:
    behavior = {"bets": 0, "entries": 0, "monitors": [], "reasons": []}
    assert said(register) == Submodule("none", (), behavior)


def test_what_is_said(register: Register) -> None:
    module = take(register, bet("a"), bet("b", "a", 110))
    behavior = {"bets": 2, "entries": 6, "monitors": [ISSUER], "reasons": [], "until": 110.0}
    assert module == Submodule("affirming", (POLICY,), behavior)


@pytest.mark.parametrize(
    ("result", "status"), [("pass", "affirming"), ("partial", "warning"), ("fail", "contraindicated")]
)
def test_the_result_is_the_status(register: Register, result: str, status: str) -> None:
    module = take(register, bet("a"), bet("b", "a", 110, result=result), bet("c", "b", 120))
    assert (module.status, module.policies) == (status, (POLICY,))
    assert ("violations" in whats(module)) == (result != "pass")


def test_a_violation_is_past_when_its_window_is(register: Register) -> None:
    take(register, bet("a", result="fail"), bet("b", "a", 110))
    assert said(register, period=895).status == "affirming"
    assert said(register, period=901).status == "contraindicated"


def test_the_first_that_comes_may_be_any(register: Register) -> None:
    assert take(register, bet("c", "b")).status == "affirming"


CHAIN = (bet("a"), bet("b", "a", 110), bet("c", "b", 120))


@pytest.mark.parametrize("order", list(itertools.permutations(CHAIN)), ids=lambda o: "".join(one.jti for one in o))
def test_in_whatever_order_they_come_all_is_well_in_the_end(register: Register, order: tuple[Bet, ...]) -> None:
    assert take(register, *order).status == "affirming"


@pytest.mark.parametrize("order", [(0, 2), (2, 0)])
def test_a_gap_is_one_until_it_is_closed(register: Register, order: tuple[int, ...]) -> None:
    module = take(register, *(CHAIN[number] for number in order))
    assert (module.status, whats(module)) == ("warning", ["gap"])
    assert take(register, CHAIN[1]).status == "affirming"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_chain_that_begins_anew(register: Register, order: tuple[int, ...]) -> None:
    bets = (bet("a"), bet("z", None, 200))
    module = take(register, *(bets[number] for number in order))
    assert (module.status, whats(module)) == ("warning", ["restarted"])


def test_on_demand_evidence_is_in_no_chain(register: Register) -> None:
    other = bet("d", None, 105, start=20.0, ext={"evaluation_mode": "on_demand"})
    assert take(register, bet("a"), other, bet("b", "a", 110)).status == "affirming"
    assert take(register, bet("e", None, 300, ext={"evaluation_mode": "on_demand"})).status == "affirming"


def test_on_demand_evidence_counts_once(register: Register) -> None:
    """It covers the period before it was asked for: a violation of then must not count for another one."""
    take(register, bet("d", None, 900, start=400.0, result="fail", ext={"evaluation_mode": "on_demand"}))
    assert said(register, period=600).status == "contraindicated"
    assert said(register, period=545).status == "contraindicated"
    assert said(register, period=500).status == "none"


LIES = {
    "forked": [bet("a"), bet("b", "a", 110), bet("c", "a", 110)],
    "not_contiguous, early": [bet("a"), bet("b", "a", 110, start=99.0)],
    "not_contiguous, late": [bet("a"), bet("b", "a", 110, start=101.0)],
    "overlapping": [bet("a"), bet("z", None, 105)],
    "crossed, policy": [bet("a", policy="urn:q"), bet("b", "a", 110)],
    "crossed, agent": [bet("a", subject="spiffe://x/agent/b"), bet("b", "a", 110)],
    "two_histories": [bet("a"), bet("b", None, 100, policy="urn:q", ext={"checkpoint_root": "other"})],
    "log_shrank": [bet("a"), bet("b", "a", 110, ext={"checkpoint_size": 90})],
    "equivocated": [bet("a"), bet("a", result="partial")],
}


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("lie", LIES)
def test_what_no_honest_monitor_says(register: Register, lie: str, backwards: bool) -> None:
    bets = LIES[lie][::-1] if backwards else LIES[lie]
    what = lie.partition(",")[0]
    found = register.add(bets, NOW)
    assert any(one.contradictions for one in found)
    module = said(register)
    if "agent" in lie and backwards:
        # It is told of the one whose BET brought it to light.
        module = register.appraisal("spiffe://x/agent/b", Span.last(3600, NOW), References())
    assert module.status == "contraindicated"
    assert what in whats(module)
    assert register.forgive(OTHER) == []
    assert register.forgive(ISSUER)
    assert what not in whats(said(register))


def test_a_contradiction_does_not_pass_with_time(register: Register) -> None:
    take(register, *LIES["forked"])
    assert said(register, period=1).status == "contraindicated"


def test_a_log_with_two_histories_discredits_all_that_it_says(register: Register) -> None:
    take(register, *LIES["two_histories"])
    third = "spiffe://x/agent/c"
    assert register.appraisal(third, Span.last(3600, NOW), References()).status == "none"
    register.add([bet("k", subject=third, at=300)], NOW)
    assert register.appraisal(third, Span.last(3600, NOW), References()).status == "contraindicated"


def test_one_monitor_cannot_speak_into_the_chains_of_another(register: Register) -> None:
    """Ids, predecessors and roots count within one monitor: a stranger who knows them keeps nothing out and in."""
    take(register, bet("a"), bet("c", "b", 120))
    stranger = bet("b", "a", 110, issuer=OTHER), bet("d", None, 130, issuer=OTHER, policy="urn:q")
    root = bet("y", None, 100, issuer=OTHER, policy="urn:r", ext={"checkpoint_root": "false"})
    assert not any(one.contradictions for one in register.add([*stranger, root], NOW))
    take(register, bet("e", "d", 140, policy="urn:q"), bet("f", "e", 150, policy="urn:q"), bet("a2", policy="urn:q"))
    before = [reason["text"].split()[3] for reason in said(register).behavior["reasons"] if reason["what"] == "gap"]
    assert sorted(before) == ["c", "e"], "nothing of the stranger's stands for what is missing"
    assert register.add([bet("b", "a", 110, result="fail")], NOW)[0].new
    assert said(register).status == "contraindicated"


def test_the_same_again_changes_nothing(register: Register) -> None:
    one = bet("a")
    assert [taken.new for taken in register.add([one, one], NOW)] == [True, False]
    assert not register.add([one], NOW)[0].new
    assert said(register).behavior["bets"] == register.count() == 1


KNOWN = References({POLICY: frozenset({"d1", "d0"})}, {POLICY: ((),)})


@pytest.mark.parametrize(
    ("references", "status", "what"),
    [
        (KNOWN, "affirming", []),
        (References({POLICY: frozenset({"d0"})}), "contraindicated", ["other_binding"]),
        (References({"urn:q": frozenset({"d1"})}), "warning", ["unknown_policy"]),
        (References({**KNOWN.digests, "urn:q": frozenset()}, {"urn:q": ((AGENT,),)}), "warning", ["policy_missing"]),
        (References({**KNOWN.digests, "urn:q": frozenset()}, {"urn:q": (("spiffe://x/b",),)}), "affirming", []),
    ],
)
def test_reference_copies(register: Register, references: References, status: str, what: list[str]) -> None:
    module = take(register, bet("a"), references=references)
    assert (module.status, whats(module)) == (status, what)


def test_every_version_that_judged_must_be_known(register: Register) -> None:
    ext = {"evaluation_mode": "on_demand", "binding_versions": {"d1": "1.0.0", "d9": "2.0.0"}}
    assert whats(take(register, bet("a", ext=ext), references=KNOWN)) == ["other_binding"]


def test_what_the_monitor_denies_by_default_needs_no_reference(register: Register) -> None:
    module = take(register, bet("a", policy="urn:lictor:policy:default-deny", result="fail"), references=KNOWN)
    assert whats(module) == ["violations", "policy_missing"]


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    path = tmp_path / "register.sqlite"
    one = Register(path)
    take(one, bet("a"), bet("c", "b", 120))
    one.close()
    again = Register(path)
    assert whats(said(again)) == ["gap"]
    assert take(again, bet("b", "a", 110)).status == "affirming"
    assert path.stat().st_mode & 0o077 == 0


def test_what_is_old_is_dropped(register: Register) -> None:
    take(register, bet("a"), bet("b", "a", 200, start=100.0))
    assert register.forget(150) == 1
    assert said(register).behavior["bets"] == 1
    assert take(register, bet("c", "b", 210)).status == "affirming"


def test_what_is_said_and_kept_is_bounded(register: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lictor.verifier.service.contradictions.MAX_KEPT", 5)
    many = [bet(f"j{n}", f"i{n}", 100 + n, policy="urn:" + "p" * 2000) for n in range(40)]
    module = take(register, *many)
    assert len(module.behavior["reasons"]) == 8
    assert max(len(reason["text"]) for reason in module.behavior["reasons"]) <= 201
    assert len(register.forgive(ISSUER)) == 5


def test_who_uses_up_what_is_kept_is_believed_nothing(register: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a monitor would contradict itself about an agent that does not exist, and then about others unnoticed."""
    monkeypatch.setattr("lictor.verifier.service.contradictions.MAX_KEPT", 5)
    nobody = [bet(f"j{n}", f"i{n}", 100 + n, subject="spiffe://x/agent/nobody") for n in range(5)]
    assert whats(take(register, bet("a", at=300), *nobody)) == []
    take(register, *(bet(f"k{n}", f"i{n}", 100 + n, subject="spiffe://x/agent/nobody") for n in range(5)))
    assert said(register).status == "contraindicated"
    assert len(register.forgive(ISSUER)) == 5


def test_a_file_that_is_no_register(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("this is no database, and longer than a header of one would be" * 20)
    with pytest.raises(UsageError, match="cannot be opened"):
        Register(path)
