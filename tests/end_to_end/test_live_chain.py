"""A chain verified live, from the monitors that run: the same answers as from their files."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest
from command_line import lictor, spawned
from end_to_end.world import Monitor, Server, binding, free_port, until

from lictor.certs.domain import TrustDomain

AGENT_B, URN_B = "spiffe://test.internal/agent/b", "urn:test:agent:b"
MESSAGE = {"jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": {"message": {"messageId": "m", "parts": []}}}


class Pair:
    """Two monitors that serve their logs to `auditor`, between which work was handed on."""

    def __init__(self, a: Monitor, b: Monitor, apis: tuple[int, int], local: Server, tmp: Path) -> None:
        self.a, self.b, self.local, self.tmp = a, b, local, tmp
        self.urls = tuple(f"https://127.0.0.1:{port}" for port in apis)
        self.ca = a.domain.identity_ca

    def delegate(self) -> None:
        proxy = httpx.Proxy(self.a.url, ssl_context=self.a.agent_context())
        since = len(self.a.entries()), len(self.b.entries())
        with httpx.Client(proxy=proxy, verify=self.a.target_context(), trust_env=False, timeout=20) as http:
            answer = http.post(f"https://127.0.0.1:{self.b.ingress_port}/", json=MESSAGE)
        assert answer.status_code == 200, answer.text
        self.a.outcome(since[0])
        self.b.outcome(since[1])

    def chain(self, command: str, *logs: str | Path, who: str = "auditor") -> tuple[int, dict[str, Any]]:
        with mock.patch.object(tempfile, "tempdir", str(self.tmp)):
            done = lictor("chain", command, *logs, "--trust", self.ca, "--as", who, "--json")
        assert done.stdout, done.stderr
        assert not [*self.tmp.iterdir()], "nothing is left"
        return done.returncode, json.loads(done.stdout)


@pytest.fixture(scope="module")
def pair(
    share_monitor: Callable[..., Monitor], domain: TrustDomain, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    for name in ("auditor", "nobody"):
        if not (domain.path / "agents" / name).exists():
            domain.add_agent(name)
    local, apis = Server(None), (free_port(), free_port())
    serves = '[api]\nauditors = ["spiffe://test.internal/agent/auditor"]\n'
    inbound = {**binding(delegation=[URN_B]), "subjects": ["spiffe://test.internal/monitor/*"]}
    ingress = f'agent = "{AGENT_B}"\nurn = "{URN_B}"\nupstream = "http://127.0.0.1:{local.port}"'
    b = share_monitor("live-b", {"inbound": inbound}, ingress=ingress, more=serves, start=False)
    table = f'[[target]]\nurn = "{URN_B}"\nkind = "agent"\nmatch = ["https://127.0.0.1:{b.ingress_port}/**"]\n'
    more = f'{table}agent = "{AGENT_B}"\n'
    a = share_monitor("live-a", {"main": binding(delegation=[URN_B])}, more, more=serves, start=False)
    for monitor, port in zip((a, b), apis, strict=True):
        text = monitor.config.read_text().replace("[listen]\n", f'[listen]\napi = "127.0.0.1:{port}"\n')
        monitor.config.write_text(text)
        monitor.start()
    made = Pair(a, b, apis, local, tmp_path_factory.mktemp("files"))
    made.delegate()
    yield made
    local.close()


def test_the_chain_of_running_monitors_is_intact(pair: Pair) -> None:
    code, said = pair.chain("verify", *pair.urls)
    assert (code, said["ok"], said["chain"]["verdict"]) == (0, True, "intact"), said
    assert [(log["file"], log["verdict"]) for log in said["logs"]] == [(url, "intact") for url in pair.urls]
    assert [edge["state"] for edge in said["chain"]["edges"]] == ["agreed"]
    before = said["logs"][0]["entries"]
    pair.delegate()
    code, said = pair.chain("verify", *pair.urls)
    assert (code, len(said["chain"]["edges"])) == (0, 2)
    assert said["logs"][0]["entries"] > before
    assert len(pair.chain("show", *pair.urls)[1]["workflows"]) == len(said["chain"]["workflows"])


def test_files_ledgers_and_urls_beside_one_another(pair: Pair, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    assert lictor("log", "export", file, "-c", pair.a.config).returncode == 0
    for first in (file, pair.a.path / "data/ledger.sqlite"):
        code, said = pair.chain("verify", first, pair.urls[1])
        assert (code, [log["file"] for log in said["logs"]]) == (0, [str(first), pair.urls[1]]), said


def test_a_log_that_was_read_before_accuses_nobody(pair: Pair, tmp_path: Path) -> None:
    for monitor, other in ((pair.a, pair.urls[1]), (pair.b, pair.urls[0])):
        file = tmp_path / "before.jsonl"
        assert lictor("log", "export", file, "-c", monitor.config).returncode == 0
        pair.delegate()
        code, said = pair.chain("verify", file, other)
        assert (code, said["chain"]["verdict"]) == (3, "gap"), said
        assert "read it again" in json.dumps(said["chain"]["problems"])
        assert pair.chain("verify", *pair.urls)[0] == 0


def test_one_side_only_is_a_gap(pair: Pair) -> None:
    code, said = pair.chain("verify", pair.urls[1])
    assert (code, said["chain"]["verdict"]) == (3, "gap")


def test_what_cannot_be_had_is_named_and_the_rest_is_verified(pair: Pair) -> None:
    nowhere = f"https://127.0.0.1:{free_port()}"
    code, said = pair.chain("verify", pair.urls[0], nowhere)
    assert code == 3
    verdicts = {log["file"]: log["verdict"] for log in said["logs"]}
    assert verdicts == {pair.urls[0]: "intact", nowhere: "missing"}
    code, said = pair.chain("verify", *pair.urls, who="nobody")
    assert (code, {log["verdict"] for log in said["logs"]}) == (3, {"missing"})
    assert "api.auditors" in said["logs"][0]["problem"]["what"]


def test_a_single_log(pair: Pair) -> None:
    ask = ("--trust", pair.ca, "--as", "auditor", "--json")
    done = spawned("log", "verify", pair.urls[0], *ask)
    report = json.loads(done.stdout)
    assert (done.returncode, report["verdict"], report["file"]) == (0, "intact", pair.urls[0])
    done = lictor("log", "verify", f"https://127.0.0.1:{free_port()}", *ask)
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (3, "missing")
    done = lictor("log", "verify", pair.urls[0], "--trust", pair.ca, "--as", "auditor", "--limit", "0.000001")
    assert done.returncode == 3
    assert "more than 1073 octets" in done.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("http://127.0.0.1:1",), "https://HOST:PORT"),
        (("https://127.0.0.1",), "https://HOST:PORT"),
        (("https://127.0.0.1:1", "--as", "mallory"), "there is no certificate"),
        (("https://127.0.0.1:1", "--cert", "x"), "--cert and --key go together"),
    ],
)
def test_wrong_use(pair: Pair, args: tuple[str, ...], message: str) -> None:
    done = lictor("chain", "verify", *args, "--trust", pair.ca)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr


def test_a_log_that_was_rewritten_is_bad_from_the_api_too(pair: Pair) -> None:
    """An operator alters an entry under the running monitor."""
    with sqlite3.connect(pair.a.path / "data/ledger.sqlite") as db:
        before = db.execute("SELECT data FROM entries WHERE seq = 1").fetchone()[0]
        db.execute("UPDATE entries SET data = replace(data, 'POST', 'PUTS') WHERE seq = 1")
    try:
        code, said = pair.chain("verify", *pair.urls)
    finally:
        with sqlite3.connect(pair.a.path / "data/ledger.sqlite") as db:
            db.execute("UPDATE entries SET data = ? WHERE seq = 1", (before,))
    assert (code, said["logs"][0]["verdict"]) == (1, "bad"), said
    assert said["logs"][0]["problem"]["seq"] == 1


def test_a_command_that_is_ended_leaves_nothing(pair: Pair) -> None:
    """Its server takes the connection and says nothing."""
    pair.local.accepting.clear()
    program = [sys.executable, "-m", "lictor", "chain", "verify", f"https://127.0.0.1:{pair.local.port}"]
    process = subprocess.Popen(
        [*program, "--trust", str(pair.ca), "--as", "auditor"],
        env={**os.environ, "TMPDIR": str(pair.tmp)},
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: [*pair.tmp.glob("lictor-*/*")], what="a file was begun")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM
    finally:
        pair.local.accepting.set()
    assert not [*pair.tmp.iterdir()]
