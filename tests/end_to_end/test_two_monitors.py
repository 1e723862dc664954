"""Two monitors that are to watch the same traffic of an agent: their logs and their evidence tell the same, or not."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from end_to_end.verifying import AGENT, Place, Start, placed
from end_to_end.wire import Wire
from end_to_end.world import Monitor, Outside, binding, target, until

from lictor.certs.domain import TrustDomain
from lictor.cli import cli


@pytest.fixture
def place(tmp_path: Path, domain: TrustDomain, make_monitor: Start, outside: Outside) -> Iterator[Place]:
    with placed(tmp_path, domain, make_monitor, outside) as made:
        yield made


@pytest.fixture
def other(place: Place, make_monitor: Start, outside: Outside) -> Monitor:
    """A second monitor before the same server, which reports to the same Verifier."""
    targets = target("urn:test:open", "data_source", f"https://localhost:{place.server.port}/open/**")
    more = f'[evidence]\ninterval_s = 0.5\n[interception]\nupstream_ca = "{outside.ca}"\n{place.verifier.table}'
    rules = {"main": binding(data_source_access=["urn:test:open"])}
    monitor: Monitor = make_monitor("other", rules, targets, more=more, start=False)
    return monitor


def get(place: Place, monitor: Monitor, path: str, agent: str = "default") -> int:
    with Wire(monitor, monitor.agent_context(agent)) as wire:
        return wire.tunnel(f"localhost:{place.server.port}").request("GET", path).status


def ended(monitor: Monitor, count: int) -> None:
    until(lambda: len([e for e in monitor.of_agents() if "outcome_of" in e]) == count, what=f"{count} outcomes")


def test_they_tell_the_same_or_not(place: Place, other: Monitor, tmp_path: Path) -> None:
    """One agent comes by both, and what one of them refuses the other does not see; another agent comes by one only."""
    domain, verifier, monitors = place.monitor.domain, place.verifier, (place.monitor, other)
    lone = f"lone-{os.getpid()}"
    domain.add_agent(lone)
    names = [f"spiffe://{domain.name}/monitor/{monitor.name}" for monitor in monitors]
    table = f'agent = "spiffe://{domain.name}/agent/*"\nmonitors = {json.dumps(names)}\n'
    verifier.config.write_text(f"{verifier.config.read_text()}[logs]\nwithin_s = 1\n[[watched]]\n{table}")
    verifier.start()
    for monitor in monitors:
        monitor.start()
    for path in ("/open/1", "/open/2"):
        assert [get(place, monitor, path) for monitor in monitors] == [200, 200]
    assert get(place, place.monitor, "/closed/1") == 403
    assert get(place, other, "/open/3", lone) == 200
    ended(place.monitor, 2)
    ended(other, 3)

    def compare(agent: str, code: int) -> Any:
        files = [tmp_path / f"{monitor.name}.jsonl" for monitor in monitors]
        for monitor, file in zip(monitors, files, strict=True):
            exported = CliRunner().invoke(cli, ["log", "export", str(file), "-c", str(monitor.config)])
            assert exported.exit_code == 0, exported.output
        words = ["log", "compare", *map(str, files), "--agent", f"spiffe://{domain.name}/agent/{agent}"]
        words += ["--to", "9999999999", "--trust", str(domain.identity_ca)]
        assert CliRunner().invoke(cli, words).exit_code == code
        done = CliRunner().invoke(cli, [*words, "--json"])
        assert done.exit_code == code, (done.output, done.exception)
        return json.loads(done.stdout)

    told = compare("default", 0)
    assert (told["ok"], sorted(told["acts"].values())) == (True, [2, 3])
    assert set(told["logs"].values()) == {"intact"}
    (one,) = compare(lone, 1)["differences"]
    assert (one["log"], one["other"]) == tuple(name.removeprefix("spiffe://") for name in reversed(names))
    assert one["what"].endswith("not seen")

    agent = f"spiffe://{domain.name}/agent/{lone}"

    def reasons(agent: str) -> dict[str, str]:
        return {one["what"]: one["text"] for one in verifier.ask(agent=agent)["agents"][agent]["reasons"]}

    until(lambda: "monitors_disagree" in reasons(agent), what="the monitor that keeps silent is named")
    assert reasons(agent)["monitors_disagree"].startswith(f"{names[0]} tells of nothing where {names[1]}")
    assert "monitors_disagree" not in reasons(AGENT)


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["log", "compare", str(tmp_path / "one"), "--agent", "a"])
    assert "two monitors or more" in str(done.exception)
