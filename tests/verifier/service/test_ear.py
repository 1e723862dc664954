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
from lictor.verifier.service import ear
from lictor.verifier.service.ear import Submodule

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
    module = Submodule(status, ("urn:p",), {"bets": 2})
    token = ear.issue(SIGNER, ISSUER, {AGENT: module}, NOW, 60, "nonce-12", profile, "0.1")
    result = ear.verify(token, resolve, now=NOW + 5, nonce="nonce-12")
    assert (result.profile, result.status, result.submodules) == (profile, status, {AGENT: module})


WRITTEN: dict[ear.Profile, dict[str, Any]] = {
    "ietf": {
        "eat_profile": "tag:ietf.org,2026:rats/ear#04",
        "ear_status": "warning",
        "ear_verifier_id": {"developer": "lictor", "build": "0.1"},
        "submods": {
            AGENT: {
                "ear_status": "warning",
                "ear_trustworthiness_vector": {"executables": -33},
                "ear_appraisal_policy_ids": ["urn:p", "urn:q"],
                "lictor.behavior": {"bets": 2},
            }
        },
    },
    "veraison": {
        "eat_profile": "tag:github.com,2023:veraison/ear",
        "ear.status": "warning",
        "ear.verifier-id": {"developer": "lictor", "build": "0.1"},
        "submods": {
            AGENT: {
                "ear.status": "warning",
                "ear.trustworthiness-vector": {"executables": -33},
                "ear.appraisal-policy-id": "urn:p",
                "lictor.behavior": {"bets": 2},
            }
        },
    },
}
"""As the drafts have it: a relying party's nonce stands at the top; one in a submodule would be the evidence's."""


@pytest.mark.parametrize("profile", WRITTEN)
def test_what_is_written(profile: ear.Profile) -> None:
    module = Submodule("warning", ("urn:p", "urn:q"), {"bets": 2})
    token = ear.issue(SIGNER, ISSUER, {AGENT: module}, NOW + 0.5, 60, "nonce-12", profile, "0.1")
    parsed = jws.parse_compact(token, typ=frozenset({"eat+jwt"}))
    common = {"iss": ISSUER, "iat": NOW, "exp": NOW + 60, "eat_nonce": "nonce-12"}
    assert parsed.claims() == {**common, **WRITTEN[profile]}
    without = jws.parse_compact(
        ear.issue(SIGNER, ISSUER, {AGENT: Submodule("none")}, NOW, 60), typ=frozenset({ear.TYP})
    )
    assert "eat_nonce" not in without.claims()
    assert set(without.claims()["submods"][AGENT]) == {"ear_status", "ear_trustworthiness_vector", "lictor.behavior"}


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
        ({"module": {"lictor.behavior": 5}}, "is malformed"),
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


@pytest.mark.parametrize("said", ["nonce-12", None, 5, ["nonce-34"]])
def test_another_nonce(said: Any) -> None:
    """One in a submodule is of the evidence, and answers to nobody."""
    with pytest.raises(VerificationError, match="does not answer to the nonce"):
        ear.verify(signed(claims(eat_nonce=said, module={"eat_nonce": "nonce-34"})), resolve, nonce="nonce-34")
    ear.verify(signed(claims(eat_nonce="nonce-34")), resolve, nonce="nonce-34")


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
