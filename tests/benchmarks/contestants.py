"""What is measured, and what it is measured against: each a running process with a port and a CA to trust."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lictor.bindings import signing
from lictor.certs.domain import TrustDomain
from lictor.formats.keys import KeySigner

from .load import Load

START_TIMEOUT = 20.0
TRUST_DOMAIN = "bench.lictor.internal"
SQUID_CERTGEN = "/usr/lib/squid/security_file_certgen"


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to the upstream. `process`: its root process; None: no proxy at all. `load` lacks the kind of target."""

    name: str
    load: Load
    process: subprocess.Popen[bytes] | None = None


@dataclass(frozen=True, slots=True)
class Upstream:
    """nginx with a small JSON answer, over TLS and in plaintext."""

    https_port: int
    http_port: int
    ca: Path

    def direct(self) -> Load:
        return Load("keepalive", 1, 1.0, "127.0.0.1", self.https_port, str(self.ca))

    def through(self, port: int, intercepting_ca: Path) -> Load:
        return replace(self.direct(), target_ca=str(intercepting_ca), proxy_host="127.0.0.1", proxy_port=port)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that listens on `port`, ended afterwards."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        _wait_for(port, process, log)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_TIMEOUT
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise SystemExit(f"{process.args!r} does not listen on port {port}:\n{log.read_text(errors='replace')[-2000:]}")


