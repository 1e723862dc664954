"""One BET by itself: what it says of its agent, and whether its sender may say it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from pushed import Pusher

from lictor.certs.domain import TrustDomain
from lictor.evidence.bet import Bet
from lictor.formats.errors import VerificationError
from lictor.verifier.bets import parse_bet
from lictor.verifier.service.appraisal import NotYet, appraise, check_sent

ONE = "spiffe://p.test/monitor/one"


@pytest.fixture(scope="module")
def pusher(tmp_path_factory: pytest.TempPathFactory) -> Pusher:
    domain = TrustDomain.create(tmp_path_factory.mktemp("appraisal") / "trust", "p.test")
    return Pusher(domain.add_monitor("one"), "spiffe://p.test/agent/a")


def made(pusher: Pusher, **changes: Any) -> Bet:
    return parse_bet(pusher.bet(**changes))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({}, None),
        ({"iss": "spiffe://p.test/monitor/two"}, "and was sent by"),
        ({"ext": {"log_origin": "p.test/monitor/two"}}, "about the log p.test/monitor/two"),
        ({"ext": {"log_origin": None}}, "about the log None"),
        ({"ext": {"checkpoint_root": None}}, "does not name the tree"),
    ],
)
def test_a_monitor_speaks_for_itself_only(pusher: Pusher, changes: dict[str, Any], what: str | None) -> None:
    one = made(pusher, **changes)
    if what is None:
        check_sent(one, ONE, time.time())
        with pytest.raises(NotYet):
            check_sent(one, ONE, time.time() - 3600)
    else:
        with pytest.raises(VerificationError, match=what):
            check_sent(one, ONE, time.time())


def test_what_was_violated_and_prevented_is_named(pusher: Pusher) -> None:
    failed = {"behavior_id": "no-secrets", "result": "fail", "prevented": 3, "evaluated": 5, "violations": 3}
    fine = {"behavior_id": "hours", "result": "pass", "prevented": True}
    status, reasons = appraise(made(pusher, bhv_result="partial", bhv_details=[failed, fine]))
    assert (status, [reason.what for reason in reasons]) == ("warning", ["violations"])
    assert reasons[0].text == "the result under urn:p is partial; 3 violations were prevented, of no-secrets"


def test_a_log_that_a_power_cut_may_shorten_says_so(pusher: Pusher) -> None:
    status, reasons = appraise(made(pusher, ext={"durability": "os"}))
    assert (status, [reason.what for reason in reasons]) == ("affirming", ["durability_os"])
