"""`lictor federation`: bundles that are exchanged, as the command line makes and explains them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lictor.certs.domain import TrustDomain
from lictor.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def domain(tmp_path: Path) -> TrustDomain:
    made = TrustDomain.create(tmp_path / "trust", "partner.example")
    made.add_monitor("m")
    return made


@pytest.fixture
def lictor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["lictor", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


def test_what_is_exported_is_shown(domain: TrustDomain, lictor: Run) -> None:
    code, out, said = lictor("federation", "export", "--out", "bundle.json")
    assert (code, out) == (0, "")
    assert "wrote bundle.json, the trust bundle of partner.example" in said
    code, out, _ = lictor("federation", "show", "bundle.json")
    assert code == 0
    assert "spiffe://partner.example/monitor/m" in out
    code, out, _ = lictor("federation", "show", "bundle.json", "--json")
    shown = json.loads(out)
    assert (code, shown["ok"], shown["trust_domain"]) == (0, True, "partner.example")
    assert [key["monitor"] for key in shown["evidence_keys"]] == ["spiffe://partner.example/monitor/m"]
    printed = lictor("federation", "export")[1]
    assert json.loads(printed)["keys"] == json.loads(Path("bundle.json").read_text())["keys"]


def test_what_cannot_be_relied_on(domain: TrustDomain, lictor: Run) -> None:
    Path("bundle.json").write_text(lictor("federation", "export")[1].replace("x509-svid", "jwt-svid"))
    code, out, _ = lictor("federation", "show", "bundle.json")
    assert code == 1
    assert "0 keys of use x509-svid" in out
    code, out, _ = lictor("federation", "show", "bundle.json", "--json")
    assert (code, json.loads(out)["ok"]) == (1, False)
    assert lictor("federation", "show", "none.json")[0] == 2


def test_a_monitor_is_revoked(domain: TrustDomain, lictor: Run) -> None:
    assert lictor("monitor", "revoke", "m")[:2] == (0, "spiffe://partner.example/monitor/m is revoked\n")
    lictor("federation", "export", "--out", "bundle.json")
    shown = json.loads(lictor("federation", "show", "bundle.json", "--json")[1])
    assert (shown["revoked"], shown["evidence_keys"]) == (2, [])
    assert lictor("monitor", "revoke", "other")[0] == 2


@pytest.mark.parametrize(
    "command", ["log verify x --trust trust/identity-ca.pem", "chain verify x", "bet verify a.b.c"]
)
def test_a_bundle_that_is_none_is_wrong_use(domain: TrustDomain, lictor: Run, command: str) -> None:
    Path("bad.json").write_text("{}")
    code, _, said = lictor(*command.split(), "--bundle", "bad.json")
    assert code == 2
    assert "bad.json cannot be relied on" in said


def test_two_cas_for_one_domain_are_wrong_use(domain: TrustDomain, lictor: Run) -> None:
    other = TrustDomain.create(Path("other"), "partner.example")
    lictor("federation", "export", "--trust", other.path, "--out", "other.json")
    trust = ("--trust", domain.identity_ca, "--bundle", "other.json")
    code, _, said = lictor("bet", "verify", "a.b.c", *trust)
    assert code == 2
    assert "two CAs are given for the trust domain partner.example" in said
