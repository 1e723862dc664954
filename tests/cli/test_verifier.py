"""`lictor verifier` as a person calls it; a running one is tried in end_to_end/test_verifier.py."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from end_to_end.world import free_port

from lictor.certs.domain import TrustDomain
from lictor.cli import cli
from lictor.formats.errors import UsageError
from lictor.verifier.service.config import load


@pytest.fixture
def domain(tmp_path: Path) -> TrustDomain:
    made = TrustDomain.create(tmp_path / "trust", "acme.example")
    made.add_agent("alice")
    return made


def call(*args: str) -> str:
    return CliRunner().invoke(cli, ["verifier", *args], catch_exceptions=False).output


def test_what_add_says_to_write_is_a_configuration(domain: TrustDomain) -> None:
    said = call("add", "v", "--host", "verifier.acme.example", "--trust", str(domain.path))
    found = re.search(r'(?s)name = "v".*?register = "[^"]*"\n', said)
    assert found is not None
    path = domain.path.parent / "verifier.toml"
    path.write_text(found[0])
    config = load(path)
    assert (config.spiffe_id, config.listen) == ("spiffe://acme.example/verifier/v", ("verifier.acme.example", 8460))
    assert f'[verifier]\nurl = "https://verifier.acme.example:8460"\nname = "{config.spiffe_id}"' in said
    assert json.loads(call("add", "w", "--trust", str(domain.path), "--json"))["ok"] is True


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (["--url", "http://127.0.0.1:1"], "must be https"),
        (["--url", "https://127.0.0.1:1/path"], "must be https"),
        (["--url", "https://127.0.0.1:99999"], "must be https"),
        (["--url", "https://127.0.0.1:1", "--as", "bob"], "there is no agent bob"),
        (["--url", "https://127.0.0.1:1", "--cert", "x"], "go together"),
        (["--url", "https://127.0.0.1:1", "--to", "2026-01-01"], "a window has a begin"),
    ],
)
def test_what_cannot_be_asked(domain: TrustDomain, more: list[str], what: str) -> None:
    identity = [] if "--as" in more else ["--as", "alice"]
    with pytest.raises(UsageError, match=what):
        call("ask", "alice", "--trust", str(domain.path), *identity, *more)


def test_nobody_answers(domain: TrustDomain) -> None:
    url = f"https://127.0.0.1:{free_port()}"
    done = CliRunner().invoke(
        cli, ["verifier", "ask", "alice", "--as", "alice", "--trust", str(domain.path), "--url", url]
    )
    assert (done.exit_code, "does not answer" in done.stderr) == (3, True)


def test_who_is_no_monitor_is_not_forgiven(domain: TrustDomain) -> None:
    with pytest.raises(UsageError, match="MONITOR: 'one' is not a SPIFFE ID"):
        call("forgive", "one")
