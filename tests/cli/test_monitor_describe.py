"""`lictor monitor digest`, `show` and `verify` as a person and as a script call them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import described
import pytest
from click.testing import CliRunner, Result
from end_to_end.world import free_port

from lictor.certs.domain import TrustDomain
from lictor.certs.evidence_keys import evidence_jwk
from lictor.cli import cli
from lictor.evidence import description
from lictor.evidence.export import write_export
from lictor.evidence.ledger import Ledger
from lictor.evidence.sqlite_store import SqliteReader, SqliteStore
from lictor.formats import base64url
from lictor.formats.errors import LictorError
from lictor.formats.keys import KeySigner
from lictor.proxy.installed import package_digest, package_manifest

ORIGIN = "acme.example/monitor/north"


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> TrustDomain:
    made = TrustDomain.create(tmp_path_factory.mktemp("described") / "trust", "acme.example")
    made.add_agent("default")
    for monitor in ("north", "south"):
        made.add_monitor(monitor)
    return made


@pytest.fixture
def ledger(tmp_path: Path, domain: TrustDomain) -> Path:
    """A ledger in which the monitor north has described itself twice."""
    files = domain.monitor("north")
    signer, jwk = KeySigner.from_file(files.evidence_key), evidence_jwk(files.evidence_cert.read_bytes())

    async def fill() -> None:
        ledger = Ledger.open(SqliteStore(tmp_path / "ledger.db"), ORIGIN, signer)
        ledger.put_document("key", jwk["kid"], jwk)
        for configuration in ("c" * 43, "k" * 43):
            measured = described.MEASURED | {"configuration": configuration}
            said = description.claims_of(f"spiffe://{ORIGIN}", ledger, measured, [], [])
            description.enter(ledger, signer, jwk["x5c"], said)
        await ledger.close()

    asyncio.run(fill())
    return tmp_path / "ledger.db"


@pytest.fixture
def token(ledger: Path, tmp_path: Path) -> Path:
    reader = SqliteReader(ledger)
    (tmp_path / "token").write_text(f"{description.newest_token(reader)}\n")
    reader.close()
    return tmp_path / "token"


@pytest.fixture
def evidence(ledger: Path, tmp_path: Path) -> Path:
    reader = SqliteReader(ledger)
    write_export(reader, tmp_path / "evidence.jsonl")
    reader.close()
    return tmp_path / "evidence.jsonl"


def call(*words: object) -> Result:
    return CliRunner().invoke(cli, ["monitor", *map(str, words)])


def verify(domain: TrustDomain, *words: object, code: int = 0) -> Any:
    done = call("verify", *words, "--trust", domain.identity_ca, "--json")
    assert done.exit_code == code, (done.output, done.exception)
    return json.loads(done.stdout)


def refused(domain: TrustDomain, source: object) -> str:
    done = call("verify", source, "--trust", domain.identity_ca)
    assert isinstance(done.exception, LictorError), done.output
    return str(done.exception)


def test_digest() -> None:
    """`sha256sum` of the manifest is the package's digest."""
    found = json.loads(call("digest", "--json").stdout)
    assert found["package"] == package_digest() == sha256(call("digest", "--manifest").stdout_bytes).hexdigest()
    assert call("digest", "--manifest").stdout_bytes == package_manifest()
    assert package_digest() in call("digest").stdout


def test_show(ledger: Path, token: Path) -> None:
    for source in (("--ledger", ledger), (token,)):
        text = call("show", *source).stdout
        assert f"spiffe://{ORIGIN}" in text
        assert ("k" * 43 in text, "Nothing was verified" in text) == (True, True)
    assert json.loads(call("show", token, "--json").stdout)["package"] == "a" * 64


@pytest.mark.parametrize("kind", ["ledger", "token", "evidence"])
def test_verify(kind: str, domain: TrustDomain, request: pytest.FixtureRequest) -> None:
    source = request.getfixturevalue(kind)
    found = verify(domain, source, "--package-digest", "a" * 64, "--configuration-digest", "k" * 43)
    assert (found["ok"], found["issuer"], found["log_size"]) == (True, f"spiffe://{ORIGIN}", 1)
    other = verify(domain, source, "--package-digest", "f" * 64, "--package-digest", "e" * 64, code=1)
    assert (other["ok"], len(other["problems"])) == (False, 1)
    assert verify(domain, source, "--configuration-digest", "c" * 43, code=1)["ok"] is False


def test_a_log_that_was_cut_off(evidence: Path, domain: TrustDomain) -> None:
    """What is there of it says what the monitor was, but not that it was so to the end."""
    lines = evidence.read_bytes().splitlines(keepends=True)
    evidence.write_bytes(b"".join(lines[:-1]))
    assert verify(domain, evidence, code=3)["log_size"] == 1


def altered(text: str, domain: TrustDomain) -> str:
    head, _, tail = text.split(".")
    signer = KeySigner.from_file(domain.monitor("north").evidence_key)
    return f"{head}.{described.token(signer, described.claims(ORIGIN, iat=int(time.time()))).split('.')[1]}.{tail}"


def with_the_certificate_of_another(text: str, domain: TrustDomain) -> str:
    south = evidence_jwk(domain.monitor("south").evidence_cert.read_bytes())
    signer = KeySigner.from_file(domain.monitor("north").evidence_key)
    return described.token(signer, described.claims(ORIGIN, iat=int(time.time())), south["x5c"])


def of_another(text: str, domain: TrustDomain) -> str:
    """Signed by south, about north."""
    files = domain.monitor("south")
    jwk = evidence_jwk(files.evidence_cert.read_bytes())
    return described.token(
        KeySigner.from_file(files.evidence_key), described.claims(ORIGIN, iat=int(time.time())), jwk["x5c"]
    )


def without_a_certificate(text: str, domain: TrustDomain) -> str:
    return described.token(KeySigner.from_file(domain.monitor("north").evidence_key), described.claims(ORIGIN))


def with_no_certificate(text: str, domain: TrustDomain) -> str:
    signer = KeySigner.from_file(domain.monitor("north").evidence_key)
    return described.token(signer, described.claims(ORIGIN), [base64url.encode(b"no certificate")])


@pytest.mark.parametrize(
    ("forge", "text"),
    [
        (altered, "the signature is wrong"),
        (with_the_certificate_of_another, "no key"),
        (of_another, "no key"),
        (without_a_certificate, "no x5c"),
        (with_no_certificate, "x5c is not a certificate"),
    ],
)
def test_what_does_not_hold(
    forge: Callable[[str, TrustDomain], str], text: str, token: Path, domain: TrustDomain
) -> None:
    token.write_text(forge(token.read_text().strip(), domain))
    assert text in refused(domain, token)


def test_of_another_trust_domain(token: Path, tmp_path: Path) -> None:
    other = TrustDomain.create(tmp_path / "other", "acme.example")
    assert "not signed by the identity CA" in refused(other, token)


def test_nobody_answers(domain: TrustDomain) -> None:
    done = call("verify", f"https://127.0.0.1:{free_port()}", "--trust", domain.identity_ca)
    assert (done.exit_code, "does not answer" in done.stderr) == (3, True)


def test_what_is_no_source(domain: TrustDomain, tmp_path: Path) -> None:
    assert "named as https://HOST:PORT" in refused(domain, "http://127.0.0.1:1")
    assert "cannot be read" in refused(domain, tmp_path / "missing")
