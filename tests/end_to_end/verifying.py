"""A Verifier as a real process, and a monitor that reports to it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from end_to_end.wire import Answer, Wire
from end_to_end.world import START_S, Monitor, Outside, Server, binding, free_port, target, until

from lictor.certs.domain import TrustDomain
from lictor.certs.evidence_keys import evidence_jwk
from lictor.cli import cli
from lictor.cli.init import write_binding

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

    def turns_to(self, monitor: Monitor, api: int = 0, more: str = "") -> None:
        """Start, and turn to this monitor for evidence, and for its log if that is served at the port `api`."""
        name = f"spiffe://{self.domain.name}/monitor/{monitor.name}"
        table = f'[[monitor]]\nname = "{name}"\norders = "https://127.0.0.1:{self.orders}"\n'
        if api:
            table += f'log = "https://127.0.0.1:{api}"\n'
        self.config.write_text(self.config.read_text() + table + more)
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

    def get(self, path: str = "/open/x", agent: str = "default") -> Answer:
        with Wire(self.monitor, self.monitor.agent_context(agent)) as wire:
            return wire.tunnel(f"localhost:{self.server.port}").request("GET", path)

    def binds(self, name: str, document: dict[str, Any]) -> None:
        """Another binding for the monitor."""
        write_binding(self.monitor.path / "bindings" / f"{name}.json", document, self.monitor.domain)

    def all_there(self) -> None:
        """Everything that the monitor has issued is with the Verifier, and once."""
        until(
            lambda: (bets := sorted(self.monitor.tokens("bets"))) and bets == sorted(self.verifier.tokens()),
            what="every BET has come, and none twice",
        )


@contextlib.contextmanager
def placed(folder: Path, domain: TrustDomain, make_monitor: Start, outside: Outside, **given: Any) -> Iterator[Place]:
    """A place; nothing in it runs before it is started."""
    verifier = VerifierProcess(folder / "verifier", domain)
    with contextlib.closing(Server(outside)) as server, contextlib.ExitStack() as stack:
        stack.callback(verifier.stop)
        at = f"https://localhost:{server.port}"
        targets = "".join(target(f"urn:test:{n}", "data_source", f"{at}/{n}/**") for n in ("open", "closed"))
        more = f'[evidence]\ninterval_s = 0.5\n[interception]\nupstream_ca = "{outside.ca}"\n{verifier.table}'
        more += '[orders]\nfrom = ["spiffe://test.internal/agent/orchestrator"]\n'
        rules = {"main": binding(data_source_access=["urn:test:open"])}
        monitor = make_monitor("m", rules, targets, more=more, orders=verifier.orders, start=False, **given)
        stack.callback(monitor.stop)
        yield Place(verifier, monitor, server)
