"""Real processes on free ports: an outside world with its own CA, and monitors started by `lictor up`."""

from __future__ import annotations

import http.server
import json
import os
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

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lictor.certs.domain import TrustDomain
from lictor.cli.init import write_binding

START_S = 30


def free_port() -> int:
    """A port that was free just now; from below the range that outgoing connections take theirs from."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@dataclass
class Outside:
    """The outside world: a CA of its own and server certificates for localhost and 127.0.0.1."""

    path: Path
    ca: Path = field(init=False)
    cert: Path = field(init=False)
    key: Path = field(init=False)

    def __post_init__(self) -> None:
        import ipaddress

        self.path.mkdir()
        ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "outside CA")])
        now = datetime.now(UTC)

        def builder(subject: x509.Name, public: Any) -> x509.CertificateBuilder:
            made = x509.CertificateBuilder().subject_name(subject).issuer_name(name).public_key(public)
            made = made.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(hours=1))
            return made.not_valid_after(now + timedelta(days=2))

        root = builder(name, ca_key.public_key()).add_extension(x509.BasicConstraints(True, 0), True)
        leaf = builder(x509.Name([]), key.public_key()).add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            True,
        )
        self.ca, self.cert, self.key = (self.path / n for n in ("ca.pem", "cert.pem", "key.pem"))
        self.ca.write_bytes(root.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        self.cert.write_bytes(leaf.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        self.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        self.key.chmod(0o600)


class Server:
    """A threaded HTTP/1.1 server that keeps what it got. `answer(handler)` may be replaced."""

    def __init__(self, outside: Outside | None, client_ca: Path | None = None) -> None:
        self.requests: list[tuple[str, str, Message, bytes]] = []
        self.connections = 0
        self.bytes_seen = 0
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                server.connections += 1

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                server.requests.append((self.command, self.path, self.headers, body))
                server.answer(self)

            do_GET = do_POST = do_PUT = do_DELETE = handle_any

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
            context.load_cert_chain(outside.cert, outside.key)
            if client_ca is not None:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(client_ca)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        body = json.dumps({"path": handler.path}).encode()
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


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
    ) -> None:
        self.path, self.domain, self.name = path, domain, name
        self.port, self.ingress_port = free_port(), free_port()
        path.mkdir(exist_ok=True)
        if not (domain.path / "monitors" / name).exists():
            domain.add_monitor(name)
        for stem, document in bindings.items():
            write_binding(path / "bindings" / f"{stem}.json", document, domain)
        listen = f'egress = "127.0.0.1:{self.port}"\n'
        if ingress:
            listen += f'ingress = "127.0.0.1:{self.ingress_port}"\n\n[ingress]\n{ingress}\n'
        self.config = path / "lictor.toml"
        self.config.write_text(
            f'[monitor]\nname = "{name}"\nworkers = {workers}\n\n[listen]\n{listen}\n'
            f'[identity]\ntrust = "{domain.path}"\n\n[bindings]\ndirectory = "bindings"\n\n'
            f'[ledger]\npath = "data/ledger.sqlite"\n\n{more}\n{targets}'
        )
        self.process: subprocess.Popen[str] | None = None

    def start(self, **popen: Any) -> Monitor:
        self.log = (self.path / "up.log").open("a+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lictor", "up", "-c", str(self.config)],
            stdout=self.log,
            stderr=subprocess.STDOUT,
            text=True,
            **popen,
        )
        deadline = time.monotonic() + START_S
        while "listens for agents" not in self.output():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the monitor did not start:\n{self.output()}")
            time.sleep(0.02)
        return self

    def output(self) -> str:
        return (self.path / "up.log").read_text()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.process is None:
            return 0
        process, self.process = self.process, None
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        code = process.wait(20)
        self.log.close()
        return code

    def workers(self) -> list[int]:
        """Process ids of the workers."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(child) for child in children]

    def entries(self) -> list[dict[str, Any]]:
        """All entries that are on disk now."""
        with sqlite3.connect(f"file:{self.path / 'data/ledger.sqlite'}?mode=ro", uri=True) as db:
            rows = db.execute("select data from entries order by seq").fetchall()
        return [json.loads(row[0]) for row in rows]

    def tokens(self, table: str) -> list[str]:
        with sqlite3.connect(f"file:{self.path / 'data/ledger.sqlite'}?mode=ro", uri=True) as db:
            return [row[0] for row in db.execute(f"select token from {table}").fetchall()]

    def agent_context(self, name: str = "default") -> ssl.SSLContext:
        """TLS to the proxy with an agent's certificate."""
        context = ssl.create_default_context(cafile=str(self.domain.identity_ca))
        agent = self.domain.path / "agents" / name
        context.load_cert_chain(agent / "cert.pem", agent / "key.pem")
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


@pytest.fixture(scope="session")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Outside:
    return Outside(tmp_path_factory.mktemp("outside") / "world")


@pytest.fixture(scope="session")
def domain(tmp_path_factory: pytest.TempPathFactory) -> TrustDomain:
    made = TrustDomain.create(tmp_path_factory.mktemp("domain") / "trust", "test.internal")
    made.add_agent("default")
    return made


@pytest.fixture
def server(outside: Outside) -> Iterator[Server]:
    made = Server(outside)
    yield made
    made.close()


@pytest.fixture
def make_monitor(tmp_path: Path, domain: TrustDomain) -> Iterator[Callable[..., Monitor]]:
    """Makes and starts monitors; all are stopped at the end, and must have ended well."""
    made: list[Monitor] = []

    def make(name: str, *args: Any, start: bool = True, **kwargs: Any) -> Monitor:
        monitor = Monitor(tmp_path / name, domain, f"{name}-{os.getpid()}-{tmp_path.name}"[:60], *args, **kwargs)
        made.append(monitor)
        return monitor.start() if start else monitor

    yield make
    codes = [monitor.stop() for monitor in made]
    assert all(code in (0, -signal.SIGKILL) for code in codes), [monitor.output() for monitor in made]


@pytest.fixture
def make_binding() -> Callable[..., dict[str, Any]]:
    return binding
