"""git over HTTPS as forges serve it (`git http-backend`), cloned from and pushed to through a monitor."""

from __future__ import annotations

import contextlib
import http.server
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from end_to_end.world import Monitor, Outside, Server, binding, read_chunks, target

OPEN, READ, WRITE = "urn:test:data:open", "urn:test:data:read", "urn:test:data:write"
BACKEND_S = 60
LARGE = 1_100_000
"""More than git's http.postBuffer, so that it is sent in chunks."""
CLEAN = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_TERMINAL_PROMPT": "0"}
WHO = ["-c", "user.name=x", "-c", "user.email=x@example.com"]


class Forge(Server):
    """Repositories below one folder. `commands` are the services that it was asked for by POST."""

    def __init__(self, outside: Outside, root: Path) -> None:
        super().__init__(outside)
        self._root = root
        self.commands: list[tuple[str, bool]] = []
        """Path, and whether the body came in chunks."""

    def take(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        path, _, query = handler.path.partition("?")
        headers = handler.headers
        chunked = "chunked" in headers.get("transfer-encoding", "")
        body = (
            b"".join(read_chunks(handler.rfile))
            if chunked
            else handler.rfile.read(int(headers.get("content-length") or 0))
        )
        if handler.command == "POST":
            self.commands.append((path, chunked))
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self._root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": headers.get("git-protocol", ""),
            "HTTP_CONTENT_ENCODING": headers.get("content-encoding", ""),
            "REQUEST_METHOD": handler.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "REMOTE_USER": "test",
            **CLEAN,
        }
        done = subprocess.run(
            ["git", "http-backend"], input=body, env=environment, capture_output=True, timeout=BACKEND_S, check=True
        )
        head, _, answer = done.stdout.partition(b"\r\n\r\n")
        fields = [line.partition(": ")[::2] for line in head.decode().split("\r\n")]
        status = dict(fields).get("Status", "200 OK")
        handler.send_response(int(status.split()[0]))
        for name, value in fields:
            if name != "Status":
                handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(answer)))
        handler.end_headers()
        handler.wfile.write(answer)


@dataclass
class Place:
    forge: Forge
    monitor: Monitor
    root: Path

    def url(self, repository: str) -> str:
        return f"https://localhost:{self.forge.port}/{repository}"

    def git(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "lictor", "exec", "--agent", "default", "-c", str(self.monitor.config), "--"]
        return subprocess.run(
            [*command, "git", *WHO, *arguments],
            env=os.environ | CLEAN | {"LC_ALL": "C.UTF-8", "HOME": str(self.root)},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )


def plain_git(*arguments: str | Path) -> str:
    """git without a network."""
    command = ["git", *WHO, *map(str, arguments)]
    return subprocess.run(command, env=os.environ | CLEAN, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def place(
    share_monitor: Callable[..., Monitor], outside: Outside, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    if shutil.which("git") is None and not os.environ.get("CI"):
        pytest.skip("git is not installed")
    root = tmp_path_factory.mktemp("forge")
    source = root / "source"
    plain_git("init", "-q", "-b", "main", source)
    (source / "large.bin").write_bytes(random.Random(1).randbytes(LARGE))
    plain_git("-C", source, "add", "large.bin")
    plain_git("-C", source, "commit", "-q", "-m", "first")
    for name in ("open.git", "read.git"):
        plain_git("clone", "-q", "--bare", source, root / "served" / name)
        plain_git("-C", root / "served" / name, "config", "http.receivepack", "true")
    with contextlib.closing(Forge(outside, root / "served")) as forge:
        at = f"https://localhost:{forge.port}"
        monitor = share_monitor(
            "forge",
            {"main": binding(data_source_access=[OPEN, READ])},
            target(OPEN, "data_source", f"{at}/open.git/**")
            + target(READ, "data_source", f"{at}/read.git/info/refs", f"{at}/read.git/git-upload-pack")
            + target(WRITE, "data_source", f"{at}/read.git/git-receive-pack"),
            more=f'[interception]\nupstream_ca = "{outside.ca}"\n',
        )
        yield Place(forge, monitor, root)


def commit(clone: Path, data: bytes) -> str:
    (clone / "more.bin").write_bytes(data)
    plain_git("-C", clone, "add", "more.bin")
    plain_git("-C", clone, "commit", "-q", "-m", "more")
    return plain_git("-C", clone, "rev-parse", "HEAD").strip()


def test_clone_fetch_and_push(place: Place) -> None:
    clone, served = place.root / "clone", place.root / "served/open.git"
    done = place.git("clone", "-q", place.url("open.git"), str(clone))
    assert done.returncode == 0, done.stderr
    assert (clone / "large.bin").read_bytes() == random.Random(1).randbytes(LARGE)
    made = commit(clone, random.Random(2).randbytes(LARGE))
    done = place.git("-C", str(clone), "push", "-q", "origin", "main")
    assert done.returncode == 0, done.stderr
    assert plain_git("-C", served, "rev-parse", "main").strip() == made
    assert ("/open.git/git-receive-pack", True) in place.forge.commands
    plain_git("-C", clone, "reset", "-q", "--hard", "HEAD~1")
    done = place.git("-C", str(clone), "pull", "-q", "origin", "main")
    assert done.returncode == 0, done.stderr
    assert plain_git("-C", clone, "rev-parse", "HEAD").strip() == made
    plain_git("-C", clone, "fsck", "--strict")


def test_who_may_only_read_cannot_push(place: Place) -> None:
    clone, served = place.root / "read", place.root / "served/read.git"
    assert place.git("clone", "-q", place.url("read.git"), str(clone)).returncode == 0
    before = plain_git("-C", served, "rev-parse", "main")
    commit(clone, b"not for you")
    done = place.git("-C", str(clone), "push", "-q", "origin", "main")
    assert done.returncode != 0
    assert "403" in done.stderr
    assert plain_git("-C", served, "rev-parse", "main") == before
    assert "/read.git/git-receive-pack" not in [path for path, _ in place.forge.commands]
    denied = place.monitor.wait_for(lambda e: e.get("decision") == "deny")
    assert denied["action_target"] == WRITE
