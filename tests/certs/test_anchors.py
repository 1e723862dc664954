"""Identity CAs: each vouches for the one trust domain that its own certificate names."""

from __future__ import annotations

import pytest
from cryptography import x509

from lictor.certs.anchors import Anchors, check_issued, trust_domain_of
from lictor.certs.authority import CLIENT_AUTH, Issuer, create_root, issue, new_key, pem
from lictor.formats.errors import VerificationError


def root(uri: str | None, subject: str = "") -> Issuer:
    return create_root(subject or f"identities of {uri}", days=2, path_length=0, uri=uri)


@pytest.mark.parametrize(
    "uri",
    [
        None,
        "https://acme.example",
        "spiffe://",
        "spiffe://ACME.example",
        "spiffe://acme%2eexample",
        "spiffe://acme.example/",
        "spiffe://acme.example/agent/a",
        "spiffe://acme.example:443",
        "spiffe://user@acme.example",
        "SPIFFE://acme.example",
        "spiffe://acme.example?x",
        "spiffe://acme.example\n",
    ],
)
def test_a_ca_that_names_no_trust_domain(uri: str | None) -> None:
    with pytest.raises(VerificationError, match=r"URI names|names no trust domain"):
        trust_domain_of(root(uri, "identities").cert)


def test_an_internationalised_name_is_its_ascii_form() -> None:
    assert trust_domain_of(root("spiffe://xn--bcher-kva.example").cert) == "xn--bcher-kva.example"


def test_what_is_no_ca() -> None:
    leaf = issue(
        root("spiffe://a.example"), new_key().public_key(), subject="x", usages=[CLIENT_AUTH], names=[], days=1
    )
    with pytest.raises(VerificationError, match="not a CA's"):
        trust_domain_of(leaf)


def test_each_for_its_own_domain() -> None:
    one, two = root("spiffe://one.example"), root("spiffe://two.example")
    anchors = Anchors.from_pem(pem(one.cert) + b"\n" + pem(two.cert) + pem(one.cert))
    assert (anchors.of("one.example"), anchors.of("two.example")) == (one.cert, two.cert)
    with pytest.raises(VerificationError, match=r"for the trust domain three\.example, only for one\.example, two\."):
        anchors.of("three.example")


def test_two_cas_for_one_domain() -> None:
    with pytest.raises(VerificationError, match=r"two CAs are given for the trust domain one\.example"):
        Anchors([root("spiffe://one.example").cert, root("spiffe://one.example").cert])


def test_one_key_for_two_domains() -> None:
    one = root("spiffe://one.example")
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "another")])
    builder = x509.CertificateBuilder(
        name, name, one.key.public_key(), 7, one.cert.not_valid_before_utc, one.cert.not_valid_after_utc
    )
    for extension in one.cert.extensions:
        value = extension.value
        if isinstance(value, x509.SubjectAlternativeName):
            value = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://two.example")])
        builder = builder.add_extension(value, extension.critical)
    other = builder.sign(one.key, one.cert.signature_hash_algorithm)  # type: ignore[arg-type]
    with pytest.raises(VerificationError, match=r"two\.example and one\.example have the same CA key"):
        Anchors([one.cert, other])


def test_one_name_for_the_cas_of_two_domains() -> None:
    """OpenSSL looks issuers up by name: whoever takes another's could have its certificates refused."""
    with pytest.raises(VerificationError, match="have the same name"):
        Anchors([root("spiffe://one.example", "identities").cert, root("spiffe://two.example", "identities").cert])


def test_issued_by_itself_and_by_no_other_of_its_name() -> None:
    one, other = root("spiffe://one.example"), root("spiffe://one.example")
    leaf = issue(one, new_key().public_key(), subject="x", usages=[CLIENT_AUTH], names=[], days=1)
    check_issued(leaf, one.cert, "one.example")
    with pytest.raises(VerificationError, match=r"not signed by the identity CA of one\.example"):
        check_issued(leaf, other.cert, "one.example")


@pytest.mark.parametrize("data", [b"", b"nothing", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_no_certificates(data: bytes) -> None:
    with pytest.raises(VerificationError, match="cannot be used"):
        Anchors.from_pem(data)
