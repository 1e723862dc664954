"""What BETs say together: gaps that close, forks, two histories; and what is then said of the agent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lictor.evidence.bet import Bet
from lictor.formats.errors import UsageError, VerificationError
from lictor.verifier.appraisal import References, appraise, check_sender
from lictor.verifier.ear import Submodule
from lictor.verifier.register import Register

ISSUER, AGENT, POLICY = "spiffe://x/monitor/m", "spiffe://x/agent/a", "urn:p"
NOW = 1000.0
EVERY_POLICY = References({})


def bet(jti: str, prev: str | None = None, at: float = 100.0, **changes: Any) -> Bet:
    ext = {
        "prev_bet": prev,
        "log_origin": "x/monitor/m",
        "checkpoint_size": int(at),
        "checkpoint_root": f"root-{int(at)}",
        "binding_digest": "d1",
        "binding_version": "1.0.0",
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
        "token": f"token-{jti}",
    }
    return Bet(**(given | changes))


@pytest.fixture
def register(tmp_path: Path) -> Register:
    return Register(tmp_path / "register.sqlite")


def take(register: Register, *bets: Bet, references: References = EVERY_POLICY) -> Submodule:
    for one in bets:
        register.add(one, *appraise(one, references), NOW)
    return register.appraisal(AGENT, NOW, 3600)


def whats(module: Submodule) -> list[str]:
    return [reason["what"] for reason in module.behavior["reasons"]]


def test_nothing_is_known_of_an_agent_without_evidence(register: Register) -> None:
    assert register.appraisal(AGENT, NOW, 3600) == Submodule("none", (), None, {"bets": 0, "reasons": []})


@pytest.mark.parametrize(
    ("result", "status"), [("pass", "affirming"), ("partial", "warning"), ("fail", "contraindicated")]
)
def test_the_result_is_the_status(register: Register, result: str, status: str) -> None:
    module = take(register, bet("a"), bet("b", "a", 110, result=result))
    assert (module.status, module.policies) == (status, (POLICY,))
    assert ("violations" in whats(module)) == (result != "pass")


def test_a_violation_is_past_when_its_window_is(register: Register) -> None:
    take(register, bet("a", result="fail"), bet("b", "a", 110))
    assert register.appraisal(AGENT, NOW, 895).status == "affirming"
    assert register.appraisal(AGENT, NOW, 901).status == "contraindicated"


def test_the_first_that_comes_may_be_any(register: Register) -> None:
    assert take(register, bet("c", "b")).status == "affirming"


def test_a_gap_is_one_until_it_is_closed(register: Register) -> None:
    first, middle, last = bet("a"), bet("b", "a", 110), bet("c", "b", 120)
    module = take(register, first, last)
    assert (module.status, whats(module)) == ("warning", ["gap"])
    assert take(register, middle).status == "affirming"


def test_on_demand_evidence_is_in_no_chain(register: Register) -> None:
    other = bet("d", None, 105, ext={"evaluation_mode": "on_demand"})
    assert take(register, bet("a"), other, bet("b", "a", 110)).status == "affirming"


@pytest.mark.parametrize(
    ("bets", "what"),
    [
        ([bet("a"), bet("b", "a", 110), bet("c", "a", 110)], "forked"),
        ([bet("a"), bet("b", "a", 110, start=99.0)], "not_contiguous"),
        ([bet("a"), bet("b", "a", 110, start=101.0)], "not_contiguous"),
        ([bet("a"), bet("b", None, 100, policy="urn:q", ext={"checkpoint_root": "other"})], "two_histories"),
    ],
)
def test_what_no_honest_monitor_says(register: Register, bets: list[Bet], what: str) -> None:
    module = take(register, *bets)
    assert module.status == "contraindicated"
    assert what in whats(module)
    assert register.appraisal(AGENT, NOW, 1).status == "contraindicated", "it does not pass with time"
    assert register.forgive(AGENT) == 1
    assert what not in whats(register.appraisal(AGENT, NOW, 3600))


def test_the_same_again_changes_nothing(register: Register) -> None:
    one = bet("a")
    assert register.add(one, *appraise(one, References({})), NOW)
    assert not register.add(one, *appraise(one, References({})), NOW)
    assert register.appraisal(AGENT, NOW, 3600).behavior["bets"] == 1


@pytest.mark.parametrize(
    ("references", "status", "what"),
    [
        ([(POLICY, "d1"), (POLICY, "d0")], "affirming", []),
        ([(POLICY, "d0")], "contraindicated", ["other_binding"]),
        ([("urn:q", "d1")], "warning", ["unknown_policy"]),
    ],
)
def test_reference_copies(register: Register, references: Any, status: str, what: list[str]) -> None:
    module = take(register, bet("a"), references=References.of(references))
    assert (module.status, whats(module)) == (status, what)


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    path = tmp_path / "register.sqlite"
    one = Register(path)
    take(one, bet("a"), bet("c", "b", 120))
    one.close()
    again = Register(path)
    assert whats(again.appraisal(AGENT, NOW, 3600)) == ["gap"]
    assert take(again, bet("b", "a", 110)).status == "affirming"
    assert path.stat().st_mode & 0o077 == 0


def test_what_is_old_is_dropped(register: Register) -> None:
    take(register, bet("a"), bet("b", "a", 200))
    assert register.forget(150) == 1
    assert register.appraisal(AGENT, NOW, 3600).behavior["bets"] == 1


def test_reasons_are_bounded(register: Register) -> None:
    many = [bet(f"j{n}", f"i{n}", 100 + n) for n in range(40)]
    module = take(register, *many)
    assert len(module.behavior["reasons"]) == 16
    assert module.behavior["reasons_omitted"] == 23


def test_a_file_that_is_no_register(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("this is no database, and longer than a header of one would be" * 20)
    with pytest.raises(UsageError, match="cannot be opened"):
        Register(path)


def test_a_monitor_speaks_for_itself_only() -> None:
    check_sender(bet("a"), ISSUER)
    with pytest.raises(VerificationError, match="was sent by spiffe://x/monitor/other"):
        check_sender(bet("a"), "spiffe://x/monitor/other")
