"""Trust bundles: what one holds leads to its CA, or it is not taken; nothing secret is in it."""

from __future__ import annotations

import base64
import copy
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from lictor.certs.authority import DOCUMENT_SIGNING, Issuer, create_root, issue, pem, sign_crl
from lictor.certs.bundle import MAX_BUNDLE, make_bundle, read_bundle
from lictor.certs.domain import TrustDomain
from lictor.certs.evidence_keys import evidence_jwk
from lictor.formats.errors import LictorError, UsageError, VerificationError
from lictor.formats.keys import KeySigner

NAME = "partner.example"
Document = dict[str, Any]


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> TrustDomain:
    made = TrustDomain.create(tmp_path_factory.mktemp("bundle") / "trust", NAME)
    made.add_agent("a")
    made.add_monitor("one")
    made.add_monitor("two")
    made.rotate_evidence("one")
    return made


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> TrustDomain:
    made = TrustDomain.create(tmp_path_factory.mktemp("bundle") / "other", "other.example")
    made.add_monitor("one")
    return made


def issuer(domain: TrustDomain) -> Issuer:
    return Issuer.load(domain.identity_ca, domain.path / "identity-ca.key")


def der64(value: x509.Certificate | x509.CertificateRevocationList) -> str:
    return base64.b64encode(value.public_bytes(Encoding.DER)).decode()


def crl64(ca: Issuer, **more: Any) -> str:
    return der64(x509.load_pem_x509_crl(sign_crl(ca, [], **{"number": 9, "days": 1, **more})))


def key_of(ca: Issuer, iss: str) -> Document:
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    names = [x509.UniformResourceIdentifier(iss)]
    cert = issue(ca, key, subject="x", usages=[DOCUMENT_SIGNING], names=names, days=1)
    return {**evidence_jwk(pem(cert)), "use": "lictor-evidence"}


def test_it_says_what_there_is(domain: TrustDomain, tmp_path: Path) -> None:
    path = tmp_path / "bundle.json"
    path.write_text(json.dumps(make_bundle(domain)))
    found = read_bundle(path)
    found.check_current(datetime.now(UTC))
    assert found.trust_domain == NAME
    assert pem(found.ca) == found.ca_pem == domain.identity_ca.read_bytes()
    assert found.sequence is not None
    assert abs(found.sequence - datetime.now(UTC).timestamp()) < 100
    kids = {evidence_jwk(path.read_bytes())["kid"] for path in domain.path.glob("monitors/*/evidence*.pem")}
    assert len(kids) == 3, "with the key that monitor one had before"
    assert {jwk["kid"] for jwk in found.evidence.jwks()} == kids
    signer = KeySigner.from_file(domain.monitor("two").evidence_key)
    assert found.evidence.resolve(signer.kid, f"spiffe://{NAME}/monitor/two") == signer.public_key()


def test_it_is_a_spiffe_bundle(domain: TrustDomain) -> None:
    """SPIFFE Trust Domain and Bundle section 4; X509-SVID section 6.1."""
    made = make_bundle(domain)
    (ca,) = [jwk for jwk in made["keys"] if jwk["use"] == "x509-svid"]
    assert set(ca) == {"kty", "crv", "x", "y", "use", "x5c"}, "and no kid"
    assert {jwk["use"] for jwk in made["keys"]} == {"x509-svid", "lictor-evidence"}
    assert type(made["spiffe_sequence"]) is type(made["spiffe_refresh_hint"]) is int


def test_nothing_secret_is_in_it(domain: TrustDomain) -> None:
    text = json.dumps(make_bundle(domain))
    assert "PRIVATE" not in text
    assert not any({"d", "k", "p", "q"} & set(jwk) for jwk in json.loads(text)["keys"])
    for path in domain.path.rglob("*.key"):
        secret = KeySigner.from_file(path).key
        raw = secret.private_bytes_raw() if isinstance(secret, ed25519.Ed25519PrivateKey) else None
        number = raw or secret.private_numbers().private_value.to_bytes(32)  # type: ignore[union-attr]
        for encoded in (base64.b64encode(number), base64.urlsafe_b64encode(number)):
            assert encoded.rstrip(b"=").decode() not in text


