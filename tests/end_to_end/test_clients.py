"""Ordinary clients, unchanged, through `lictor exec` and a running monitor. The table of docs/clients.md is this file.

The server's certificate is of a CA that no client is told of: a client that goes round the monitor gets no answer.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import http.server
import io
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from end_to_end.world import Monitor, binding, target

from lictor.certs.authority import SERVER_AUTH, create_root, issue, new_key, pem
from lictor.certs.domain import TrustDomain
from lictor.formats.keys import write_private

URN = "urn:test:data:files"
GO = """
package main

import ("fmt"; "io"; "net/http"; "os")

func main() {
    response, err := http.Get(os.Args[1])
    if err != nil { fmt.Println(err); os.Exit(1) }
    body, _ := io.ReadAll(response.Body)
    fmt.Print(string(body))
}
"""


class Files:
    """A web server of static files that keeps the headers it was sent."""

    def __init__(self, directory: Path, context: ssl.SSLContext | None) -> None:
        self.headers: list[Any] = []
        kept = self.headers

        class Handler(http.server.SimpleHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def send_head(self) -> Any:
                kept.append(self.headers)
                return super().send_head()

            def log_message(self, *args: object) -> None:
                pass

        class Quiet(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self._server = Quiet(("127.0.0.1", 0), functools.partial(Handler, directory=str(directory)))
        if context is not None:
            wrapped = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
            self._server.socket = wrapped
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass
class Place:
    monitor: Monitor
    work: Path
    url: str
    plain_url: str
    named_url: str
    """The same server by the machine's name: Go takes no proxy for localhost."""
    plain: Files

    def run(self, *cmd: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """`lictor exec -- cmd`; user settings of the machine are out of sight, and so is its language."""
        home = {"HOME": str(self.work), "LC_ALL": "C.UTF-8", "GIT_CONFIG_NOSYSTEM": "1", "PIP_CONFIG_FILE": os.devnull}
        prefix = [sys.executable, "-m", "lictor", "exec", "--agent", "default", "-c", str(self.monitor.config), "--"]
        return subprocess.run(
            [*prefix, *cmd],
            cwd=self.work,
            env=os.environ | home | environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )


@pytest.fixture(scope="module")
def place(
    share_monitor: Callable[..., Monitor], domain: TrustDomain, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    work = tmp_path_factory.mktemp("clients")
    served = work / "served"
    served.mkdir()
    ca, context = _outside(work)
    with contextlib.ExitStack() as stack:
        secure, plain = Files(served, context), Files(served, None)
        stack.callback(secure.close)
        stack.callback(plain.close)
        url, plain_url = f"https://localhost:{secure.port}", f"http://localhost:{plain.port}"
        named_url = f"https://{socket.gethostname().lower()}:{secure.port}"
        _fill(served, url)
        monitor = share_monitor(
            "clients",
            {"main": binding(data_source_access=[URN])},
            target(URN, "data_source", f"{url}/**", f"{plain_url}/**", f"{named_url}/**"),
            more=f'[interception]\nupstream_ca = "{ca}"\n',
        )
        yield Place(monitor, work, url, plain_url, named_url, plain)


def _outside(work: Path) -> tuple[Path, ssl.SSLContext]:
    root = create_root("outside", days=1, path_length=0)
    key = new_key()
    names = [x509.DNSName(name) for name in ("localhost", socket.gethostname().lower())]
    cert = issue(root, key.public_key(), subject="server", usages=[SERVER_AUTH], names=names, days=1)
    (work / "outside.pem").write_bytes(pem(root.cert))
    (work / "server.pem").write_bytes(pem(cert))
    write_private(work / "server.key", key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(work / "server.pem", work / "server.key")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return work / "outside.pem", context


def _fill(served: Path, url: str) -> None:
    """A text, a Python package index, an npm registry and a git repository, all as static files."""
    (served / "hello.txt").write_text("hello")
    _fill_python(served)
    _fill_npm(served, url)
    git = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(served), "PATH": os.environ["PATH"]}
    who = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
    source = served.parent / "source"
    for command in (
        ["git", "init", "-q", str(source)],
        ["git", "-C", str(source), *who, "commit", "-q", "--allow-empty", "-m", "hello"],
        ["git", "clone", "-q", "--bare", str(source), str(served / "demo.git")],
        ["git", "-C", str(served / "demo.git"), "update-server-info"],
    ):
        subprocess.run(command, check=True, env=git, capture_output=True)


def _fill_python(served: Path) -> None:
    folder = served / "simple" / "lictor-test-demo"
    folder.mkdir(parents=True)
    name = "lictor_test_demo-1.0-py3-none-any.whl"
    with zipfile.ZipFile(folder / name, "w") as wheel:
        info = "lictor_test_demo-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: lictor-test-demo\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("lictor_test_demo/__init__.py", "")
        wheel.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "index.html").write_text(f'<a href="{name}#sha256={digest}">{name}</a>')


def _fill_npm(served: Path, url: str) -> None:
    manifest = {"name": "lictor-test-demo", "version": "1.0.0"}
    data = json.dumps(manifest).encode()
    member = tarfile.TarInfo("package/package.json")
    member.size = len(data)
    (served / "npm").mkdir()
    with tarfile.open(served / "npm" / "demo.tgz", "w:gz") as archive:
        archive.addfile(member, io.BytesIO(data))
    digest = base64.b64encode(hashlib.sha512((served / "npm" / "demo.tgz").read_bytes()).digest()).decode()
    dist = {"tarball": f"{url}/npm/demo.tgz", "integrity": f"sha512-{digest}"}
    versions = {"1.0.0": {**manifest, "dist": dist}}
    document = {"name": "lictor-test-demo", "dist-tags": {"latest": "1.0.0"}, "versions": versions}
    (served / "npm" / "lictor-test-demo").write_text(json.dumps(document))


def python(code: str) -> Callable[[Place], list[str]]:
    return lambda place: [sys.executable, "-c", code.replace("URL", repr(f"{place.url}/hello.txt"))]


AIOHTTP = """
import aiohttp, asyncio
async def main():
    async with aiohttp.ClientSession(trust_env=True) as session, session.get(URL) as response:
        print(await response.text())
asyncio.run(main())
"""
HTTPX_ASYNC = """
import asyncio, httpx
async def main():
    async with httpx.AsyncClient() as client:
        print((await client.get(URL)).text)
asyncio.run(main())
"""
URLLIB3 = """
import os, urllib3
from urllib3.util import make_headers, parse_url
proxy = os.environ["HTTPS_PROXY"]
headers = make_headers(proxy_basic_auth=parse_url(proxy).auth)
print(urllib3.ProxyManager(proxy, proxy_headers=headers).request("GET", URL).data.decode())
"""
FETCHED: dict[str, Callable[[Place], list[str]]] = {
    "curl": lambda place: ["curl", "-sS", "--fail", f"{place.url}/hello.txt"],
    "requests": python("import requests; print(requests.get(URL).text)"),
    "httpx": python("import httpx; print(httpx.get(URL).text)"),
    "httpx, async": python(HTTPX_ASYNC),
    "aiohttp": python(AIOHTTP),
    "urllib3": python(URLLIB3),
    "urllib.request": python("import urllib.request; print(urllib.request.urlopen(URL).read().decode())"),
    "pip": lambda place: [
        *(sys.executable, "-m", "pip", "install", "-q", "--no-cache-dir", "--target", "installed-by-pip"),
        *("--index-url", f"{place.url}/simple/", "lictor-test-demo==1.0"),
    ],
    "git": lambda place: ["git", "clone", "-q", f"{place.url}/demo.git", "cloned"],
    "npm": lambda place: [
        *("npm", "install", "--no-audit", "--no-fund", "--no-update-notifier", "--prefix", "installed"),
        *("--registry", f"{place.url}/npm/", "lictor-test-demo"),
    ],
}
LEFT_BEHIND = {
    "pip": "installed-by-pip/lictor_test_demo/__init__.py",
    "git": "cloned/.git/HEAD",
    "npm": "installed/node_modules/lictor-test-demo/package.json",
}


def missing(what: str) -> None:
    """In CI everything is there (.ci/run); elsewhere a client that is not is not tried."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is not installed, and .ci/run should have")
    pytest.skip(f"{what} is not installed")


def needs(program: str) -> None:
    if shutil.which(program) is None:
        missing(program)


def judged(place: Place) -> int:
    return sum("outcome_of" not in entry for entry in place.monitor.entries())


@pytest.mark.parametrize("client", FETCHED)
def test_a_client_reaches_the_server_through_the_monitor(place: Place, client: str) -> None:
    command = FETCHED[client](place)
    needs(command[0])
    before = judged(place)
    done = place.run(*command)
    assert done.returncode == 0, done.stderr
    if client in LEFT_BEHIND:
        assert (place.work / LEFT_BEHIND[client]).is_file()
    else:
        assert done.stdout.strip() == "hello"
    assert judged(place) > before
    assert {e["agent_id"] for e in place.monitor.of_agents()} == {"spiffe://test.internal/agent/default"}


def test_go(place: Place, pytestconfig: pytest.Config) -> None:
    """By the machine's name, because Go's ProxyFromEnvironment leaves localhost out."""
    needs("go")
    name = socket.gethostname().lower()
    if "127.0.0.1" not in {info[4][0] for info in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}:
        pytest.skip(f"{name}, the machine's name, is not 127.0.0.1 here")
    (place.work / "get.go").write_text(GO)
    cache = pytestconfig.cache.mkdir("go-build") if pytestconfig.cache else place.work / "go-build"
    built = ["go", "build", "-o", str(place.work / "get"), str(place.work / "get.go")]
    subprocess.run(built, check=True, env=os.environ | {"GOCACHE": str(cache), "GOFLAGS": "-mod=mod"}, cwd=place.work)
    before = judged(place)
    done = place.run("./get", f"{place.named_url}/hello.txt")
    assert (done.returncode, done.stdout) == (0, "hello"), done.stdout
    assert judged(place) > before
    direct = place.run("./get", f"{place.url}/hello.txt")
    assert direct.returncode == 1
    assert "certificate signed by unknown authority" in direct.stdout, "localhost: Go went direct"


def test_node_fetch_where_node_takes_proxies_from_the_environment_and_only_there(place: Place) -> None:
    needs("node")
    before = judged(place)
    done = place.run("node", "-e", f"fetch('{place.url}/hello.txt').then(r => r.text()).then(t => console.log(t))")
    if _node_takes_proxies():
        assert (done.returncode, done.stdout.strip()) == (0, "hello"), done.stderr
        assert judged(place) > before
    else:
        assert done.returncode != 0
        assert "unable to verify the first certificate" in done.stderr or "UNABLE_TO" in done.stderr, "it went direct"
        assert judged(place) == before


def _node_takes_proxies() -> bool:
    version = subprocess.run(["node", "-p", "process.versions.node"], capture_output=True, text=True, check=True).stdout
    major, minor, _ = map(int, version.split("."))
    return (22, 21) <= (major, minor) < (23, 0) or (major, minor) >= (24, 0)


def test_undici(place: Place) -> None:
    """Where npm has installed it (NODE_PATH says where)."""
    needs("node")
    if subprocess.run(["node", "-e", "require('undici')"], capture_output=True, check=False).returncode:
        missing("undici")
    script = (
        "const {fetch, EnvHttpProxyAgent} = require('undici');"
        f"fetch('{place.url}/hello.txt', {{dispatcher: new EnvHttpProxyAgent()}})"
        ".then(r => r.text()).then(t => console.log(t))"
    )
    before = judged(place)
    done = place.run("node", "-e", script)
    assert (done.returncode, done.stdout.strip()) == (0, "hello"), done.stderr
    assert judged(place) > before


def test_urllib3_alone_goes_direct_and_gets_nothing(place: Place) -> None:
    code = f"import urllib3; urllib3.PoolManager(retries=False).request('GET', '{place.url}/hello.txt')"
    before = judged(place)
    done = place.run(sys.executable, "-c", code)
    assert done.returncode == 1
    assert "CERTIFICATE_VERIFY_FAILED" in done.stderr
    assert judged(place) == before


def test_the_token_of_a_run_never_leaves_by_plain_http(place: Place) -> None:
    """curl sends its credentials with each request of a connection; the sidecar sees the first head only."""
    url = f"{place.plain_url}/hello.txt"
    place.plain.headers.clear()
    done = place.run("curl", "-sS", "--fail", "-w", " %{num_connects} ", url, url)
    assert done.stdout == "hello 1 hello 0 ", done.stderr
    assert len(place.plain.headers) == 2
    for headers in place.plain.headers:
        assert "proxy-authorization" not in headers
        assert "proxy-connection" not in headers


@pytest.mark.parametrize("client", ["curl", "requests"])
def test_a_refusal_reaches_the_client_with_its_reason(place: Place, client: str) -> None:
    url = "https://not-approved.example/"
    if client == "curl":
        done = place.run("curl", "-sS", "-i", url)
        assert "HTTP/1.1 403 Forbidden: lictor refused (" in done.stdout
    else:
        done = place.run(sys.executable, "-c", f"import requests; requests.get({url!r})")
        assert "403 Forbidden: lictor refused (" in done.stderr


def test_a_revoked_agent_is_told_where_to_look(share_monitor: Callable[..., Monitor], place: Place) -> None:
    domain = place.monitor.domain
    domain.add_agent("leaver")
    domain.revoke_agent("leaver")
    command = [sys.executable, "-m", "lictor", "exec", "--agent", "leaver", "-c", str(place.monitor.config)]
    done = subprocess.run(
        [*command, "--", "curl", "-sS", f"{place.url}/hello.txt"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "hello" not in done.stdout
    assert "expired or revoked: see lictor agent list" in done.stderr
