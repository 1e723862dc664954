"""A monitor that describes itself, as real processes: what it runs is what its Verifier and its auditors are told."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from end_to_end.verifying import AGENT, Place, Start, placed
from end_to_end.world import Outside, binding, free_port, until

import lictor
from lictor.certs.domain import TrustDomain
from lictor.cli import cli
from lictor.evidence import description
from lictor.evidence.sqlite_store import SqliteReader
from lictor.formats import jws
from lictor.proxy.installed import package_manifest
from lictor.verifier.bets import parse_bet


def call(*words: object, code: int = 0) -> Any:
    """What a command of ours prints as JSON."""
    done = CliRunner().invoke(cli, [*map(str, words), "--json"])
    assert done.exit_code == code, (done.output, done.exception)
    return json.loads(done.stdout)


class Described:
    """A place whose Verifier knows what its monitor may run."""

    def __init__(self, place: Place, api: int) -> None:
        self.place, self.monitor, self.verifier = place, place.monitor, place.verifier
        self.trust = place.monitor.domain.identity_ca
        self.url = f"https://127.0.0.1:{api}"
        self.installed = call("monitor", "digest", "-c", self.monitor.config)

    def verify(self, *more: object, code: int = 0) -> Any:
        return call("monitor", "verify", self.url, "--trust", self.trust, *more, code=code)

    def entries(self) -> list[dict[str, Any]]:
        return [e["action_parameters"] for e in self.monitor.entries() if e["action_type"] == "monitor_description"]

    def kids(self) -> list[str]:
        """Who signed the descriptions."""
        with contextlib.closing(SqliteReader(self.monitor.path / "data/ledger.sqlite")) as reader:
            found = description.tokens(reader).values()
        return [jws.parse_compact(token, typ=frozenset({description.TYP})).kid for token in found]

    def acts(self, *reasons: str) -> list[dict[str, Any]]:
        """The agent does something, and these come to be the reasons against it; how its monitor is described."""
        assert self.place.get().status == 200
        self.place.all_there()
        wanted = set(reasons)
        until(lambda: self.reasons() == wanted, what=f"{wanted or 'no reasons'} in {self.verifier.ask()}")
        return self.said()

    def said(self) -> list[dict[str, Any]]:
        """The descriptions in a result, the newest first."""
        found: list[dict[str, Any]] = self.verifier.ask()["agents"][AGENT]["described"]
        return found

    def reasons(self) -> set[str]:
        return set(self.verifier.reasons()) - {"not_checked", "gap", "restarted"}


@pytest.fixture
def world(tmp_path: Path, domain: TrustDomain, make_monitor: Start, outside: Outside) -> Iterator[Described]:
    with placed(tmp_path, domain, make_monitor, outside) as place:
        api, monitor = free_port(), place.monitor
        text = monitor.config.read_text().replace("[listen]\n", f'[listen]\napi = "127.0.0.1:{api}"\n')
        monitor.config.write_text(text)
        made = Described(place, api)
        name = f"spiffe://{domain.name}/monitor/{monitor.name}"
        place.verifier.config.write_text(
            f"{place.verifier.config.read_text()}"
            f'[software]\npackages = ["{made.installed["package"]}"]\n'
            f'dependencies = ["{made.installed["dependencies"]}"]\n'
            f'[[monitor]]\nname = "{name}"\nconfigurations = ["{made.installed["configuration"]}"]\n'
        )
        place.verifier.start()
        yield made


def changed_copy(folder: Path) -> Path:
    """The package with one byte more; where it is found."""
    root = Path(lictor.__file__).parent
    for line in package_manifest(root).decode().splitlines():
        path = folder / "lictor" / line.split("  ")[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / line.split("  ")[1], path)
    with (folder / "lictor/addons/__init__.py").open("a") as f:
        f.write("\n")
    return folder


def test_what_runs_is_what_is_said(world: Described, tmp_path: Path) -> None:
    monitor, installed = world.monitor, world.installed
    monitor.start()
    (said,) = world.acts()
    assert {name: said[name] for name in ("package", "dependencies", "configuration")} == installed
    shown = world.verify("--package-digest", installed["package"], "--configuration-digest", installed["configuration"])
    assert (shown["ok"], shown["digest"], shown["log_size"]) == (True, said["description"], 0)
    assert world.verify("--package-digest", "f" * 64, code=1)["problems"] != []
    assert all(parse_bet(token).ext["description"] == said["description"] for token in monitor.tokens("bets"))

    # Other bindings: said anew; evidence from then on names the new description.
    world.place.binds("main", binding(version="1.0.1", data_source_access=["urn:test:open"]))
    until(lambda: len(world.entries()) == 2, what="it describes itself again")
    first, second = world.entries()
    assert first["description"]["bindings"] != second["description"]["bindings"]
    assert first["description"]["package"] == second["description"]["package"]
    world.acts()
    until(lambda: world.said()[0]["description"] == second["digest"], what="evidence under the new one has come")

    # Another key: the description is signed by the one in force, of which it brings the certificate.
    rotated = call("monitor", "rotate-evidence", monitor.name, "--trust", monitor.domain.path)
    until(lambda: len(world.entries()) == 3, what="it describes itself again")
    assert world.kids()[2] == rotated["kid"] != world.kids()[1]
    assert world.verify()["digest"] == world.entries()[2]["digest"]
    world.acts()
    monitor.stop()

    # Another package: one byte more in one file.
    monitor.start(env={**os.environ, "PYTHONPATH": str(changed_copy(tmp_path / "changed"))})
    others = {one["package"] for one in world.acts("other_code")} - {installed["package"]}
    assert len(others) == 1
    assert world.verify("--package-digest", installed["package"], code=1)["package"] in others
    assert world.verifier.status() == "contraindicated"
    monitor.stop()

    # Files that change under it: a worker that ends is not started again from them.
    monitor.start(env={**os.environ, "PYTHONPATH": str(tmp_path / "changed")})
    with (tmp_path / "changed/lictor/addons/__init__.py").open("a") as f:
        f.write("\n")
    process = monitor.process
    assert process is not None
    os.kill(monitor.workers()[0], signal.SIGKILL)
    assert process.wait(30) == 0
    assert "other files of lictor are there now" in monitor.output()
    monitor.stop()

    # Another configuration; what is no setting makes none.
    text = monitor.config.read_text()
    monitor.config.write_text(f"# a remark\n\n{text}")
    assert call("monitor", "digest", "-c", monitor.config) == installed
    monitor.config.write_text(f"{text}\n[limits]\nhold_s = 299\n")
    monitor.start()
    world.acts("other_code", "other_configuration")
    monitor.stop()
    evidence = tmp_path / "evidence.jsonl"
    call("log", "export", evidence, "-c", monitor.config)
    report = call("log", "verify", evidence, "--trust", world.trust)
    assert (report["verdict"], report["descriptions"]) == ("intact", 6)
    last = call("monitor", "verify", evidence, "--trust", world.trust)
    assert last["digest"] == world.entries()[-1]["digest"] == report["described"]["digest"]


def test_the_changed_copy_runs(tmp_path: Path) -> None:
    """And is no other than ours but for that byte."""
    ours = package_manifest(Path(lictor.__file__).parent).splitlines()
    theirs = package_manifest(changed_copy(tmp_path) / "lictor").splitlines()
    differ = [line.split(b"  ")[1] for line in theirs if line not in ours]
    assert differ == [b"addons/__init__.py"]
    assert len(ours) == len(theirs)
