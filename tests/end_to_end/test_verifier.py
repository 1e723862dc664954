"""A monitor and a Verifier as real processes: what is done becomes what is said of the agent, whatever fails."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from end_to_end.wire import Answer, Wire
from end_to_end.world import START_S, Monitor, Outside, Server, binding, free_port, target, until

from lictor.certs.domain import TrustDomain
from lictor.certs.evidence_keys import evidence_jwk
from lictor.cli import cli
from lictor.evidence import bet
from lictor.evidence.claims import new_id
from lictor.formats import jws
from lictor.formats.keys import KeySigner
from lictor.verifier.bets import parse_bet

AGENT = "spiffe://test.internal/agent/default"


class VerifierProcess:
    """One `lictor verifier up`."""

    def __init__(self, folder: Path, domain: TrustDomain) -> None:
        self.folder, self.domain, self.port = folder, domain, free_port()
        self.files = domain.add_verifier(f"v-{os.getpid()}-{folder.parent.name}"[:60])
        folder.mkdir()
        self.config = folder / "verifier.toml"
        self.config.write_text(
            f'name = "{self.files.name}"\nlisten = "127.0.0.1:{self.port}"\ntrust = "{domain.path}"\n'
            'register = "data/register.sqlite"\n'
        )
        self.orders = free_port()
        self.process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def table(self) -> str:
        """For the configuration of a monitor."""
        return f'[verifier]\nurl = "{self.url}"\nname = "{self.files.spiffe_id}"\n'

    def takes_orders(self, monitor: Monitor) -> None:
        """Start, and let evidence be asked for there."""
        name = f"spiffe://{self.domain.name}/monitor/{monitor.name}"
        table = f'[[monitor]]\nname = "{name}"\norders = "https://127.0.0.1:{self.orders}"\n'
        self.config.write_text(self.config.read_text() + table)
        self.start()

    def start(self) -> VerifierProcess:
        said = self.folder / "up.log"
        with said.open("w") as log:
            program = [sys.executable, "-m", "lictor", "verifier", "up", "-c", str(self.config)]
            self.process = subprocess.Popen(program, stdout=log, stderr=subprocess.STDOUT, text=True)
        until(lambda: "listens" in said.read_text() or self.process.poll(), START_S, "the Verifier listens")  # type: ignore[union-attr]
        assert self.process.poll() is None, said.read_text()
        return self

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            process, self.process = self.process, None
            process.send_signal(how)
            assert process.wait(20) == (0 if how == signal.SIGTERM else -how)

    def said(self) -> str:
        return (self.folder / "up.log").read_text()

    def ask(self, *more: str, agent: str = AGENT, code: int | None = None) -> dict[str, Any]:
        words = ["verifier", "ask", agent, "--url", self.url, "--trust", str(self.domain.path), "--json", *more]
        done = CliRunner().invoke(cli, words)
        if code is not None:
            assert done.exit_code == code, done.output
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def status(self) -> str:
        return str(self.ask()["status"])

    def reasons(self) -> list[str]:
        return [reason["what"] for reason in self.ask()["agents"][AGENT]["reasons"]]

    def tokens(self) -> list[str]:
        """Every BET that it holds."""
        with contextlib.closing(sqlite3.connect(self.folder / "data/register.sqlite")) as db:
            return [token for (token,) in db.execute("SELECT token FROM bets ORDER BY rowid")]

    def push(self, monitor: str, *tokens: str) -> tuple[int, Any]:
        """Push these BETs as `monitor`, with its keys."""
        files = self.domain.monitor(monitor)
        context = ssl.create_default_context(cafile=str(self.domain.identity_ca))
        context.load_cert_chain(files.cert, files.key)
        body = json.dumps({"keys": [evidence_jwk(files.evidence_cert.read_bytes())], "bets": tokens}).encode()
        try:
            request = urllib.request.Request(f"{self.url}/evidence", body)
            with urllib.request.urlopen(request, context=context, timeout=15) as answer:
                return answer.status, json.loads(answer.read())["verdicts"]
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()

    def order(self, name: str, **arguments: str) -> int:
        """The monitor's answer to an order that the Verifier gives."""
        context = ssl.create_default_context(cafile=str(self.domain.identity_ca))
        context.load_cert_chain(self.files.cert, self.files.key)
        url = f"https://127.0.0.1:{self.orders}/orders/{name}"
        try:
            request = urllib.request.Request(url, json.dumps(arguments).encode())
            with urllib.request.urlopen(request, context=context, timeout=15) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as e:
            return e.code


Start = Callable[..., Monitor]


class Place:
    """A monitor that reports to a Verifier, and a server with what the agent may read and what not."""

    def __init__(self, verifier: VerifierProcess, monitor: Monitor, server: Server) -> None:
        self.verifier, self.monitor, self.server = verifier, monitor, server

    def get(self, path: str = "/open/x") -> Answer:
        with Wire(self.monitor, self.monitor.agent_context()) as wire:
            return wire.tunnel(f"localhost:{self.server.port}").request("GET", path)

    def all_there(self) -> None:
        """Everything that the monitor has issued is with the Verifier, and once."""
        until(
            lambda: (bets := sorted(self.monitor.tokens("bets"))) and bets == sorted(self.verifier.tokens()),
            what="every BET has come, and none twice",
        )