@contextlib.contextmanager
def upstream(directory: Path, domain: TrustDomain) -> Iterator[Upstream]:
    """nginx, with a server certificate of the trust domain."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        raise SystemExit("the benchmark needs nginx as its upstream: install nginx-light")
    domain.add_monitor("upstream")
    identity = domain.path / "monitors" / "upstream"
    https, http = free_port(), free_port()
    scratch = "".join(
        f"{kind}_temp_path {directory}/nginx-{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    body = json.dumps({"item": "x" * 489})
    config = directory / "nginx.conf"
    config.write_text(
        f"worker_processes 1; daemon off; pid {directory}/nginx.pid; error_log {directory}/nginx.err;\n"
        "events { worker_connections 1024; }\n"
        f"http {{ access_log off; keepalive_requests 10000000; keepalive_timeout 600s; {scratch}\n"
        f" server {{ listen 127.0.0.1:{https} ssl backlog=1024; listen 127.0.0.1:{http} backlog=1024;\n"
        f"  ssl_certificate {identity}/cert.pem; ssl_certificate_key {identity}/key.pem;\n"
        f"  default_type application/json; location / {{ return 200 '{body}'; }} }} }}\n"
    )
    with running([nginx, "-c", str(config), "-e", str(directory / "nginx.err")], https, directory / "nginx.log"):
        yield Upstream(https, http, domain.path / "identity-ca.pem")


@contextlib.contextmanager
def lictor(directory: Path, up: Upstream, workers: int) -> Iterator[Contestant]:
    """`lictor up`, with its own trust domain, a signed binding that allows the upstream, and a ledger on disk."""
    directory.mkdir()
    domain = TrustDomain.create(directory / "trust", TRUST_DOMAIN)
    domain.add_agent("bench")
    domain.add_monitor("local")
    match = [f"https://127.0.0.1:{up.https_port}/**", f"http://127.0.0.1:{up.http_port}/**"]
    binding = {
        "policy_id": "urn:lictor:policy:bench",
        "version": "1.0.0",
        "evaluation_mode": "continuous",
        "expected_behaviors": [
            {
                "behavior_id": "web",
                "description": "The load generator's requests",
                "observable_actions": ["data_source_access"],
                "compliance_criteria": {"type": "allowlist", "values": ["urn:bench:data"]},
            }
        ],
    }
    bindings = directory / "bindings"
    bindings.mkdir()
    (bindings / "bench.json").write_text(json.dumps(binding))
    signature = signing.sign(binding, KeySigner.from_file(domain.operator_key))
    signing.signature_path(bindings / "bench.json").write_text(signature + "\n")
    port = free_port()
    config = directory / "lictor.toml"
    config.write_text(
        f'[monitor]\nname = "local"\nworkers = {workers}\n\n[listen]\negress = "127.0.0.1:{port}"\n\n'
        f'[identity]\ntrust = "trust"\n\n[interception]\nupstream_ca = "{up.ca}"\n\n'
        '[bindings]\ndirectory = "bindings"\n\n[ledger]\npath = "data/ledger.sqlite"\n\n'
        f'[[target]]\nurn = "urn:bench:data"\nkind = "data_source"\nmatch = {json.dumps(match)}\n'
    )
    agent = domain.path / "agents" / "bench"
    load = replace(
        up.through(port, domain.path / "interception-root.pem"),
        proxy_ca=str(domain.path / "identity-ca.pem"),
        client_cert=str(agent / "cert.pem"),
        client_key=str(agent / "key.pem"),
    )
    command = [str(Path(sys.executable).with_name("lictor")), "up", "-c", str(config)]
    with running(command, port, directory / "lictor.log") as process:
        yield Contestant(f"lictor, {workers} worker{'s' if workers > 1 else ''}", load, process)


@contextlib.contextmanager
def mitmdump(directory: Path, up: Upstream) -> Iterator[Contestant]:
    """Stock `mitmdump -q`, with the CA that it makes for itself. No mTLS, no judging, no record."""
    directory.mkdir()
    port = free_port()
    command = [
        *(str(Path(sys.executable).with_name("mitmdump")), "-q", "--listen-host", "127.0.0.1", "-p", str(port)),
        *("--set", f"confdir={directory}", "--set", f"ssl_verify_upstream_trusted_ca={up.ca}"),
    ]
    with running(command, port, directory / "mitmdump.log") as process:
        yield Contestant("mitmdump -q", up.through(port, directory / "mitmproxy-ca-cert.pem"), process)


@contextlib.contextmanager
def squid(directory: Path, up: Upstream, domain: TrustDomain) -> Iterator[Contestant | None]:
    """Debian's squid-openssl with ssl_bump; None where it is not installed."""
    binary = shutil.which("squid") or shutil.which("squid", path="/usr/sbin")
    if binary is None or not Path(SQUID_CERTGEN).exists():
        yield None
        return
    directory.mkdir()
    subprocess.run([SQUID_CERTGEN, "-c", "-s", directory / "db", "-M", "4MB"], check=True, capture_output=True)
    root = domain.path / "interception-root"
    for suffix in (".pem", ".key"):
        shutil.copy(root.with_suffix(suffix), directory / f"ca{suffix}")
    shutil.copy(up.ca, directory / "upstream-ca.pem")
    if os.geteuid() == 0:  # squid gives up root and must reach its files all the same
        for path in (directory, *directory.rglob("*")):
            shutil.chown(path, "proxy")
    port = free_port()
    config = directory / "squid.conf"
    config.write_text(
        f"http_port 127.0.0.1:{port} ssl-bump cert={directory}/ca.pem key={directory}/ca.key "
        "generate-host-certificates=on dynamic_cert_mem_cache_size=4MB\n"
        f"sslcrtd_program {SQUID_CERTGEN} -s {directory}/db -M 4MB\nsslcrtd_children 2\n"
        "ssl_bump bump all\nhttp_access allow all\ncache deny all\nworkers 1\n"
        f"tls_outgoing_options cafile={directory}/upstream-ca.pem\n"
        f"access_log none\ncache_log {directory}/cache.log\npid_filename {directory}/squid.pid\n"
        f"coredump_dir {directory}\nshutdown_lifetime 0 seconds\n"
    )
    with running([binary, "-N", "-f", str(config)], port, directory / "squid.log") as process:
        # squid does not match an IP address with the one in a certificate.
        load = replace(up.through(port, root.with_suffix(".pem")), target_host="localhost")
        yield Contestant("squid ssl_bump", load, process)
