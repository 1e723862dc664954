"""What a BET says of its window is computed again from the log; what it says otherwise is found."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from lictor.formats import base64url, jws
from lictor.formats.canonical import canonical
from lictor.formats.keys import KeySigner
from lictor.verifier.log import verify_log
from lictor.verifier.report import LogReport


def where(lines: list[bytes], kind: str) -> list[int]:
    return [number for number, line in enumerate(lines) if line.startswith(b'{"%s":' % kind.encode())]


def claims_of(line: bytes) -> dict[str, Any]:
    token = orjson.loads(line)["bet"]
    return jws.parse_compact(token, typ=frozenset({"bet+jwt"})).claims()


def bets_of_one_chain(lines: list[bytes]) -> list[int]:
    chain = [n for n in where(lines, "bet") if claims_of(lines[n])["bhv_policy"] == "urn:p:data"]
    assert len(chain) > 4
    return chain


@pytest.mark.parametrize("position", [0, 2])
def test_a_missing_bet_is_a_gap(lines: list[bytes], verify: Callable[..., LogReport], position: int) -> None:
    chain = bets_of_one_chain(lines)
    removed, after = claims_of(lines[chain[position]]), claims_of(lines[chain[position + 1]])
    report = verify([line for number, line in enumerate(lines) if number != chain[position]])
    assert (report.verdict, report.exit_code) == ("gap", 3)
    assert report.problem is not None
    assert f"is missing before BET {after['jti']}" in report.problem.what
    assert report.problem.expected == removed["jti"]


def test_a_chain_that_begins_anew_hides_no_entries_before_it(
    lines: list[bytes], verify: Callable[..., LogReport]
) -> None:
    """Without the chains before it no BET names one that is missing, and the entries are in the window of none."""
    of_agent = {n: claims for n in where(lines, "bet") if (claims := claims_of(lines[n]))["sub"].endswith("/alpha")}
    last = max(n for n, claims in of_agent.items() if claims["ext"]["prev_bet"] is None)
    kept = of_agent[last]
    before = {n for n, claims in of_agent.items() if n < last or claims["bhv_policy"] != kept["bhv_policy"]}
    first = min(claims["ext"]["first_seq"] for claims in of_agent.values())
    report = verify([line for number, line in enumerate(lines) if number not in before])
    assert (report.verdict, report.exit_code) == ("gap", 3)
    assert report.problem is not None
    assert (report.problem.seq, report.problem.expected) == (first, f"a BET over entry {first}")
    assert f"although BET {kept['jti']} is of a later one" in report.problem.what
    assert verify([line for number, line in enumerate(lines) if number not in of_agent]).verdict == "intact"


def partial_bet(lines: list[bytes]) -> tuple[int, dict[str, Any]]:
    """The line and claims of a BET over several entries, not the first of its chain, with the result partial."""
    for number in bets_of_one_chain(lines)[1:]:
        claims = claims_of(lines[number])
        if claims["ext"]["count"] > 1 and claims["bhv_result"] == "partial":
            return number, claims
    raise AssertionError("the log has no such BET")


def without_first_entry(lines: list[bytes], claims: dict[str, Any]) -> dict[str, Any]:
    """The claims over the same window as if its first entry were not there."""
    start, end = claims["bhv_window"]["start"], claims["bhv_window"]["end"]
    entries = [orjson.loads(lines[number])["entry"] for number in where(lines, "entry")]
    of_agent = [e for e in entries if e["agent_id"] == claims["sub"] and start <= e["timestamp"] < end][1:]
    evidence = base64url.encode(hashlib.sha256(canonical(of_agent)).digest())
    return {"bhv_evidence": evidence, "ext.first_seq": of_agent[0]["seq"], "ext.count": len(of_agent)}


BET_FORGERIES: dict[str, tuple[dict[str, Any], str]] = {
    "count": ({"ext.count": 1}, "count of BET"),
    "the first entries left out": ({"leave out": 1}, "count of BET"),
    "first_seq": ({"ext.first_seq": 1}, "first_seq of BET"),
    "evidence": ({"bhv_evidence": "T1PNoYwrqgwDVLtfmj7L5e0Sq02OEbqHPC8RFhICuUU"}, "bhv_evidence of BET"),
    "result": ({"bhv_result": "pass", "bhv_details": []}, "bhv_details of BET"),
    "result, details as they are": ({"bhv_result": "fail"}, "bhv_result of BET"),
    "unjudged": ({"ext.unjudged": 3}, "unjudged of BET"),
    "root": ({"ext.checkpoint_root": "T1PNoYwrqgwDVLtfmj7L5e0Sq02OEbqHPC8RFhICuUU"}, "one of the entries"),
    "size too small": ({"ext.checkpoint_size": 0}, "rests on too small a tree"),
    "size as text": ({"ext.checkpoint_size": "9"}, "'checkpoint_size'"),
    "no root": ({"ext.checkpoint_root": None}, "does not say where it lies"),
    "another log": ({"ext.log_origin": "example.test/monitor/two"}, "is of another log"),
    "another binding": ({"ext.binding_digest": "x" * 43}, "the binding of BET"),
    "overlap": ({"bhv_window.start": 1.0, "ext.prev_bet": None}, "overlaps the one before it"),
    "wrong issuer": ({"iss": "spiffe://example.test/monitor/two"}, "no key"),
}


@pytest.mark.parametrize("forgery", BET_FORGERIES)
def test_what_a_bet_says_is_computed_again(
    lines: list[bytes], verify: Callable[..., LogReport], evidence_signer: KeySigner, forgery: str
) -> None:
    number, claims = partial_bet(lines)
    changes, message = BET_FORGERIES[forgery]
    if "leave out" in changes:
        changes = without_first_entry(lines, claims)
    for path, value in changes.items():
        *folders, name = path.split(".")
        members = claims[folders[0]] if folders else claims
        members[name] = value
    token = jws.sign_compact({"typ": "bet+jwt"}, canonical(claims), evidence_signer)
    report = verify([*lines[:number], canonical({"bet": token}) + b"\n", *lines[number + 1 :]])
    assert (report.verdict, report.exit_code) == ("bad", 1)
    assert message in str(report.problem)


def test_no_bet_can_hide_what_was_not_judged(
    lines: list[bytes], verify: Callable[..., LogReport], evidence_signer: KeySigner
) -> None:
    found = set()
    for number in where(lines, "bet"):
        claims = claims_of(lines[number])
        hidden = {name for name in ("default_denied", "unjudged") if claims["ext"].pop(name, 0)}
        if not hidden:
            continue
        found |= hidden
        results = {item["result"] for item in claims["bhv_details"]} - {"not-run"}
        claims["bhv_result"] = "pass" if results <= {"pass"} else "fail" if results == {"fail"} else "partial"
        token = jws.sign_compact({"typ": "bet+jwt"}, canonical(claims), evidence_signer)
        report = verify([*lines[:number], canonical({"bet": token}) + b"\n", *lines[number + 1 :]])
        assert (report.verdict, hidden & {str(report.problem).split()[0]}) != ("bad", set())
        assert report.verdict == "bad"
    assert found == {"default_denied", "unjudged"}


def test_a_prefix_checks_the_bets_that_it_holds(
    lines: list[bytes], verify: Callable[..., LogReport], evidence_signer: KeySigner
) -> None:
    whole = verify(lines)
    nearly = verify(lines[:-1])
    assert (nearly.bets, nearly.bets_beyond) == (whole.bets, 0)
    half = verify(lines[:-20])
    assert 0 < half.bets < half.bets + half.bets_beyond == whole.bets
    last = max(where(lines, "bet"), key=lambda n: claims_of(lines[n])["ext"]["checkpoint_size"])
    claims = claims_of(lines[last])
    claims["ext"]["count"] += 1
    claims["ext"]["first_seq"] -= 1
    token = jws.sign_compact({"typ": "bet+jwt"}, canonical(claims), evidence_signer)
    spoilt = [*lines[:last], canonical({"bet": token}) + b"\n", *lines[last + 1 :]]
    assert verify(spoilt[:-20]).verdict == "prefix_only"
    report = verify(spoilt[:-1])
    assert (report.verdict, str(report.problem).split()[0]) == ("bad", "count")


def test_a_moved_window_start_is_a_gap(
    lines: list[bytes], verify: Callable[..., LogReport], evidence_signer: KeySigner
) -> None:
    number = bets_of_one_chain(lines)[1]
    claims = claims_of(lines[number])
    claims["bhv_window"]["start"] += 0.000001
    token = jws.sign_compact({"typ": "bet+jwt"}, canonical(claims), evidence_signer)
    report = verify([*lines[:number], canonical({"bet": token}) + b"\n", *lines[number + 1 :]])
    assert report.verdict == "gap"


async def test_bindings_exchanged_while_nothing_ran(log: Any, running: Any) -> None:
    ledger, recorder = running()
    await log.work(recorder, 2)
    await ledger.close()
    log.applying[:] = log.later
    for _ in range(2):
        ledger, recorder = running()
        await ledger.commit()
        assert verify_log(log.ledger, log.ca).problem is None
        await log.work(recorder, 2)
        await recorder.close()
        await ledger.close()
        assert verify_log(log.ledger, log.ca).problem is None
