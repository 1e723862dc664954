"""ECTs: both generations of names, every step of the verification, each with a token that fails at it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from lictor.evidence import bet, ect
from lictor.evidence.claims import KeyResolver
from lictor.formats.errors import VerificationError
from lictor.formats.jws import PublicKey
from lictor.formats.keys import KeySigner

MONITOR, AGENT = "spiffe://example.test/monitor/one", "spiffe://example.test/agent/a"
WID, JTI, PARENT = (
    "a0b1c2d3-e4f5-6789-abcd-ef0123456789",
    "550e8400-e29b-41d4-a716-446655440000",
    "650e8400-e29b-41d4-a716-446655440000",
)
NOW = 1_790_000_000.5
OLD: dict[str, Any] = {
    "iss": MONITOR,
    "aud": "spiffe://example.test/monitor/two",
    "iat": int(NOW),
    "exp": int(NOW) + 600,
    "jti": JTI,
    "wid": WID,
    "exec_act": "recommend_treatment",
    "par": [],
    "inp_hash": "n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg",
    "ext": {"pol": "policy_v1", "pol_decision": "approved"},
}
NEW = {**{k: v for k, v in OLD.items() if k not in ("par", "ext")}, "pred": [PARENT], "ect_ext": {"a": 1}}
CALLEE = ("spiffe://example.test/monitor/two",)


def test_what_we_mint_we_accept(signer: KeySigner, keys: KeyResolver) -> None:
    node = ect.mint(signer, issuer=MONITOR, subject=AGENT, audience=CALLEE * 2, wid=WID, parents=(PARENT,), now=NOW)
    found = ect.verify(node.token, keys, now=NOW, audience=CALLEE, peer=MONITOR)
    assert (found.jti, found.wid, found.parents, found.iat) == (node.jti, WID, (PARENT,), int(NOW))
    assert (found.issuer, found.subject, found.audience, found.exec_act) == (MONITOR, AGENT, CALLEE, "agent_execution")
    assert found.ext == {"observed": True}
    assert found.exp - found.iat == 600


def test_both_generations_of_names_are_written(signer: KeySigner) -> None:
    node = ect.mint(signer, issuer=MONITOR, subject=AGENT, audience=CALLEE, wid=WID, parents=(PARENT,), now=NOW)
    header, claims = jwt.get_unverified_header(node.token), _claims(node.token, signer)
    assert header["typ"] == "exec+jwt"
    assert claims["par"] == claims["pred"] == [PARENT]
    assert claims["ext"] == claims["ect_ext"] == {"observed": True}


def _claims(token: str, signer: KeySigner) -> dict[str, Any]:
    """Read by another library."""
    return jwt.decode(
        token, signer.public_key(), ["EdDSA"], audience=CALLEE[0], options={"verify_exp": False, "verify_iat": False}
    )


@pytest.mark.parametrize(
    ("typ", "claims", "parents", "ext"),
    [
        ("wimse-exec+jwt", OLD, (), OLD["ext"]),
        ("exec+jwt", NEW, (PARENT,), {"a": 1}),
        ("application/exec+jwt", NEW, (PARENT,), {"a": 1}),
        ("exec+jwt", OLD, (), OLD["ext"]),
    ],
)
def test_both_generations_of_names_are_read(
    forge: Callable[..., str], keys: KeyResolver, typ: str, claims: dict[str, Any], parents: Any, ext: Any
) -> None:
    found = ect.verify(forge({"typ": typ}, claims), keys, now=NOW, audience=CALLEE)
    assert (found.parents, found.ext, found.subject) == (parents, ext, None)


def test_es256_is_accepted() -> None:
    signer = KeySigner.of(ec.generate_private_key(ec.SECP256R1()))
    node = ect.mint(signer, issuer=MONITOR, subject=AGENT, audience=CALLEE, wid=WID, parents=(), now=NOW)

    def resolve(kid: str, iss: str, at: float | None = None) -> PublicKey:
        assert (kid, iss, at) == (signer.kid, MONITOR, int(NOW))
        return signer.public_key()

    assert ect.verify(node.token, resolve, now=NOW).jti == node.jti


def without(name: str) -> dict[str, Any]:
    return {k: v for k, v in OLD.items() if k != name}


BAD: list[Any] = [
    pytest.param({}, {**OLD, "iss": "spiffe://example.test/monitor/other"}, "no key", id="unknown issuer"),
    pytest.param({"kid": "other"}, OLD, "no key 'other'", id="unknown key"),
    pytest.param({"typ": "bet+jwt"}, OLD, "typ is 'bet\\+jwt'", id="typ of a BET"),
    pytest.param({"typ": "JWT"}, OLD, "typ is 'JWT'", id="typ JWT"),
    pytest.param({"alg": "none"}, OLD, "alg is 'none'", id="alg none"),
    pytest.param({"alg": "ES256"}, OLD, "does not belong to its key", id="alg of another key"),
    pytest.param({"crit": ["x"]}, OLD, "'crit'", id="unknown crit"),
    pytest.param({}, {**OLD, "aud": MONITOR}, "not for us", id="wrong audience"),
    pytest.param({}, {**OLD, "exp": int(NOW)}, "expected later|expired", id="expired"),
    pytest.param({}, {**OLD, "iat": int(NOW) + 32, "exp": int(NOW) + 99}, "from the future", id="from the future"),
    pytest.param({}, {**OLD, "iat": int(NOW) - 901}, "901 s old, more than 900|902 s old", id="too old"),
    pytest.param({}, {**OLD, "iat": True}, "'iat' is true, expected an integer", id="bool as time"),
    pytest.param({}, {**OLD, "exp": NOW + 1}, "'exp' is .*, expected an integer", id="fraction in exp"),
    pytest.param({}, {**OLD, "jti": "1"}, "'jti' is \"1\", expected a UUID", id="jti no UUID"),
    pytest.param({}, {**OLD, "wid": "w"}, "'wid'", id="wid no UUID"),
    pytest.param({}, {**OLD, "par": [JTI]}, "its own predecessor", id="its own parent"),
    pytest.param({}, {**OLD, "pred": [PARENT]}, "differ", id="par and pred differ"),
    pytest.param({}, {**OLD, "inp_hash": "sha-256:" + OLD["inp_hash"]}, "'inp_hash'", id="digest with a prefix"),
    pytest.param({}, {**OLD, "out_hash": OLD["inp_hash"] + "="}, "'out_hash'", id="padded digest"),
    pytest.param({}, {**OLD, "ext": {"x": "y" * 4096}}, "bytes, more than 4096", id="large extension"),
    pytest.param({}, {**OLD, "ext": {"1": [[[[[]]]]]}}, "6 levels deep", id="deep extension"),
    pytest.param({}, {**OLD, "exec_act": "behavioral_verification"}, "that is a BET", id="exec_act of a BET"),
    *(
        pytest.param({}, without(name), f"'{name}'.* is missing|'{name}'\\) is missing", id=f"no {name}")
        for name in ("iss", "aud", "iat", "exp", "jti", "exec_act", "par")
    ),
]


@pytest.mark.parametrize(("header", "claims", "message"), BAD)
def test_bad_tokens(
    forge: Callable[..., str], keys: KeyResolver, header: dict[str, Any], claims: dict[str, Any], message: str
) -> None:
    token = forge({"typ": "exec+jwt", **header}, claims)
    with pytest.raises(VerificationError, match=message):
        ect.verify(token, keys, now=NOW, audience=CALLEE)


def test_duplicate_claims(forge: Callable[..., str], keys: KeyResolver) -> None:
    payload = json.dumps(OLD)[:-1].encode() + b',"aud":"spiffe://example.test/monitor/three"}'
    with pytest.raises(VerificationError, match="'aud' stands twice"):
        ect.verify(forge({"typ": "exec+jwt"}, payload), keys, now=NOW)


def test_the_issuer_must_be_the_peer(forge: Callable[..., str], keys: KeyResolver) -> None:
    with pytest.raises(VerificationError, match=r"issuer is .*monitor/one, expected the peer .*monitor/two"):
        ect.verify(forge({"typ": "exec+jwt"}, OLD), keys, now=NOW, peer=CALLEE[0])


def test_kept_evidence_is_not_judged_by_the_clock(forge: Callable[..., str], keys: KeyResolver) -> None:
    assert ect.verify(forge({"typ": "exec+jwt"}, OLD), keys, now=None).jti == JTI


def test_a_wrong_signature(forge: Callable[..., str], keys: KeyResolver) -> None:
    head, _, signature = forge({"typ": "exec+jwt"}, OLD).split(".")
    other = forge({"typ": "exec+jwt"}, OLD, wid=JTI).split(".")[1]
    with pytest.raises(VerificationError, match="the signature is wrong"):
        ect.verify(f"{head}.{other}.{signature}", keys, now=NOW)


def test_a_bet_is_no_ect() -> None:
    assert bet.TYP not in ect.ACCEPTED_TYP