def test_revoked_evidence_keys_are_left_out(tmp_path: Path) -> None:
    domain = TrustDomain.create(tmp_path / "trust", NAME)
    for name in ("one", "two"):
        domain.add_monitor(name)
    domain.revoke_monitor("one")
    path = tmp_path / "bundle.json"
    path.write_text(json.dumps(make_bundle(domain)))
    found = read_bundle(path)
    assert [jwk["iss"] for jwk in found.evidence.jwks()] == [f"spiffe://{NAME}/monitor/two"]
    cert = x509.load_pem_x509_certificate(domain.monitor("one").cert.read_bytes())
    assert found.revoked.contains(cert.serial_number, datetime.now(UTC))


def test_a_key_in_the_folder_that_is_not_the_domains(domain: TrustDomain, other: TrustDomain, tmp_path: Path) -> None:
    copied = tmp_path / "trust"
    shutil.copytree(domain.path, copied)
    shutil.copy(other.monitor("one").evidence_cert, copied / "monitors/one/evidence-evil.pem")
    with pytest.raises(
        VerificationError, match=r"evidence-evil\.pem: no CA is known that vouches for .* other\.example"
    ):
        make_bundle(TrustDomain.open(copied))


def swap_ca(document: Document, domain: TrustDomain, other: TrustDomain) -> None:
    document["keys"][0]["x5c"] = make_bundle(other)["keys"][0]["x5c"]


def own_key_of_ours(document: Document, domain: TrustDomain, other: TrustDomain) -> None:
    document["keys"].append(key_of(issuer(domain), "spiffe://other.example/monitor/one"))


def key_of_other_ca(document: Document, domain: TrustDomain, other: TrustDomain) -> None:
    document["keys"].append(key_of(issuer(other), f"spiffe://{NAME}/monitor/one"))


def key_says_another(document: Document, domain: TrustDomain, other: TrustDomain) -> None:
    document["keys"][1]["iss"] = f"spiffe://{NAME}/monitor/other"


def crl_of_other_ca(document: Document, domain: TrustDomain, other: TrustDomain) -> None:
    document["lictor_crl"] = crl64(issuer(other))


def crl_of_same_name(document: Document, domain: TrustDomain, other: TrustDomain) -> None:
    document["lictor_crl"] = crl64(create_root(f"identities of {NAME}", days=1, path_length=0))


def two_cas(document: Document, domain: TrustDomain, other: TrustDomain) -> None:
    document["keys"].append(make_bundle(other)["keys"][0])


def leaf_as_ca(document: Document, domain: TrustDomain, other: TrustDomain) -> None:
    cert = x509.load_pem_x509_certificate(domain.monitor("one").cert.read_bytes())
    document["keys"][0]["x5c"] = [der64(cert)]


def not_self_signed(document: Document, domain: TrustDomain, other: TrustDomain) -> None:
    ca = create_root("in between", days=1, path_length=0, uri=f"spiffe://{NAME}")
    builder = x509.CertificateBuilder(
        issuer(other).cert.subject,
        ca.cert.subject,
        ca.cert.public_key(),
        5,
        ca.cert.not_valid_before_utc,
        ca.cert.not_valid_after_utc,
    )
    for extension in ca.cert.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    cert = builder.sign(issuer(other).key, ca.cert.signature_hash_algorithm)  # type: ignore[arg-type]
    document["keys"] = [{**document["keys"][0], "x5c": [der64(cert)]}]
    document["lictor_crl"] = crl64(Issuer(cert, ca.key))