@pytest.fixture
def place(tmp_path: Path, domain: TrustDomain, make_monitor: Start, outside: Outside) -> Iterator[Place]:
    verifier = VerifierProcess(tmp_path / "verifier", domain)
    with contextlib.closing(Server(outside)) as server:
        at = f"https://localhost:{server.port}"
        targets = "".join(target(f"urn:test:{n}", "data_source", f"{at}/{n}/**") for n in ("open", "closed"))
        more = f'[evidence]\ninterval_s = 0.5\n[interception]\nupstream_ca = "{outside.ca}"\n{verifier.table}'
        more += '[orders]\nfrom = ["spiffe://test.internal/agent/orchestrator"]\n'
        rules = {"main": binding(data_source_access=["urn:test:open"])}
        monitor = make_monitor("m", rules, targets, more=more, orders=verifier.orders, start=False)
        verifier.takes_orders(monitor)
        monitor.start()
        yield Place(verifier, monitor, server)
        monitor.stop()
    verifier.stop()


def test_what_the_agent_does_is_what_is_said_of_it(place: Place) -> None:
    verifier = place.verifier
    assert verifier.ask(code=3)["status"] == "none"
    assert verifier.ask("--fresh", code=3)["status"] == "none", "no monitor has seen the agent"
    assert place.get().status == 200
    until(lambda: verifier.status() == "affirming", what="a good window has come")
    found = verifier.ask("--nonce", "this-is-our-nonce", code=0)
    assert found["nonce"] == "this-is-our-nonce"
    assert found["verifier"] == str(verifier.files.spiffe_id)
    assert found["agents"][AGENT]["entries"] >= 1
    assert verifier.ask("--profile", "veraison", code=0)["status"] == "affirming"

    assert place.get("/closed/x").status == 403
    until(lambda: verifier.status() == "contraindicated", what="the refusal has come")
    found = verifier.ask(code=1)
    assert found["agents"][AGENT]["reasons"][0]["what"] == "violations"
    before = verifier.ask()["agents"][AGENT]
    found = verifier.ask("--fresh", code=1)["agents"][AGENT]
    assert found["until"] > before["until"]
    assert "not_fresh" not in [reason["what"] for reason in found["reasons"]]
    assert verifier.order("quarantine", agent=AGENT, why="it is bad") == 403, "it may demand evidence only"
    place.all_there()
    monitor_that_lies_is_named(place)
    place.monitor.stop()
    assert "not_fresh" in [reason["what"] for reason in verifier.ask("--fresh", code=1)["agents"][AGENT]["reasons"]]

    verifier.stop()
    words = ["verifier", "ask", "default", "--url", verifier.url, "--trust", str(place.monitor.domain.path)]
    done = CliRunner().invoke(cli, words)
    assert (done.exit_code, "does not answer" in done.stderr) == (3, True)


def test_whatever_fails_between_nothing_is_lost_and_nothing_waits(place: Place) -> None:
    verifier, monitor = place.verifier, place.monitor
    place.get()
    place.all_there()
    verifier.stop(signal.SIGKILL)
    assert [place.get().status for _ in range(3)] == [200] * 3
    assert place.get("/closed/x").status == 403
    with contextlib.closing(socket.create_server(("127.0.0.1", verifier.port))):
        # It takes connections and says nothing.
        assert [place.get().status for _ in range(3)] == [200] * 3
    assert len(monitor.tokens("bets")) > len(verifier.tokens())
    until(lambda: "evidence does not reach the Verifier" in monitor.output(), what="the monitor says so")
    monitor.kill()
    verifier.start()
    monitor.start()
    place.get()
    place.all_there()
    assert {"gap", "restarted"}.isdisjoint(verifier.reasons())
    monitor.stop()
    place.all_there()


def forged(monitor: Monitor, token: str, **changes: Any) -> str:
    """A BET as the monitor could have signed it, too."""
    claims = jws.parse_compact(token, typ=frozenset({bet.TYP})).claims()
    claims |= {"jti": new_id(), **changes}
    return bet.issue(claims, KeySigner.from_file(monitor.domain.monitor(monitor.name).evidence_key))


def monitor_that_lies_is_named(place: Place) -> None:
    verifier, name = place.verifier, place.monitor.name
    chained = [one for one in map(parse_bet, place.monitor.tokens("bets")) if one.ext["trigger"] != "demand"]
    token = chained[-1].token
    claims = jws.parse_compact(token, typ=frozenset({bet.TYP})).claims()
    other = place.monitor.domain.add_monitor(f"other-{name}"[:60])
    status, verdicts = verifier.push(other.name, token)
    assert (status, verdicts[0]["accepted"]) == (200, False)
    assert verifier.push(name, token) == (200, [{"accepted": True, "jti": claims["jti"], "known": True}])
    assert "forked" not in verifier.reasons()

    assert verifier.push(name, forged(place.monitor, token, bhv_result="pass", bhv_details=[]))[1][0]["accepted"]
    assert "forked" in verifier.reasons()
    assert f"{claims['iss']} contradicts itself in 1 ways" in verifier.said()
    words = ["verifier", "forgive", str(claims["iss"]), "-c", str(verifier.config)]
    assert "forgiven" in CliRunner().invoke(cli, words).stdout
    assert "forked" not in verifier.reasons()
