"""Broken configurations, each a file named by what is wrong with it; each error names the key and the mend."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from lictor.certs.domain import TrustDomain
from lictor.formats.errors import UsageError
from lictor.proxy.config import load, schema

DATA = Path(__file__).parent / "data"

BROKEN = {
    "unknown-key": ["listen.egres", "did you mean egress?"],
    "unknown-section": ["unknown key monitr", "did you mean monitor?"],
    "unknown-key-in-target": ["target[0].protcol", "did you mean protocol?"],
    "verify-upstream-off": ["interception.verify_upstream", "always verified"],
    "upstream-ca-missing": ["interception.upstream_ca", "nowhere.pem"],
    "ingress-without-section": ["listen.ingress", "[ingress]"],
    "ingress-without-listener": ["listen.ingress", "[ingress]"],
    "ingress-without-agent": ["ingress", "'agent' is a required property"],
    "ingress-agent-no-spiffe-id": ["ingress.agent"],
    "ingress-upstream-https": ["ingress.upstream"],
    "ingress-upstream-bad-port": ["ingress.upstream"],
    "two-listeners-on-one-port": ["listen.egress and listen.ingress", "8443"],
    "two-listeners-on-one-port-everywhere": ["listen.egress and listen.ingress", "8443"],
    "port-too-large": ["listen.egress", "70000"],
    "port-zero": ["listen.egress", "0 is not between 1 and 65535"],
    "no-port": ["listen.egress"],
    "monitor-name-is-a-path": ["monitor.name"],
    "no-workers": ["monitor.workers"],
    "workers-not-a-number": ["monitor.workers", "'two' is not of type 'integer'"],
    "ledger-missing": ["'ledger' is a required property"],
    "trust-missing": ["nowhere", "lictor init"],
    "interval-not-a-number": ["evidence.interval_s", "finite"],
    "timeout-without-end": ["limits.receipt_timeout_s", "finite"],
    "limit-too-small": ["limits.judged_body_bytes"],
    "client-key-missing": ["target[0]", "client_key"],
    "target-ca-missing": ["target[0].ca", "nowhere.pem"],
    "target-kind-unknown": ["target[0].kind", "'robot'"],
    "target-matches-nothing": ["target[0].match"],
    "agent-of-a-tool": ["target[0].agent", "kind agent"],
    "evidence-with-a-path": ["target[0].evidence", "expected https://host:port"],
    "evidence-without-tls": ["target[0].evidence"],
    "monitor-no-spiffe-id": ["target[0].monitor"],
    "evidence-listener-without-ingress": ["listen.evidence", "listen.ingress, which is missing"],
    "auditor-of-an-unknown-domain": ["api.auditors", "partner.example, whose CA is not known", "[[federation]]"],
    "two-identities-on-one-authority": ["target[0] and target[1]", "a.example"],
    "not-toml": ["is not TOML"],
    "section-twice": ["is not TOML"],
    "not-utf-8": ["is not TOML"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    TrustDomain.create(tmp_path / "trust", "test.internal")
    (tmp_path / "ca.pem").write_text("")
    return tmp_path


def put(folder: Path, name: str) -> Path:
    return Path(shutil.copy(DATA / f"{name}.toml", folder / "lictor.toml"))


@pytest.mark.parametrize("name", BROKEN)
def test_broken(folder: Path, name: str) -> None:
    path = put(folder, name)
    with pytest.raises(UsageError) as refused:
        load(path)
    for part in BROKEN[name]:
        assert part in str(refused.value)


def test_every_broken_file_is_tested() -> None:
    assert {path.stem for path in DATA.glob("*.toml")} == {*BROKEN, "good", "target-matches-everything"}


def test_a_pattern_that_is_none_is_found_with_the_catalog(folder: Path) -> None:
    config = load(put(folder, "target-matches-everything"))
    with pytest.raises(UsageError, match=r"\*\.com"):
        config.catalog()


def test_defaults(folder: Path) -> None:
    config = load(put(folder, "good"))
    assert config.monitor.spiffe_id == "spiffe://test.internal/monitor/local"
    assert config.monitor.workers == 1
    assert config.listen.egress == ("127.0.0.1", 8443)
    assert config.listen.ingress is None
    assert config.interception.upstream_ca is None
    assert config.bindings.signers == (folder / "trust/operator.jwk",)
    assert config.bindings.allow_unsigned is False
    assert config.ledger.path == folder / "data/ledger.sqlite"
    assert config.evidence.audience == ("spiffe://test.internal/verifier",)
    assert config.limits.judged_body_bytes == 4 << 20
    assert config.monitor_dir == folder / "trust/monitors/local"


def test_paths_start_at_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder, "good")
    monkeypatch.chdir(folder.parent)
    config = load(Path(os.path.relpath(folder / "lictor.toml")))
    assert config.bindings.directory == folder / "bindings"
    assert config.path.is_absolute()


def test_ipv6(folder: Path) -> None:
    path = put(folder, "good")
    path.write_text(path.read_text().replace("127.0.0.1", "[::1]"))
    assert load(path).listen.egress == ("::1", 8443)


@pytest.mark.parametrize(
    ("upstream", "expected"),
    [
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("http://127.0.0.1:9000/", "http://127.0.0.1:9000"),
        ("http://localhost", "http://localhost:80"),
        ("http://[::1]:9000", "http://[::1]:9000"),
    ],
)
def test_ingress_upstream(folder: Path, upstream: str, expected: str) -> None:
    path = put(folder, "ingress-without-listener")
    text = path.read_text().replace("http://127.0.0.1:9000", upstream)
    path.write_text(text.replace("[identity]", 'ingress = "127.0.0.1:8444"\n[identity]'))
    ingress = load(path).ingress
    assert ingress is not None
    assert ingress.upstream == expected


@pytest.mark.parametrize(("what", "said"), [("missing", "lictor init"), ("a directory", "cannot be read")])
def test_no_file(folder: Path, what: str, said: str) -> None:
    path = folder / "lictor.toml"
    if what == "a directory":
        path.mkdir()
    with pytest.raises(UsageError, match=said):
        load(path)


def test_all_problems_are_told_at_once(folder: Path) -> None:
    path = put(folder, "unknown-key")
    path.write_text(path.read_text().replace("name", "nam"))
    with pytest.raises(UsageError, match=r"egres.*nam|nam.*egres"):
        load(path)


def test_documented() -> None:
    """Every key of the schema is in docs/configuration.md."""
    text = (Path(__file__).parents[2] / "docs/configuration.md").read_text()
    for section, table in schema()["properties"].items():
        for key in table.get("properties", {}):
            assert f"`{section}.{key}`" in text
        for key in table.get("items", {}).get("properties", {}):
            assert f"`{key}`" in text
