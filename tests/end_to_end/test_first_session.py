"""The README's first session, command by command, with a server on loopback where it names one on the Internet."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from end_to_end.world import Outside, Server, free_port, until

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def lictor(folder: Path, *words: str, expect: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "lictor", *words], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def work(tmp_path: Path, outside: Outside, server: Server) -> Iterator[tuple[Path, str]]:
    """What `lictor init work` makes, with another port, another address in the binding, and the monitor up."""
    lictor(tmp_path, "init", "work", "--egress", f"127.0.0.1:{free_port()}")
    folder, url = tmp_path / "work", f"https://localhost:{server.port}"
    binding: dict[str, Any] = json.loads((folder / "bindings/default.json").read_text())
    binding["version"] = "1.1.0"
    binding["expected_behaviors"][0]["compliance_criteria"]["values"].append(f"{url}/open/**")
    (folder / "bindings/default.json").write_text(json.dumps(binding))
    lictor(folder, "binding", "sign", "bindings/default.json")
    with (folder / "lictor.toml").open("a") as config:
        # Only so that loopback may be dialled: nothing that the agent asks for is this target.
        config.write(
            f'\n[interception]\nupstream_ca = "{outside.ca}"\n\n'
            f'[[target]]\nurn = "urn:test:local"\nkind = "data_source"\nmatch = ["{url}/local"]\n'
        )
    with (folder / "up.log").open("w+") as log:
        process = subprocess.Popen([sys.executable, "-m", "lictor", "up"], cwd=folder, stdout=log, stderr=log)
        try:
            until(lambda: "listens for agents" in (folder / "up.log").read_text(), 30)
            yield folder, url
        finally:
            process.terminate()
            assert process.wait(30) == 0


def test_the_first_session(work: tuple[Path, str], server: Server) -> None:
    folder, url = work
    allowed = lictor(folder, "exec", "--agent", "default", "--", "curl", "-sS", f"{url}/open/x")
    assert json.loads(allowed) == {"path": "/open/x"}
    refused = lictor(folder, "exec", "--agent", "default", "--", "curl", "-sS", f"{url}/other")
    assert json.loads(refused)["reason"] == "not_in_allowlist"
    unknown = lictor(folder, "exec", "--agent", "default", "--", "curl", "-v", "https://example.org/", expect=56)
    assert "lictor refused (not_in_allowlist" in unknown
    assert [path for _, path, _, _ in server.requests] == ["/open/x"]
    shown = lictor(folder, "log", "show")
    assert shown.count("deny") == 2
    assert "violation" in lictor(folder, "bet", "show")
    lictor(folder, "log", "export", "evidence.jsonl")
    assert "intact" in lictor(folder, "log", "verify", "evidence.jsonl", "--trust", "trust/identity-ca.pem")


def test_every_command_that_the_readme_names_is_there() -> None:
    named = set(re.findall(r"`?lictor ([a-z]+)(?: ([a-z]+))?", README)) - {("up", "and")}
    environment = {**os.environ, "COLUMNS": "200"}
    for group, command in sorted(named):
        if group in ("is", "does", "will"):
            continue
        words = [group, command] if group in ("agent", "binding", "log", "bet", "chain") and command else [group]
        done = subprocess.run(
            [sys.executable, "-m", "lictor", *words, "--help"], capture_output=True, check=False, env=environment
        )
        assert done.returncode == 0, words
