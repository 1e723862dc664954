"""Real processes on free ports: an outside world with its own CA, and monitors started by `lictor up`."""

from __future__ import annotations

import contextlib
import http.server
import ipaddress
import json
import os
import random
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import Message
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lictor.certs.domain import TrustDomain
from lictor.cli.init import write_binding

START_S = 30
WAIT_S = 30


def until[T](ask: Callable[[], T | None], timeout: float = WAIT_S, what: str = "") -> T:
    """What `ask` returns, once it is true. Fails after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (found := ask()):
        assert time.monotonic() < deadline, f"not within {timeout} s: {what or ask}; last: {found!r}"
        time.sleep(0.02)
    return found


_given: set[int] = set()
_PROCESSES = 16
_PROCESS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PROCESSES


def free_port() -> int:
    """A port that is free now, from below the range that outgoing connections and port 0 are given theirs from.

    None is given twice, nor to two processes of one run: it may be long until somebody listens on it.
    """
    while True:
        port = random.randrange(10_000 + _PROCESS, 32_000, _PROCESSES)
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


def alive(pid: int) -> bool:
    """Whether a process runs (and is not a zombie)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@dataclass
class Outside:
    """The outside world: a CA of its own and server certificates, by default for localhost and 127.0.0.1."""

    path: Path
    ca: Path = field(init=False)
    cert: Path = field(init=False)
    key: Path = field(init=False)

    def __post_init__(self) -> None:
        self.path.mkdir()
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"outside CA {self.path.name}")])
        self._ca_key = ec.generate_private_key(ec.SECP256R1())
        self.ca = self.path / "ca.pem"
        root = self._builder(self._name, self._ca_key.public_key(), 2).add_extension(
            x509.BasicConstraints(True, 0), True
        )
        self.ca.write_bytes(root.sign(self._ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        self.cert, self.key = self.issue("localhost", "127.0.0.1")

    def issue(self, *names: str, days: float = 2) -> tuple[Path, Path]:
        """Certificate and key for these hosts; negative `days`: it has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        sans = [x509.IPAddress(ipaddress.ip_address(n)) if n[0].isdigit() else x509.DNSName(n) for n in names]
        leaf = self._builder(x509.Name([]), key.public_key(), days)
        leaf = leaf.add_extension(x509.SubjectAlternativeName(sans), True)
        stem = f"{names[0]}{days:g}"
        cert_path, key_path = self.path / f"{stem}.pem", self.path / f"{stem}.key"
        cert_path.write_bytes(leaf.sign(self._ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        key_path.chmod(0o600)
        return cert_path, key_path

    def _builder(self, subject: x509.Name, public: Any, days: float) -> x509.CertificateBuilder:
        end = datetime.now(UTC) + timedelta(days=days)
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(public)
        made = made.serial_number(x509.random_serial_number()).not_valid_before(end - timedelta(days=5))
        return made.not_valid_after(end)


class Server:
    """A threaded HTTP/1.1 server that keeps what it got. `answer(handler)` may be replaced."""

    def __init__(
        self,
        outside: Outside | None,
        client_ca: Path | None = None,
        cert: tuple[Path, Path] | None = None,
    ) -> None:
        self.requests: list[tuple[str, str, Message, bytes]] = []
        self.clients: list[dict[str, Any]] = []
        """The certificates that clients showed."""
        self.connections = 0
        self.accepting = threading.Event()
        """While it is not set, connections are taken but TLS is not spoken on them."""
        self.accepting.set()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                server.connections += 1
                server.accepting.wait(WAIT_S)

            def handle_any(self) -> None:
                if client_ca is not None:
                    server.clients.append(self.connection.getpeercert())
                server.take(self)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = handle_any

            def log_message(self, *args: object) -> None:
                pass

        class Quiet(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self._server = Quiet(("127.0.0.1", 0), Handler)
        if outside is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*(cert or (outside.cert, outside.key)))
            if client_ca is not None:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(client_ca)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def take(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        """Read the body, remember the request, answer."""
        if "chunked" in handler.headers.get("transfer-encoding", ""):
            body = b"".join(read_chunks(handler.rfile))
        else:
            body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        self.requests.append((handler.command, handler.path, handler.headers, body))
        self.answer(handler)

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        said: dict[str, Any] = {"path": handler.path}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": said} if handler.path == "/mcp" else said).encode()
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    @property
    def seen(self) -> tuple[int, int]:
        """How many connections and requests it has had."""
        return self.connections, len(self.requests)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def read_chunks(file: Any) -> Iterator[bytes]:
    """The chunks of a chunked body."""
    while size := int(file.readline().split(b";")[0], 16):
        yield file.read(size)
        file.readline()
    file.readline()


class Monitor:
    """One `lictor up`, with its configuration in a folder."""

    def __init__(
        self,
        path: Path,
        domain: TrustDomain,
        name: str,
        bindings: dict[str, dict[str, Any]],
        targets: str = "",
        ingress: str = "",
        more: str = "",
        workers: int = 1,
        orders: int = 0,
        evidence: int = 0,
    ) -> None:
        self.path, self.domain, self.name = path, domain, name
        self.port, self.ingress_port = free_port(), free_port()
        path.mkdir(exist_ok=True, parents=True)
        if not (domain.path / "monitors" / name).exists():
            domain.add_monitor(name)
        for stem, document in bindings.items():
            write_binding(path / "bindings" / f"{stem}.json", document, domain)
        listen = f'egress = "127.0.0.1:{self.port}"\n'
        if orders:
            listen += f'orders = "127.0.0.1:{orders}"\n'
        if evidence:
            listen += f'evidence = "127.0.0.1:{evidence}"\n'
        if ingress:
            listen += f'ingress = "127.0.0.1:{self.ingress_port}"\n\n[ingress]\n{ingress}\n'
        self.config = path / "lictor.toml"
        self.config.write_text(
            f'[monitor]\nname = "{name}"\nworkers = {workers}\n\n[listen]\n{listen}\n'
            f'[identity]\ntrust = "{domain.path}"\n\n[bindings]\ndirectory = "bindings"\n\n'
            f'[ledger]\npath = "data/ledger.sqlite"\n\n{more}\n{targets}'
        )
        self.program = ["-m", "lictor"]
        self.process: subprocess.Popen[str] | None = None

    def launch(self, **popen: Any) -> subprocess.Popen[str]:
        """Start the process without waiting for it to listen."""
        self.log = (self.path / "up.log").open("a+")
        self._said = len(self.output())
        self.process = subprocess.Popen(
            [sys.executable, *self.program, "up", "-c", str(self.config)],
            stdout=self.log,
            stderr=subprocess.STDOUT,
            text=True,
            **popen,
        )
        return self.process

    def start(self, **popen: Any) -> Monitor:
        process = self.launch(**popen)
        deadline = time.monotonic() + START_S
        while "listens for agents" not in self.output()[self._said :]:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the monitor did not start:\n{self.output()}")
            time.sleep(0.02)
        return self

    def output(self) -> str:
        return (self.path / "up.log").read_text()

    def stop(self) -> int:
        """SIGTERM; the exit code. Workers that a failed test has orphaned are ended too."""
        for pid in self._orphans():
            os.kill(pid, signal.SIGKILL)
        if self.process is None:
            return 0
        process, self.process = self.process, None
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        code = process.wait(20)
        self.log.close()
        return code

    def _orphans(self) -> list[int]:
        """Workers of this monitor whose control process is gone."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, IndexError):
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                started = (path / "cmdline").read_bytes()
                if parent == 1 and b"lictor.proxy.worker" in started and str(self.config).encode() in started:
                    found.append(int(path.name))
        return found

    def kill(self, *pids: int) -> None:
        """SIGKILL to these processes (default: the control process); returns when they and all workers are gone."""
        assert self.process is not None
        control, workers = self.process, self.workers()
        for pid in pids or (control.pid,):
            os.kill(pid, signal.SIGKILL)
        if not pids or control.pid in pids:
            control.wait(WAIT_S)
            until(lambda: not any(map(alive, workers)), what="the workers are gone")
            self.process = None
            self.log.close()

    def workers(self) -> list[int]:
        """Process ids of the workers."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(child) for child in children]

    def entries(self) -> list[dict[str, Any]]:
        """All entries that are on disk now."""
        return [json.loads(data) for data in self._column("select data from entries order by seq")]

    def of_agents(self) -> list[dict[str, Any]]:
        """The entries but for those that the monitor made about itself."""
        own = f"spiffe://{self.domain.name}/monitor/{self.name}"
        return [e for e in self.entries() if e["agent_id"] != own]

    def entries_of(self, since: int) -> list[dict[str, Any]]:
        """The actions from entry `since` on and their outcomes: none of what came before and ended late."""
        return [e for e in self.entries()[since:] if e.get("outcome_of", since) >= since]

    def wait_for(self, wanted: Callable[[dict[str, Any]], Any], since: int = 0) -> dict[str, Any]:
        """The first entry from `since` on that is wanted; outcomes come a moment after the response."""
        return until(
            lambda: next((e for e in self.entries()[since:] if wanted(e)), None), what=f"entry in {self.entries()}"
        )

    def outcome(self, since: int = 0) -> dict[str, Any]:
        """The outcome of the first action from entry `since` on."""
        found: dict[str, Any] = self.wait_for(lambda e: e.get("outcome_of", -1) >= since, since)["outcome"]
        return found

    def tokens(self, table: str) -> list[str]:
        return self._column(f"select token from {table}")

    def _column(self, query: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(f"file:{self.path / 'data/ledger.sqlite'}?mode=ro", uri=True)) as db:
            return [row[0] for row in db.execute(query).fetchall()]

    def agent_context(self, name: str = "default") -> ssl.SSLContext:
        """TLS to the proxy with an agent's certificate."""
        agent = self.domain.path / "agents" / name
        return self.caller_context(agent / "cert.pem", agent / "key.pem")

    def caller_context(self, cert: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
        """TLS to the proxy with any certificate, or none."""
        context = ssl.create_default_context(cafile=str(self.domain.identity_ca))
        if cert is not None:
            context.load_cert_chain(cert, key)
        return context

    def target_context(self) -> ssl.SSLContext:
        """TLS inside the tunnel: only the interception root is trusted."""
        return ssl.create_default_context(cafile=str(self.domain.interception_root))

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"


def binding(policy: str = "urn:test:policy:main", version: str = "1.0.0", **allow: list[str]) -> dict[str, Any]:
    """A binding with one allowlist behavior per action type."""
    return {
        "policy_id": policy,
        "version": version,
        "evaluation_mode": "continuous",
        "expected_behaviors": [
            {
                "behavior_id": f"bhv-{type_}",
                "observable_actions": [type_],
                "compliance_criteria": {"type": "allowlist", "values": values},
            }
            for type_, values in allow.items()
        ],
    }


def target(urn: str, kind: str, *match: str, **more: Any) -> str:
    """A `[[target]]` table."""
    table = {"urn": urn, "kind": kind, "match": list(match), **{name: str(value) for name, value in more.items()}}
    return "[[target]]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in table.items())
