"""Real clients that speak HTTP/2, and nginx that does: what they agree on, and that results do not change."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from end_to_end.wire import Wire
from end_to_end.world import Monitor, Outside, binding, free_port, target, until

SIZE = 3_000_000
NODE = """
const http2 = require("http2"), tls = require("tls"), fs = require("fs");
const [port, at, agent, ca, root] = process.argv.slice(1);
const outer = tls.connect({host: "127.0.0.1", port: +port, ca: fs.readFileSync(ca),
  cert: fs.readFileSync(agent + "/cert.pem"), key: fs.readFileSync(agent + "/key.pem")}, () => {
  outer.write(`CONNECT ${at} HTTP/1.1\\r\\nHost: ${at}\\r\\n\\r\\n`);
  outer.once("data", () => {
    const session = http2.connect("https://" + at, {createConnection: () => tls.connect(
      {socket: outer, servername: "localhost", ca: fs.readFileSync(root), ALPNProtocols: ["h2"]})});
    let left = 10;
    for (let n = 0; n < 10; n++) {
      const stream = session.request({":path": "/version?" + n});
      let text = "", status;
      stream.on("response", (headers) => { status = headers[":status"]; });
      stream.on("data", (data) => { text += data; });
      stream.on("end", () => { console.log(status, text); if (!--left) { session.close(); outer.end(); } });
    }
  });
});
"""


@dataclass
class Place:
    monitor: Monitor
    http1: int
    http2: int
    digest: str

    @property
    def agent(self) -> Path:
        return self.monitor.domain.path / "agents" / "default"

    def curl(self, port: int, path: str, *more: str) -> str:
        made = ["curl", "-sS", "-x", self.monitor.url, "--proxy-cacert", str(self.monitor.domain.identity_ca)]
        made += ["--proxy-cert", str(self.agent / "cert.pem"), "--proxy-key", str(self.agent / "key.pem")]
        made += ["--cacert", str(self.monitor.domain.interception_root), *more, f"https://localhost:{port}{path}"]
        return subprocess.run(made, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.fixture(scope="module")
def place(
    share_monitor: Callable[..., Monitor], outside: Outside, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    path = tmp_path_factory.mktemp("nginx")
    path.chmod(0o755)
    (path / "big").write_bytes(big := os.urandom(SIZE))
    with nginx(path, outside) as (http1, http2):
        urls = [f"https://localhost:{port}/**" for port in (http1, http2)]
        monitor = share_monitor(
            "clients2",
            {"main": binding(data_source_access=["urn:test:data"])},
            target("urn:test:data", "data_source", *urls),
            more=f'[interception]\nupstream_ca = "{outside.ca}"\n',
        )
        yield Place(monitor, http1, http2, hashlib.sha256(big).hexdigest())


@contextlib.contextmanager
def nginx(path: Path, outside: Outside) -> Iterator[tuple[int, int]]:
    """Two ports: one for HTTP/1.1 only, one for both."""
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if binary is None:
        if "CI" in os.environ:
            pytest.fail("CI has no nginx")
        pytest.skip("nginx is not installed")
    ports = free_port(), free_port()
    scratch = "".join(f"{k}_temp_path {path}/{k};" for k in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    locations = (
        "location /version { default_type text/plain; return 200 $server_protocol; } "
        f"location /big {{ root {path}; }} "
        "location /upload { proxy_pass http://127.0.0.1:9/; proxy_request_buffering on; "
        "error_page 502 =200 /length; } location /length { internal; return 200 $request_length; }"
    )
    servers = "".join(
        f"server {{ listen 127.0.0.1:{port} ssl{more}; keepalive_requests 12; {locations} }}\n"
        for port, more in zip(ports, ("", " http2"), strict=True)
    )
    user = "user root;" if os.geteuid() == 0 else ""
    config = path / "nginx.conf"
    config.write_text(
        f"{user} worker_processes 1; daemon off; pid {path}/pid; error_log {path}/error;\nevents {{}}\n"
        f"http {{ access_log off; client_max_body_size 0; {scratch}\n"
        f"ssl_certificate {outside.cert}; ssl_certificate_key {outside.key};\n"
        f"{servers} }}\n"
    )
    process = subprocess.Popen([binary, "-c", str(config), "-e", str(path / "error")], stderr=subprocess.DEVNULL)
    try:
        until(lambda: (path / "pid").exists() and (path / "pid").read_text().strip(), what="nginx runs")
        yield ports
    finally:
        process.terminate()
        process.wait(15)


@pytest.mark.parametrize(
    ("wanted", "port", "agreed", "upstream"),
    [
        ("--http1.1", "http1", "1.1", "HTTP/1.1"),
        ("--http1.1", "http2", "1.1", "HTTP/1.1"),
        ("--http2", "http1", "2", "HTTP/1.1"),
        ("--http2", "http2", "2", "HTTP/2.0"),
    ],
)
def test_what_is_agreed_on(place: Place, wanted: str, port: str, agreed: str, upstream: str) -> None:
    """An agent gets what it offers; a server is offered HTTP/2 on behalf of those who speak it."""
    assert place.curl(getattr(place, port), "/version", wanted, "-w", " %{http_version}") == f"{upstream} {agreed}"


@pytest.mark.parametrize("port", ["http1", "http2"])
def test_curl_gets_the_same_bytes_and_sends_them(place: Place, port: str, tmp_path: Path) -> None:
    number = getattr(place, port)
    place.curl(number, "/big", "--http2", "-o", str(tmp_path / "got"))
    assert hashlib.sha256((tmp_path / "got").read_bytes()).hexdigest() == place.digest
    length = int(place.curl(number, "/upload", "--http2", "-T", str(tmp_path / "got")))
    assert SIZE < length < SIZE + 10_000


def test_more_requests_than_a_server_takes_on_one_connection(place: Place) -> None:
    """nginx says GOAWAY after so many: none of them is lost."""
    paths = [f"https://localhost:{place.http2}/version?{n}" for n in range(30)]
    assert place.curl(place.http2, "/version", "--http2", *paths) == "HTTP/2.0" * 31


def test_httpx(place: Place) -> None:
    context = place.monitor.agent_context()
    proxy = httpx.Proxy(place.monitor.url, ssl_context=context)
    with httpx.Client(proxy=proxy, verify=place.monitor.target_context(), http2=True, timeout=30) as client:
        for port in (place.http1, place.http2):
            assert client.get(f"https://localhost:{port}/version").text == "HTTP/1.1", "it offers that first"
            big = client.get(f"https://localhost:{port}/big")
            assert hashlib.sha256(big.content).hexdigest() == place.digest
            length = int(client.post(f"https://localhost:{port}/upload", content=bytes(SIZE)).text)
            assert SIZE < length < SIZE + 10_000


def test_node(place: Place) -> None:
    if shutil.which("node") is None:
        if "CI" in os.environ:
            pytest.fail("CI has no node")
        pytest.skip("node is not installed")
    domain = place.monitor.domain
    arguments = [str(place.monitor.port), f"localhost:{place.http2}", str(place.agent)]
    run = subprocess.run(
        ["node", "-e", NODE, *arguments, str(domain.identity_ca), str(domain.interception_root)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert run.stdout.splitlines() == ["200 HTTP/2.0"] * 10, run.stderr


@pytest.mark.parametrize(
    ("offers", "agreed"),
    [
        (["h2"], "h2"),
        (["h3", "h2", "http/1.1"], "h2"),
        (["http/1.1", "h2"], "http/1.1"),
        (["h3"], None),
        (["spdy/3", "imap"], None),
        (["h2c"], None),
        ([], None),
    ],
)
def test_protocols_that_are_offered_in_the_tunnel(place: Place, offers: list[str], agreed: str | None) -> None:
    """Where nothing is agreed on HTTP/1.1 is spoken, and nothing else."""
    context = place.monitor.target_context()
    if offers:
        context.set_alpn_protocols(offers)
    with Wire(place.monitor) as wire:
        wire.connect(f"localhost:{place.http1}")
        wire.tls("localhost", context)
        assert wire._tls is not None
        assert wire._tls.selected_alpn_protocol() == agreed
        if agreed != "h2":
            assert wire.request("GET", "/version").body == b"HTTP/1.1"


@pytest.mark.parametrize("agreed", [True, False], ids=["HTTP/1.1 agreed on", "nothing agreed on"])
def test_http2_that_was_not_agreed_on(place: Place, agreed: bool) -> None:
    context = place.monitor.target_context()
    if agreed:
        context.set_alpn_protocols(["http/1.1"])
    since = len(place.monitor.entries())
    with Wire(place.monitor) as wire:
        wire.connect(f"localhost:{place.http2}")
        wire.tls("localhost", context)
        wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        answer = wire.read_answer()
    assert (answer.status, answer.json()["reason"]) == (400, "unreadable_request")
    assert place.monitor.wait_for(lambda e: e.get("reason") == "unreadable_request", since)


def test_an_upgrade_to_http2_is_not_passed_on(place: Place) -> None:
    text = place.curl(place.http2, "/version", "--http1.1", "-H", "Upgrade: h2c", "-H", "HTTP2-Settings: AAMAAABk")
    assert text == "HTTP/1.1"