BAD: dict[str, tuple[Callable[[Document, TrustDomain, TrustDomain], object], str]] = {
    "another CA": (swap_ca, "not signed by the identity CA"),
    "two CAs": (two_cas, "2 keys of use x509-svid"),
    "no CA": (lambda d, *_: d["keys"].pop(0), "0 keys of use x509-svid"),
    "a leaf as CA": (leaf_as_ca, "not a CA's"),
    "a CA that another has signed": (not_self_signed, "not signed by the identity CA"),
    "an evidence key for another domain": (own_key_of_ours, r"no CA is known .* other\.example"),
    "an evidence key of another CA": (key_of_other_ca, "not signed by the identity CA"),
    "an evidence key under another name": (key_says_another, "its certificate says"),
    "no certificate of a key": (lambda d, *_: d["keys"][1].pop("x5c"), "no x5c"),
    "two certificates of a key": (lambda d, *_: d["keys"][1]["x5c"].append("AAAA"), "no x5c"),
    "a certificate that is none": (lambda d, *_: d["keys"][1].update(x5c=["AAAA"]), "cannot be relied on"),
    "a certificate that is no text": (lambda d, *_: d["keys"][1].update(x5c=[7]), "not base64"),
    "a private key": (lambda d, *_: d["keys"][1].update(d="AAAA"), "private"),
    "a private CA key": (lambda d, *_: d["keys"][0].update(d="AAAA"), "private"),
    "no revocation list": (lambda d, *_: d.pop("lictor_crl"), "no revocation list"),
    "a revocation list of another CA": (crl_of_other_ca, "not signed by the identity CA"),
    "a revocation list of a CA of the same name": (crl_of_same_name, "not signed by the identity CA"),
    "a revocation list that is none": (lambda d, *_: d.update(lictor_crl="AAAA"), "cannot be relied on"),
    "a revocation list that is a list": (lambda d, *_: d.update(lictor_crl=[]), "not base64"),
    "keys that are none": (lambda d, *_: d.update(keys={}), "not an array"),
    "a key that is none": (lambda d, *_: d["keys"].append("x"), "not an array"),
    "a sequence that is none": (lambda d, *_: d.update(spiffe_sequence=True), "not a whole number"),
}


@pytest.mark.parametrize("what", BAD)
def test_not_taken(domain: TrustDomain, other: TrustDomain, tmp_path: Path, what: str) -> None:
    break_it, said = BAD[what]
    document = copy.deepcopy(make_bundle(domain))
    path = tmp_path / "bundle.json"
    path.write_text(json.dumps(document))
    read_bundle(path)
    break_it(document, domain, other)
    path.write_text(json.dumps(document))
    with pytest.raises(VerificationError, match=said):
        read_bundle(path)


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b'{"keys":[],"keys":[]}', b" " * (MAX_BUNDLE + 1)])
def test_no_bundle_at_all(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bundle.json"
    path.write_bytes(data)
    with pytest.raises(LictorError, match="cannot be relied on"):
        read_bundle(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_bundle(tmp_path / "none.json")


def test_what_others_put_in_is_ignored(domain: TrustDomain, tmp_path: Path) -> None:
    document = make_bundle(domain)
    document["keys"] += [{"kty": "RSA", "use": "jwt-svid", "kid": "x", "n": "AQAB", "e": "AQAB"}, {"kty": "new"}]
    document["another_member"] = 1
    del document["spiffe_sequence"]
    path = tmp_path / "bundle.json"
    path.write_text(json.dumps(document))
    assert read_bundle(path).sequence is None


@pytest.mark.parametrize(
    ("later", "said"), [(timedelta(days=200), "revocation list"), (timedelta(days=-1), "valid from")]
)
def test_out_of_date(domain: TrustDomain, tmp_path: Path, later: timedelta, said: str) -> None:
    path = tmp_path / "bundle.json"
    path.write_text(json.dumps(make_bundle(domain)))
    with pytest.raises(VerificationError, match=rf"{said}.*ask partner\.example for a new bundle"):
        read_bundle(path).check_current(datetime.now(UTC) + later)


def test_a_ca_that_is_out_of_date(domain: TrustDomain, tmp_path: Path) -> None:
    """Although its list is not."""
    document = make_bundle(domain)
    document["lictor_crl"] = crl64(issuer(domain), days=5000)
    path = tmp_path / "bundle.json"
    path.write_text(json.dumps(document))
    with pytest.raises(VerificationError, match=r"identity CA of partner\.example is out of date"):
        read_bundle(path).check_current(datetime.now(UTC) + timedelta(days=4000))
