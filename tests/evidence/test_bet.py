"""BETs: the rule of results, and every bad token refused by name."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from lictor.evidence import bet
from lictor.evidence.bet import Tally
from lictor.evidence.claims import KeyResolver
from lictor.formats import base64url
from lictor.formats.errors import VerificationError
from lictor.formats.keys import KeySigner

MONITOR, AGENT, VERIFIER = (
    "spiffe://example.test/monitor/one",
    "spiffe://example.test/agent/a",
    "spiffe://example.test/verifier",
)
NOW = 1_790_000_000.25
CLAIMS: dict[str, Any] = {
    "iss": MONITOR,
    "sub": AGENT,
    "aud": [VERIFIER],
    "iat": int(NOW),
    "exp": int(NOW) + 3600,
    "jti": "550e8400-e29b-41d4-a716-446655440000",
    "wid": "a0b1c2d3-e4f5-6789-abcd-ef0123456789",
    "exec_act": "behavioral_verification",
    "par": ["650e8400-e29b-41d4-a716-446655440000"],
    "pred": ["650e8400-e29b-41d4-a716-446655440000"],
    "bhv_policy": "urn:example:policy:data-access",
    "bhv_result": "pass",
    "bhv_evidence": bet.EMPTY_EVIDENCE,
    "bhv_window": {"start": NOW - 60, "end": NOW},
    "bhv_details": [{"behavior_id": "bhv-001", "result": "pass"}],
    "ext": {"log_origin": "example.test/monitor/one", "first_seq": 5, "count": 0, "checkpoint_size": 5},
}


def verify(token: str, keys: KeyResolver, **options: Any) -> bet.Bet:
    return bet.verify(token, keys, **{"now": NOW, "audience": {VERIFIER}, **options})


def test_a_good_one(signer: KeySigner, keys: KeyResolver) -> None:
    token = bet.issue(CLAIMS, signer)
    found = verify(token, keys, peer=MONITOR)
    assert (found.issuer, found.subject, found.policy, found.result) == (MONITOR, AGENT, CLAIMS["bhv_policy"], "pass")
    assert (found.start, found.end) == (NOW - 60, NOW)
    assert found.parents == (CLAIMS["pred"][0],)
    assert found.ext == CLAIMS["ext"]
    assert jwt.get_unverified_header(token)["typ"] == "bet+jwt"
    unchecked = {"verify_iat": False, "verify_exp": False}
    assert jwt.decode(token, signer.public_key(), ["EdDSA"], audience=VERIFIER, options=unchecked) == CLAIMS


def test_the_claims_of_the_draft_are_read_from_the_extension_object_too(
    forge: Callable[..., str], keys: KeyResolver
) -> None:
    top = {k: v for k, v in CLAIMS.items() if not k.startswith("bhv_")}
    behavioral = {k: v for k, v in CLAIMS.items() if k.startswith("bhv_")}
    assert verify(forge({"typ": "bet+jwt"}, {**top, "ext": behavioral}), keys).policy == CLAIMS["bhv_policy"]
    with pytest.raises(VerificationError, match="'bhv_policy' stands at top level and in the extension"):
        verify(forge({"typ": "bet+jwt"}, {**CLAIMS, "ext": {"bhv_policy": "urn:x"}}), keys)


def with_(**changes: Any) -> dict[str, Any]:
    return {**CLAIMS, **changes}


def without(name: str) -> dict[str, Any]:
    return {k: v for k, v in CLAIMS.items() if k != name}


@pytest.mark.parametrize(
    ("header", "claims", "message"),
    [
        pytest.param({"typ": "JWT"}, CLAIMS, "typ is 'JWT', expected bet\\+jwt", id="wrong typ"),
        pytest.param({"typ": "exec+jwt"}, CLAIMS, "typ is 'exec\\+jwt', expected bet\\+jwt", id="typ of an ECT"),
        pytest.param({"typ": None}, CLAIMS, "typ is None", id="no typ"),
        pytest.param({"kid": "x"}, CLAIMS, "no key 'x'", id="unknown key"),
        pytest.param({"crit": ["exp"]}, CLAIMS, "'crit'", id="unknown crit"),
        pytest.param(
            {}, with_(aud=[MONITOR]), "not for us: 'aud' is .*monitor/one, expected .*verifier", id="wrong aud"
        ),
        pytest.param({}, with_(exp=int(NOW) - 10, iat=int(NOW) - 20), "expired 10 s ago", id="expired"),
        pytest.param({}, with_(iat=int(NOW) + 40), "from the future", id="from the future"),
        pytest.param({}, with_(bhv_window={"start": NOW, "end": NOW - 60}), "'bhv_window' is reversed", id="reversed"),
        pytest.param(
            {}, with_(bhv_window={"start": NOW, "end": NOW}), "'bhv_window' is reversed or empty", id="no time"
        ),
        pytest.param(
            {}, with_(bhv_window=[NOW - 60, NOW]), "'bhv_window' is not there as an object", id="window array"
        ),
        pytest.param({}, with_(bhv_window={"start": NOW - 60}), "in bhv_window: .*'end' is missing", id="window open"),
        pytest.param({}, with_(bhv_window={"start": True, "end": NOW}), "'start' is true", id="bool in window"),
        pytest.param(
            {}, with_(bhv_window={"start": NOW, "end": NOW + 31}), "ends at .* after the token", id="future end"
        ),
        pytest.param({}, with_(bhv_evidence="dGhpcyBpcyBhIGhhc2g"), "43 characters", id="evidence no digest"),
        pytest.param({}, with_(bhv_evidence=bet.EMPTY_EVIDENCE + "="), "43 characters", id="evidence padded"),
        pytest.param({}, with_(bhv_evidence=bet.EMPTY_EVIDENCE[:-1] + "V"), "43 characters", id="evidence stray bits"),
        pytest.param({}, with_(bhv_result="ok"), "'bhv_result' is 'ok', expected pass, fail or partial", id="result"),
        pytest.param({}, with_(bhv_details={"a": 1}), "'bhv_details' is not an array", id="details object"),
        pytest.param({}, with_(bhv_details=[1]), r"'bhv_details'\[0\] is not an object", id="details number"),
        pytest.param({}, with_(bhv_details=[{"result": "pass"}]), r"bhv_details\[0\]: .*'behavior_id'", id="nameless"),
        pytest.param(
            {},
            with_(bhv_details=[{"behavior_id": "b", "result": "fail"}]),
            "'pass' although b has",
            id="pass with fail",
        ),
        pytest.param({}, with_(exec_act="agent_execution"), "'exec_act' is 'agent_execution'", id="exec_act of an ECT"),
        pytest.param({}, with_(par=[], pred=[]), "'pred' is empty", id="no parent"),
        pytest.param({}, with_(par=[]), "'pred' and 'par' differ", id="names differ"),
        pytest.param({}, with_(jti="x"), "'jti' is \"x\", expected a UUID", id="jti no UUID"),
        pytest.param({}, with_(ext={"first_seq": -1}), "'first_seq' is -1", id="negative seq"),
        pytest.param({}, with_(ext={"count": 1.5}), "'count' is 1.5", id="fraction of an entry"),
        pytest.param({}, with_(ext={"x": "y" * 4100}), "more than 4096", id="large extension"),
        *(
            pytest.param({}, without(name), f"'{name}'", id=f"no {name}")
            for name in CLAIMS
            if name not in ("par", "bhv_details", "ext")
        ),
    ],
)
def test_bad_claims(
    forge: Callable[..., str], keys: KeyResolver, header: dict[str, Any], claims: dict[str, Any], message: str
) -> None:
    if "pred" not in claims:
        claims = {k: v for k, v in claims.items() if k != "par"}
    token = forge({"typ": "bet+jwt", **header}, claims)
    with pytest.raises(VerificationError, match=message):
        verify(token, keys)


def test_alg_none(signer: KeySigner, keys: KeyResolver) -> None:
    header = {"alg": "none", "typ": "bet+jwt", "kid": signer.kid}
    body = ".".join(base64url.encode(json.dumps(part).encode()) for part in (header, CLAIMS))
    with pytest.raises(VerificationError, match="three base64url parts"):
        verify(body + ".", keys)
    with pytest.raises(VerificationError, match="alg is 'none', expected EdDSA, Ed25519 or ES256"):
        verify(body + ".AA", keys)


def test_hs256_with_the_public_key_as_secret(signer: KeySigner, keys: KeyResolver) -> None:
    header = {"alg": "HS256", "typ": "bet+jwt", "kid": signer.kid}
    signing_input = ".".join(base64url.encode(json.dumps(part).encode()) for part in (header, CLAIMS))
    public = signer.public_key()
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for secret in (raw, pem):
        mac = hmac.digest(secret, signing_input.encode(), "sha256")
        with pytest.raises(VerificationError, match="alg is 'HS256'"):
            verify(f"{signing_input}.{base64url.encode(mac)}", keys)


def test_padded_base64(signer: KeySigner, keys: KeyResolver) -> None:
    for part in range(3):
        parts = bet.issue(CLAIMS, signer).split(".")
        parts[part] += "=" * (-len(parts[part]) % 4 or 4)
        with pytest.raises(VerificationError, match="three base64url parts without padding"):
            verify(".".join(parts), keys)


def test_a_second_spelling_of_the_same_bytes(signer: KeySigner, keys: KeyResolver) -> None:
    head, body, signature = bet.issue(CLAIMS, signer).split(".")
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".index(signature[-1])
    stray = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last ^ 1]
    assert base64.urlsafe_b64decode(signature[:-1] + stray + "==") == base64url.decode(signature)
    with pytest.raises(VerificationError, match="one spelling"):
        verify(f"{head}.{body}.{signature[:-1]}{stray}", keys)


def test_duplicate_json_keys(forge: Callable[..., str], keys: KeyResolver) -> None:
    payload = json.dumps(with_(bhv_result="fail"))[:-1].encode() + b',"bhv_result":"pass"}'
    with pytest.raises(VerificationError, match="'bhv_result' stands twice"):
        verify(forge({"typ": "bet+jwt"}, payload), keys)


def test_a_changed_claim_breaks_the_signature(signer: KeySigner, keys: KeyResolver) -> None:
    head, _, signature = bet.issue(with_(bhv_result="fail"), signer).split(".")
    body = base64url.encode(json.dumps(CLAIMS).encode())
    with pytest.raises(VerificationError, match="the signature is wrong"):
        verify(f"{head}.{body}.{signature}", keys)


def test_the_issuer_must_be_the_peer(signer: KeySigner, keys: KeyResolver) -> None:
    with pytest.raises(VerificationError, match=r"expected the peer of the connection .*monitor/two"):
        verify(bet.issue(CLAIMS, signer), keys, peer="spiffe://example.test/monitor/two")


def test_nothing_is_issued_that_would_be_refused(signer: KeySigner) -> None:
    with pytest.raises(VerificationError, match="more than 4096"):
        bet.issue(with_(ext={"x": "y" * 4100}), signer)


G, B, E = Tally(3, 0, 0), Tally(3, 1, 1), Tally()


@pytest.mark.parametrize(
    ("tallies", "severities", "unjudged", "result"),
    [
        pytest.param({}, {}, 0, "pass", id="nothing needed judgement"),
        pytest.param({"a": E}, {"a": "critical"}, 0, "pass", id="nothing exercised"),
        pytest.param({"a": G, "b": G}, {}, 0, "pass", id="all passed"),
        pytest.param({"a": G, "b": B}, {"b": "high"}, 0, "partial", id="one of two violated"),
        pytest.param({"a": G, "b": B}, {"b": "critical"}, 0, "fail", id="a critical one violated"),
        pytest.param({"a": B, "b": B}, {"a": "low", "b": "low"}, 0, "fail", id="all violated"),
        pytest.param({"a": B, "b": E}, {"a": "low"}, 0, "fail", id="all that were evaluated violated"),
        pytest.param({"a": G}, {}, 1, "partial", id="one passed, something unjudged"),
        pytest.param({}, {}, 1, "fail", id="nothing but unjudged"),
        pytest.param({"a": B}, {}, 1, "fail", id="violated and unjudged"),
        pytest.param({"a": G, "b": B}, {}, 2, "partial", id="passed, violated and unjudged"),
    ],
)
def test_results(tallies: dict[str, Tally], severities: dict[str, str], unjudged: int, result: str) -> None:
    assert bet.aggregate(tallies, severities, unjudged) == result


def test_details_name_the_violated_first_and_count_what_they_omit() -> None:
    tallies = {f"p{n:02}": Tally(1) for n in range(30)} | {"z": Tally(4, 2, 1)}
    shown, omitted = bet.details(tallies, ["p00", "not-seen", "z", "zz"])
    assert shown[0] == {"behavior_id": "z", "result": "fail", "evaluated": 4, "violations": 2, "prevented": 1}
    assert [item["behavior_id"] for item in shown[1:31]] == [f"p{n:02}" for n in range(30)]
    assert shown[31] == {
        "behavior_id": "not-seen",
        "result": "not-run",
        "evaluated": 0,
        "violations": 0,
        "prevented": 0,
    }
    assert (len(shown), omitted) == (32, 1)


def test_a_long_refused_target_goes_by_its_digest(signer: KeySigner) -> None:
    assert bet.refused(3, "urn:x", "not_in_allowlist") == {
        "seq": 3,
        "action_target": "urn:x",
        "reason": "not_in_allowlist",
    }
    about = bet.refused(3, "https://x/" + "\x00" * 5000, "r" * 5000)
    assert about.keys() == {"seq", "reason", "action_target_digest"}
    bet.issue(with_(ext={**CLAIMS["ext"], "refused": about}), signer)
