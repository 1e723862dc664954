"""docs/verify-without-lictor.md, block by block, on a real monitor's evidence; then on evidence that was spoilt."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import lictor
from end_to_end.wire import Wire
from end_to_end.world import Monitor, Outside, Server, binding, target

from lictor.certs.domain import TrustDomain
from lictor.cli.init import write_binding

PAGE = Path(__file__).parents[2] / "docs" / "verify-without-lictor.md"
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(sh|python)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def run(folder: Path, language: str, code: str) -> subprocess.CompletedProcess[str]:
    """A block as a reader would run it; lictor cannot be imported there."""
    command = ["bash", "-euo", "pipefail", "-c", code]
    if language == "python":
        blocked = "import sys; sys.modules['lictor'] = None\n"
        command = [sys.executable, "-I", "-W", "ignore", "-c", blocked + code]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C.UTF-8"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def run_all(folder: Path) -> list[str]:
    """What each block printed. Stops at the first that fails, with its number."""
    shutil.rmtree(folder / "parts", ignore_errors=True)
    said = []
    for number, (language, code) in enumerate(BLOCKS):
        done = run(folder, language, code)
        if done.returncode != 0:
            raise BlockFailed(number, done.stdout + done.stderr)
        said.append(done.stdout)
    return said


class BlockFailed(Exception):
    """(number of the block, what it said)"""


def call(monitor: Monitor, *args: object) -> None:
    lictor(*args, "-c", monitor.config).check_returncode()


@pytest.fixture(scope="module")
def evidence(
    share_monitor: Callable[..., Monitor], outside: Outside, domain: TrustDomain, tmp_path_factory: Any
) -> Path:
    """A folder with what the page asks for: two runs of a monitor, a refusal, new bindings, a BET on demand."""
    folder: Path = tmp_path_factory.mktemp("evidence")
    server = Server(outside)
    at = f"localhost:{server.port}"
    monitor = share_monitor(
        "without",
        {"main": binding(data_source_access=["urn:test:data"])},
        target("urn:test:data", "data_source", f"https://{at}/data/**"),
        more=f'[interception]\nupstream_ca = "{outside.ca}"\n',
    )
    for run_number in range(2):
        for path, status in (("data/1", 200), ("data/%C3%BC", 200), ("other", 403)):
            with Wire(monitor) as wire:
                assert wire.tunnel(at).request("GET", f"/{path}").status == status
        if run_number == 0:
            monitor.stop()
            changed = binding(version="2.0.0", data_source_access=["urn:test:data"])
            write_binding(monitor.path / "bindings/main.json", changed, domain)
            monitor.start()
    call(monitor, "bet", "issue", "--agent", "default")
    monitor.stop()
    server.close()
    call(monitor, "log", "export", folder / "evidence.jsonl")
    call(monitor, "log", "prove", "3", "-o", folder / "proof.txt")
    shutil.copy(domain.identity_ca, folder)
    return folder


def test_every_block_of_the_page_works(evidence: Path) -> None:
    said = run_all(evidence)
    assert len(said) == len(BLOCKS) == 8
    assert re.search(r"\d\d entries, \d BETs", said[0])
    assert ": OK" in said[1]
    assert "spiffe://test.internal/monitor/without" in said[1]
    assert {line.split()[0] for line in said[2].splitlines()} == {"good"}
    assert "demand" in said[2]
    assert "Signature Verified Successfully" in said[3]
    assert said[4].count("evidence agrees") == said[2].count("good") >= 3
    assert "Signature Verified Successfully" in said[6]
    assert "in the log: " in said[7]


def spoil(folder: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    path = folder / name
    data = path.read_bytes()
    path.write_bytes(change(data))
    assert path.read_bytes() != data


SPOILT: dict[str, tuple[str, Callable[[bytes], bytes], int]] = {
    "an entry altered": ("evidence.jsonl", lambda d: d.replace(b'"decision":"deny"', b'"decision":"flag"', 1), 4),
    "the last entry left out": ("evidence.jsonl", lambda d: re.sub(rb'\{"entry":[^\n]*\n(?=\{"end")', b"", d), 4),
    "a BET's signature altered": (
        "evidence.jsonl",
        lambda d: re.sub(rb'("bet":"[^"]*\.)[^."]{8}', rb"\1AAAAAAAA", d),
        2,
    ),
    "another root signed": ("evidence.jsonl", lambda d: re.sub(rb"(\\n\d+\\n)....", rb"\1AAAA", d, count=1), 5),
    "the checkpoint's signature altered": (
        "evidence.jsonl",
        lambda d: re.sub("(\u2014 [^ ]+ .{12}).{4}".encode(), rb"\1AAAA", d, count=1),
        6,
    ),
    "a proof of another entry": ("proof.txt", lambda d: d.replace(b"index 3", b"index 2"), 7),
}


@pytest.mark.parametrize("what", SPOILT)
def test_spoilt_evidence_fails_where_it_should(evidence: Path, tmp_path: Path, what: str) -> None:
    folder = tmp_path / "spoilt"
    shutil.copytree(evidence, folder, ignore=shutil.ignore_patterns("parts"))
    name, change, block = SPOILT[what]
    spoil(folder, name, change)
    with pytest.raises(BlockFailed) as failed:
        run_all(folder)
    assert failed.value.args[0] == block, failed.value.args[1]


def test_the_keys_of_another_ca_are_refused(evidence: Path, tmp_path: Path) -> None:
    folder = tmp_path / "foreign"
    shutil.copytree(evidence, folder, ignore=shutil.ignore_patterns("parts"))
    shutil.copy(TrustDomain.create(tmp_path / "other", "test.internal").identity_ca, folder)
    with pytest.raises(BlockFailed) as failed:
        run_all(folder)
    assert failed.value.args[0] == 1
