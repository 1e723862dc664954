"""Attestation results: what is written is read back, in both profiles, and what contradicts itself is refused."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from lictor.formats import jws
from lictor.formats.canonical import canonical
from lictor.formats.errors import VerificationError
from lictor.formats.jws import PublicKey
from lictor.formats.keys import KeySigner
from lictor.verifier import ear
from lictor.verifier.ear import Submodule

SIGNER = KeySigner.of(ed25519.Ed25519PrivateKey.generate())
ISSUER, AGENT = "spiffe://x/verifier/v", "spiffe://x/agent/a"
NOW = 1_800_000_000


def resolve(kid: str, iss: str, at: float | None = None) -> PublicKey:
    if kid != SIGNER.kid:
        raise VerificationError("another key")
    return SIGNER.public_key()


def claims(**changes: Any) -> dict[str, Any]:
    module = {"ear_status": "warning", "ear_trustworthiness_vector": {"executables": -33}}
    given = {
        "iss": ISSUER,
        "eat_profile": ear.PROFILES["ietf"],
        "iat": NOW,
        "exp": NOW + 60,
        "ear_status": "warning",
        "submods": {AGENT: module | changes.pop("module", {})},
    }
    return {name: value for name, value in (given | changes).items() if value is not None}


def signed(content: dict[str, Any], typ: str = ear.TYP) -> str:
    return jws.sign_compact({"typ": typ}, canonical(content), SIGNER)


@pytest.mark.parametrize("profile", ear.PROFILES)
@pytest.mark.parametrize("status", ear.STATUSES)
def test_written_and_read_back(profile: ear.Profile, status: ear.Status) -> None:
    module = Submodule(status, ("urn:p",), "nonce-12", {"bets": 2})
    token = ear.issue(SIGNER, ISSUER, {AGENT: module}, NOW, 60, profile, "0.1")
    result = ear.verify(token, resolve, now=NOW + 5, nonce="nonce-12")
    assert (result.profile, result.status, result.submodules) == (profile, status, {AGENT: module})
    names = jws.parse_compact(token, typ=frozenset({ear.TYP})).claims()
    assert ("ear.status" in names) == (profile == "veraison")


def test_the_whole_is_as_bad_as_the_worst() -> None:
    modules = {f"{AGENT}{n}": Submodule(status) for n, status in enumerate(("affirming", "warning", "none"))}
    result = ear.verify(ear.issue(SIGNER, ISSUER, modules, NOW, 60), resolve)
    assert result.status == "warning"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"iss": None}, "the claim 'iss' is missing"),
        ({"iat": 1.5}, "the claim 'iat'"),
        ({"exp": True}, "the claim 'exp'"),
        ({"eat_profile": "tag:else"}, "profile 'tag:else'"),
        ({"submods": {}}, "there are no submods"),
        ({"submods": {AGENT: 1}}, "is not an object"),
        ({"ear_status": "affirming"}, "not that of its worst submodule"),
        ({"ear_status": "fine"}, "expected affirming, none, warning"),
        ({"ear_status": ["warning"]}, "expected affirming, none, warning"),
        ({"module": {"ear_status": "affirming"}, "ear_status": "affirming"}, "better than the worst claim"),
        ({"module": {"ear_trustworthiness_vector": {"executables": 99}}}, "better than the worst claim"),
        ({"module": {"ear_trustworthiness_vector": {"executables": True}}}, "not an object of integers"),
        ({"module": {"ear_appraisal_policy_ids": [1]}}, "are not texts"),
        ({"module": {"eat_nonce": 5}}, "is malformed"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], what: str) -> None:
    ear.verify(signed(claims()), resolve)
    with pytest.raises(VerificationError, match=what):
        ear.verify(signed(claims(**changes)), resolve)


@pytest.mark.parametrize(("now", "good"), [(NOW - 31, False), (NOW - 29, True), (NOW + 89, True), (NOW + 91, False)])
def test_times(now: float, good: bool) -> None:
    if good:
        ear.verify(signed(claims()), resolve, now=now)
    else:
        with pytest.raises(VerificationError, match="which is not now"):
            ear.verify(signed(claims()), resolve, now=now)


def test_another_nonce() -> None:
    with pytest.raises(VerificationError, match="does not answer to the nonce"):
        ear.verify(signed(claims(module={"eat_nonce": "nonce-12"})), resolve, nonce="nonce-34")


def test_another_type_and_an_altered_token() -> None:
    with pytest.raises(VerificationError):
        ear.verify(signed(claims(), typ="bet+jwt"), resolve)
    head, body, signature = signed(claims()).split(".")
    with pytest.raises(VerificationError):
        ear.verify(f"{head}.{body[:-2]}AA.{signature}", resolve)


@pytest.mark.parametrize("nonce", ["short", "x" * 89, "with\nline", "n\u00fcnn-nonce"])
def test_bad_nonces(nonce: str) -> None:
    with pytest.raises(VerificationError, match="a nonce has 8 to 88"):
        ear.check_nonce(nonce)


@pytest.mark.parametrize(
    ("claim", "tier"),
    [
        *((value, "none") for value in (-1, 0, 1)),
        *((value, "affirming") for value in (2, 31, -2, -32)),
        *((value, "warning") for value in (32, 95, -33, -96)),
        *((value, "contraindicated") for value in (96, 99, 127, -97, -128)),
    ],
)
def test_tiers(claim: int, tier: str) -> None:
    assert ear.tier_of(claim) == tier
