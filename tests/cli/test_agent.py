"""`lictor agent add/list/revoke`, as a person or a script runs it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from lictor.certs.domain import TrustDomain
from lictor.cli import main


@pytest.fixture
def trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrustDomain:
    monkeypatch.chdir(tmp_path)
    return TrustDomain.create(tmp_path / "trust", "acme.example")


def lictor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *args: str) -> tuple[int, str, str]:
    """Runs the command line in this process: exit code, standard output, standard error."""
    monkeypatch.setattr(sys, "argv", ["lictor", *args])
    with pytest.raises(SystemExit) as stopped:
        main()
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, captured.err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    return lambda *args: lictor(capsys, monkeypatch, *args)


def test_add_list_revoke(trust: TrustDomain, run) -> None:
    assert run("agent", "list")[1] == "no agents yet: lictor agent add NAME\n"
    code, out, _ = run("agent", "add", "alice", "--days", "2")
    assert code == 0
    assert "spiffe://acme.example/agent/alice" in out
    assert "lictor exec --agent alice -- CMD" in out
    assert re.search(r"alice\s+spiffe://acme.example/agent/alice .* good", run("agent", "list")[1])
    code, out, _ = run("agent", "revoke", "alice")
    assert (code, "revoked spiffe://acme.example/agent/alice" in out) == (0, True)
    assert re.search(r"alice .* revoked", run("agent", "list")[1])
    assert run("agent", "add", "alice")[0] == 0
    assert re.search(r"alice .* good", run("agent", "list")[1])


def test_json(trust: TrustDomain, run) -> None:
    added = json.loads(run("agent", "add", "alice", "--json")[1])
    assert Path(added["cert"]).read_text().startswith("-----BEGIN CERTIFICATE")
    [listed] = json.loads(run("agent", "list", "--json")[1])
    assert listed.items() <= added.items()
    assert listed["state"] == "good"
    revoked = json.loads(run("agent", "revoke", "alice", "--json")[1])
    assert revoked == {**listed, "state": "revoked"}


def test_an_expired_agent_says_so(trust: TrustDomain, run) -> None:
    run("agent", "add", "alice", "--days", "0.0000001")
    assert json.loads(run("agent", "list", "--json")[1])[0]["state"] == "expired"


def test_another_directory(trust: TrustDomain, run, tmp_path: Path) -> None:
    TrustDomain.create(tmp_path / "other", "other.example")
    run("agent", "add", "bob", "--trust", str(tmp_path / "other"))
    assert trust.agents() == []
    assert "spiffe://other.example/agent/bob" in run("agent", "list", "--trust", str(tmp_path / "other"))[1]


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["add", "a/b"], "'a/b' is not a name"),
        (["add", "alice"], "lictor agent revoke alice"),
        (["add", "bob", "--days", "0"], "not a number of days"),
        (["revoke", "bob"], "there is no agent bob"),
        (["list", "--trust", "nowhere"], "make one with lictor init"),
        (["add"], "Missing argument 'NAME'"),
    ],
)
def test_wrong_use_is_named_and_exits_2(trust: TrustDomain, run, args: list[str], reason: str) -> None:
    trust.add_agent("alice")
    code, out, err = run("agent", *args)
    assert (code, out) == (2, "")
    assert reason in err
