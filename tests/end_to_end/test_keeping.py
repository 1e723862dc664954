"""A running monitor: its evidence key is exchanged, held by another process, and lost; old entries are erased."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from command_line import Done, lictor, spawned
from end_to_end.world import Monitor, Outside, Server, binding, target, until

from lictor.certs.domain import TrustDomain
from lictor.certs.evidence_keys import EvidenceKeys, evidence_jwk
from lictor.evidence.sqlite_store import SqliteReader
from lictor.formats import jws
from lictor.formats.keys import KeySigner, read_private
from lictor.formats.signed_note import parse_note
from lictor.proxy.known_keys import KnownKeys
from lictor.verifier.log import verify_log

Make = Callable[..., Monitor]


def get(monitor: Monitor, url: str) -> int:
    proxy = httpx.Proxy(monitor.url, ssl_context=monitor.agent_context())
    with httpx.Client(proxy=proxy, verify=monitor.target_context(), timeout=20) as client:
        try:
            return client.get(url).status_code
        except httpx.ProxyError:
            return 403


def answer(*args: object, by: Callable[..., Done] = lictor) -> dict[str, Any]:
    done = by(*args, "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def ledger_of(monitor: Monitor) -> Path:
    return monitor.path / "data/ledger.sqlite"


def kids(monitor: Monitor) -> list[str]:
    with contextlib.closing(SqliteReader(ledger_of(monitor))) as reader:
        return [row.id for row in reader.documents("key")]


def signatures(monitor: Monitor) -> int:
    with contextlib.closing(SqliteReader(ledger_of(monitor))) as reader:
        return len(parse_note(reader.last_checkpoint() or "").signatures)


def kid_of(token: str) -> str:
    return jws.parse_compact(token, typ=frozenset({"bet+jwt"})).kid


@pytest.fixture
def allowing(make_monitor: Make, outside: Outside, server: Server) -> Callable[..., Monitor]:
    def make(name: str, more: str = "", **kwargs: Any) -> Monitor:
        rule, data = binding(data_source_access=["urn:test:data"]), f"https://localhost:{server.port}/**"
        upstream = f'[interception]\nupstream_ca = "{outside.ca}"\n\n{more}\n'
        return make_monitor(name, {"main": rule}, target("urn:test:data", "data_source", data), more=upstream, **kwargs)

    return make


def test_a_key_is_exchanged_while_the_monitor_runs(
    allowing: Callable[..., Monitor], server: Server, domain: TrustDomain
) -> None:
    monitor = allowing("rotated")
    url, denied = f"https://localhost:{server.port}/a", "https://localhost:1/no"
    known = KnownKeys(domain.path, domain.identity_ca.read_bytes())
    assert get(monitor, url) == 200
    assert get(monitor, denied) == 403
    (old,) = kids(monitor)
    made = answer("monitor", "rotate-evidence", monitor.name, "--trust", domain.path, by=spawned)
    until(lambda: len(kids(monitor)) == 2, what="the new key is in the log")
    assert kids(monitor) == [old, made["kid"]] != [old, old]
    rotation = monitor.wait_for(lambda e: e["action_type"] == "key_rotation")
    assert rotation["action_parameters"] == {"kid": made["kid"], "previous_kid": old}
    assert rotation["agent_id"] == f"spiffe://test.internal/monitor/{monitor.name}"
    assert signatures(monitor) == 2

    assert get(monitor, url) == 200
    assert get(monitor, denied) == 403
    bets = monitor.tokens("bets")
    assert [kid_of(token) for token in (bets[0], bets[-1])] == [old, made["kid"]]
    # Other monitors of the trust domain, and whoever has the CA, take tokens of both keys.
    iss = rotation["agent_id"]
    assert known.resolve(old, iss) != known.resolve(made["kid"], iss)
    report = verify_log(ledger_of(monitor), domain.identity_ca.read_bytes())
    assert (report.verdict, report.problem) == ("intact", None)

    answer("monitor", "retire-evidence", monitor.name, "--trust", domain.path, by=spawned)
    assert get(monitor, url) == 200
    until(lambda: get(monitor, url) == 200 and signatures(monitor) == 1, what="the former key signs no more")
    monitor.stop()
    assert [e["action_type"] for e in monitor.entries()].count("key_rotation") == 1
    monitor.start()
    assert get(monitor, url) == 200
    monitor.stop()
    assert [e["action_type"] for e in monitor.entries()].count("key_rotation") == 1
    report = verify_log(ledger_of(monitor), domain.identity_ca.read_bytes())
    assert (report.verdict, report.problem) == ("intact", None)


def test_a_key_that_was_exchanged_while_nothing_ran(
    allowing: Callable[..., Monitor], server: Server, domain: TrustDomain
) -> None:
    monitor = allowing("rotated-stopped")
    assert get(monitor, f"https://localhost:{server.port}/a") == 200
    monitor.stop()
    domain.rotate_evidence(monitor.name, overlap=False)
    monitor.start()
    assert signatures(monitor) == 1
    assert [e["action_type"] for e in monitor.entries()].count("key_rotation") == 1
    report = verify_log(ledger_of(monitor), domain.identity_ca.read_bytes())
    assert (report.verdict, report.problem) == ("intact", None)


def test_a_key_that_does_not_fit_is_not_taken(
    allowing: Callable[..., Monitor], server: Server, domain: TrustDomain
) -> None:
    monitor = allowing("misfit")
    files = domain.monitor(monitor.name)
    pem = files.evidence_key.read_bytes()
    other = domain.add_monitor(f"{monitor.name}-2"[-60:])
    files.evidence_key.write_bytes(other.evidence_key.read_bytes())
    until(lambda: "cannot be taken, what there was stays in force" in monitor.output(), what="a warning")
    assert get(monitor, f"https://localhost:{server.port}/a") == 200
    monitor.stop()
    monitor.launch()
    assert monitor.process is not None
    assert monitor.process.wait(20) == 2
    assert "run lictor monitor rotate-evidence" in monitor.output()
    files.evidence_key.write_bytes(pem)
    monitor.process = None


@pytest.mark.parametrize("file", ["evidence.key", "key.pem", "interception.pem", "evidence.previous.key"])
def test_a_key_that_others_can_read_is_refused(
    allowing: Callable[..., Monitor], domain: TrustDomain, file: str
) -> None:
    monitor = allowing(f"open-{file.replace('.', '-')}", start=False)
    domain.rotate_evidence(monitor.name)
    path = domain.monitor(monitor.name).directory / file
    path.chmod(0o640)
    monitor.launch()
    assert monitor.process is not None
    assert monitor.process.wait(30) != 0
    assert f"{path} is open to others (mode 0640)" in monitor.output()
    monitor.process = None


@contextlib.contextmanager
def signing_agent(key: Path, path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "lictor", "signer", "up", "--key", str(key), "--socket", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        assert "signs at" in process.stdout.readline()
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


def test_the_key_in_a_process_of_its_own(
    allowing: Callable[..., Monitor], server: Server, domain: TrustDomain, tmp_path: Path
) -> None:
    url = f"https://localhost:{server.port}/a"
    monitor = allowing("agent-held", f'[evidence]\nsigner = "unix:{tmp_path}/s"\n', start=False)
    files, key = domain.monitor(monitor.name), tmp_path / "evidence.key"
    os.replace(files.evidence_key, key)
    monitor.launch()
    assert monitor.process is not None
    assert monitor.process.wait(30) == 2
    assert "start it with lictor signer up" in monitor.output()
    monitor.process = None
    with signing_agent(key, tmp_path / "s") as agent:
        monitor.start()
        assert get(monitor, url) == 200
        report = verify_log(ledger_of(monitor), domain.identity_ca.read_bytes())
        assert (report.verdict, report.problem) == ("intact", None)
        assert kids(monitor) == [KeySigner.of(read_private(key)).kid]
        agent.kill()
        agent.wait()
        seen = server.seen
        assert get(monitor, url) == 503
        assert get(monitor, url) == 503
        assert server.seen[1] == seen[1]
    monitor.kill()
    with signing_agent(key, tmp_path / "s"):
        monitor.start()
        assert get(monitor, url) == 200
        monitor.stop()
    report = verify_log(ledger_of(monitor), domain.identity_ca.read_bytes())
    assert (report.verdict, report.problem) == ("intact", None)


def test_old_entries_are_erased_by_hand(allowing: Callable[..., Monitor], server: Server, domain: TrustDomain) -> None:
    monitor = allowing("erased", "[evidence]\ninterval_s = 0.3\njitter = 0.0\n")
    for name in ("first", "second"):
        assert get(monitor, f"https://localhost:{server.port}/{name}") == 200
    until(lambda: monitor.tokens("bets") and len(monitor.of_agents()) == 4, what="a BET over the entries")
    until(lambda: verify_log(ledger_of(monitor), domain.identity_ca.read_bytes()).uncovered == 0, what="all in BETs")
    cut = time.time()
    assert get(monitor, f"https://localhost:{server.port}/third") == 200
    done = answer("log", "erase", "--yes", "--before", cut, "--ledger", ledger_of(monitor), by=spawned)
    assert (done["end"], done["erased_now"], done["scrubbed"]) == (5, 5, True)
    for file in ledger_of(monitor).parent.glob("ledger.sqlite*"):
        if file.is_file():
            assert b'"seq":0,' not in file.read_bytes()
    verified = answer("log", "verify", ledger_of(monitor), "--trust", domain.identity_ca)
    assert (verified["verdict"], verified["erased"], verified["erased_under"][0]["rule"]) == ("intact", 5, "by hand")
    again = lambda: verify_log(ledger_of(monitor), domain.identity_ca.read_bytes()).descriptions == 1  # noqa: E731
    until(again, what="the description that was erased is there anew")
    assert get(monitor, f"https://localhost:{server.port}/fourth") == 200
    monitor.stop()
    monitor.start()
    assert get(monitor, f"https://localhost:{server.port}/fifth") == 200


def test_a_monitor_erases_by_itself_what_is_too_old(
    allowing: Callable[..., Monitor], server: Server, domain: TrustDomain
) -> None:
    monitor = allowing("kept-short", "[evidence]\nretention_days = 1e-6\n")
    assert get(monitor, f"https://localhost:{server.port}/first") == 200
    monitor.stop()
    until(lambda: time.time() - monitor_time(monitor) > 0.2, what="the entries are too old")
    monitor.start()
    until(lambda: _erased(monitor) >= 2, what="they are erased")
    report = verify_log(ledger_of(monitor), domain.identity_ca.read_bytes())
    assert report.verdict == "intact"
    assert [one.rule for one in report.erased_under] == ["evidence.retention_days = 1e-06"]


def test_a_named_argument_is_kept_and_shown_to_an_auditor(
    make_monitor: Make, outside: Outside, server: Server, domain: TrustDomain
) -> None:
    urn, url = "urn:test:tool:mcp", f"https://localhost:{server.port}/mcp"
    rule = binding(tool_call=[urn, f"{urn}#tools/add"])
    rule["expected_behaviors"][0]["keep"] = {"values": ["/arguments"], "redact": ["/arguments/password"]}
    targets = target(urn, "tool", url, protocol="mcp")
    monitor = make_monitor("keeping", {"main": rule}, targets, more=f'[interception]\nupstream_ca = "{outside.ca}"\n')
    arguments = {"patient": "Ada Lovelace", "dose": 3, "password": "s3cret-word"}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "add", "arguments": arguments}}
    proxy = httpx.Proxy(monitor.url, ssl_context=monitor.agent_context())
    with httpx.Client(proxy=proxy, verify=monitor.target_context(), timeout=20) as client:
        assert client.post(url, json=call).status_code == 200
    entry = monitor.wait_for(lambda e: e["action_type"] == "tool_call")
    assert len(entry["action_parameters"]["_sd"]) == 2
    monitor.stop()

    ledger, shown = ledger_of(monitor), monitor.path / "shown.json"
    made = answer("log", "disclose", entry["seq"], "--field", "/arguments/dose", "-o", shown, "--ledger", ledger)
    assert made["kept"] == ["/arguments/dose", "/arguments/patient"]
    made = answer(
        "log", "disclose", entry["seq"], "--field", "/arguments/dose", "--bet", made["bets"][0], "-o", shown,
        "--ledger", ledger,
    )  # fmt: skip
    assert shown.stat().st_mode & 0o777 == 0o600
    found = answer("log", "verify-disclosure", shown, "--trust", domain.identity_ca)
    assert (found["fields"], found["hidden"]) == ({"/arguments/dose": 3}, 1)
    assert found["bet"]["result"] == "pass"
    for file in monitor.path.rglob("*"):
        if file.is_file():
            assert b"s3cret-word" not in file.read_bytes()
    shown.write_text(shown.read_text().replace("http_request", "tool_call").replace('"fields":["', '"fields":["A'))
    bad = spawned("log", "verify-disclosure", shown, "--trust", domain.identity_ca)
    assert (bad.returncode, bad.stdout[:3]) == (1, "bad")


def monitor_time(monitor: Monitor) -> float:
    return float(monitor.entries()[-1]["timestamp"])


def _erased(monitor: Monitor) -> int:
    with contextlib.closing(SqliteReader(ledger_of(monitor))) as reader:
        return reader.erased()


def test_former_certificates_stay(domain: TrustDomain) -> None:
    files = domain.add_monitor("former")
    found = {evidence_jwk(files.evidence_cert.read_bytes())["kid"]}
    for _ in range(3):
        domain.rotate_evidence("former")
        found.add(evidence_jwk(files.evidence_cert.read_bytes())["kid"])
    assert len(found) == 4
    keys = EvidenceKeys(domain.identity_ca.read_bytes())
    kept = {keys.add_jwk(evidence_jwk(path.read_bytes())) for path in files.directory.glob("evidence*.pem")}
    assert kept == found
