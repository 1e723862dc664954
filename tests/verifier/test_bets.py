"""Where BETs and keys are taken from, and what a report says."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest

from lictor.certs.domain import TrustDomain
from lictor.certs.evidence_keys import EvidenceKeys, evidence_jwk
from lictor.formats.errors import UsageError, VerificationError
from lictor.verifier.bets import find_tokens, parse_bet, take_keys, verify_bet

ONE = "spiffe://chain.test/monitor/one"


@pytest.fixture
def keys(chain_files: Any) -> EvidenceKeys:
    keys = EvidenceKeys(chain_files.ca.read_bytes())
    take_keys(keys, chain_files.one)
    return keys


def test_a_good_one(chain_files: Any, keys: EvidenceKeys) -> None:
    report = verify_bet(chain_files.refusal, keys, audience={ONE}, now=time.time())
    assert (report.ok, report.problem) == (True, None)
    assert report.to_json()["ext"]["refused"]["action_target"] == "https://evil.test/"
    assert report.to_json()["result"] == "fail"


def test_what_does_not_hold_is_said(chain_files: Any, keys: EvidenceKeys) -> None:
    for token, options, problem in [
        (chain_files.refusal, {"audience": {"spiffe://x.test/y"}}, "not for us"),
        (chain_files.refusal, {"now": time.time() + 9999}, "expired"),
        (chain_files.refusal[:-4] + "AAAA", {}, "signature"),
        (chain_files.delegation.execution_context[0], {}, "expected bet+jwt"),
        ("a.b.c", {}, "cannot be read"),
    ]:
        report = verify_bet(token, keys, **{"audience": None, "now": None, **options})
        assert not report.ok
        assert problem in str(report.problem)
        assert report.to_json() == {"ok": False, "problem": report.problem, "token": token}


def test_a_key_of_another_monitor_does_not_do(chain_files: Any) -> None:
    keys = EvidenceKeys(chain_files.ca.read_bytes())
    take_keys(keys, chain_files.two)
    report = verify_bet(chain_files.refusal, keys, audience=None, now=None)
    assert f"of '{ONE}' is known" in str(report.problem)


def test_a_token_comes_in_many_ways(chain_files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = chain_files.refusal
    response = f"HTTP/1.1 403 Forbidden\r\nContent-Type: a/b\r\nbehavioral-evidence: {token}\r\n\r\n{{}}\r\n"
    (tmp_path / "token").write_text(token + "\n")
    (tmp_path / "response").write_text(response)
    (tmp_path / "verbose").write_text(f"< Behavioral-Evidence: {token}\n< X: a.b.c\n")
    for source in (
        token,
        f" {token}\n",
        f"Behavioral-Evidence: {token}",
        f"behavioral-evidence:{token}",
        *(str(tmp_path / name) for name in ("token", "response", "verbose")),
    ):
        assert find_tokens(source) == [token]
    monkeypatch.setattr("sys.stdin", io.StringIO(response))
    assert find_tokens("-") == [token]
    assert find_tokens(f"Behavioral-Evidence: {token}, {token}") == [token, token]


def test_all_bets_of_an_evidence_file(chain_files: Any) -> None:
    tokens = find_tokens(str(chain_files.one))
    assert tokens[0] == chain_files.refusal
    assert tokens == find_tokens(str(chain_files.folder / "one.db"))
    assert all(parse_bet(token).issuer == ONE for token in tokens)


@pytest.mark.parametrize("source", ["nothing", "x" * 5000, "a\x00b", ""])
def test_no_source(source: str) -> None:
    with pytest.raises(UsageError, match="neither a token, nor a Behavioral-Evidence line, nor a file"):
        find_tokens(source)


def test_no_token_in_a_source(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("hello\n")
    with pytest.raises(UsageError, match="there is no token in"):
        find_tokens(str(tmp_path / "x"))


def test_keys_come_in_many_forms(chain_files: Any, tmp_path: Path) -> None:
    pem = chain_files.ca.parent / "monitors" / "one" / "evidence.pem"
    jwk = evidence_jwk(pem.read_bytes())
    (tmp_path / "jwk").write_text(json.dumps(jwk, indent=2))
    (tmp_path / "set").write_text(json.dumps({"keys": [jwk]}))
    for path in (pem, tmp_path / "jwk", tmp_path / "set", chain_files.one, chain_files.folder / "one.db"):
        keys = EvidenceKeys(chain_files.ca.read_bytes())
        take_keys(keys, path)
        assert keys.jwks() == [jwk]


def test_what_holds_no_key(chain_files: Any, tmp_path: Path) -> None:
    keys = EvidenceKeys(chain_files.ca.read_bytes())
    for number, text in enumerate(["", "{}x", "[]", '{"keys":5}', "-----BEGIN CERTIFICATE-----\nx"]):
        path = tmp_path / str(number)
        path.write_text(text)
        with pytest.raises(UsageError, match="holds no evidence key"):
            take_keys(keys, path)


def test_a_key_that_the_ca_does_not_vouch_for(chain_files: Any, tmp_path: Path) -> None:
    other = TrustDomain.create(tmp_path / "trust", "chain.test")
    with pytest.raises(VerificationError, match="not signed by the identity CA"):
        take_keys(EvidenceKeys(other.identity_ca.read_bytes()), chain_files.one)
