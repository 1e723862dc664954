"""A monitor of one trust domain that reports to the Verifier of another, as real processes."""

from __future__ import annotations

import contextlib
import json
import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from end_to_end.verifying import VerifierProcess
from end_to_end.wire import Wire
from end_to_end.world import Monitor, Outside, Server, binding, free_port, target, until

from lictor.certs.bundle import make_bundle
from lictor.certs.domain import TrustDomain

OWN, PARTNER = "own.example", "partner.example"
AGENT = f"spiffe://{PARTNER}/agent/default"


def exchange(folder: Path, domain: TrustDomain) -> str:
    """The table with the bundle of a domain, which comes to lie in the folder."""
    (folder / "beside").write_text(json.dumps(make_bundle(domain)))
    path = (folder / "beside").rename(folder / f"{domain.name}.json")
    return f'[[federation]]\ntrust_domain = "{domain.name}"\nbundle = "{path}"\n'


@pytest.fixture
def ends(tmp_path: Path, outside: Outside) -> Iterator[tuple[VerifierProcess, Monitor, Server]]:
    own, partner = (TrustDomain.create(tmp_path / name, name) for name in (OWN, PARTNER))
    for domain in (own, partner):
        domain.add_agent("default")
    verifier, api = VerifierProcess(tmp_path / "verifier", own), free_port()
    with contextlib.closing(Server(outside)) as server:
        more = f'[evidence]\ninterval_s = 0.5\n[interception]\nupstream_ca = "{outside.ca}"\n{verifier.table}'
        more += f'[orders]\nfrom = ["{AGENT}"]\n{exchange(tmp_path, own)}'
        rules = {"main": binding(data_source_access=["urn:test:open"])}
        targets = target("urn:test:open", "data_source", f"https://localhost:{server.port}/open/**")
        monitor = Monitor(tmp_path / "m", partner, "m", rules, targets, more=more, orders=verifier.orders)
        text = monitor.config.read_text()
        monitor.config.write_text(text.replace("[listen]\n", f'[listen]\napi = "127.0.0.1:{api}"\n'))
        with verifier.config.open("a") as config:
            config.write(f'monitors = ["spiffe://{PARTNER}/monitor/*"]\n{exchange(tmp_path, partner)}')
        verifier.domain = partner
        verifier.turns_to(monitor, api)
        verifier.domain = own
        monitor.start()
        yield verifier, monitor, server
        monitor.stop()
    verifier.stop()


def log_of(verifier: VerifierProcess) -> dict[str, Any]:
    """How far the Verifier has seen the monitor's log, as its own agent is told."""
    agent = verifier.domain.agent("default")
    context = ssl.create_default_context(cafile=str(verifier.domain.identity_ca))
    context.load_cert_chain(agent.cert, agent.key)
    with urllib.request.urlopen(f"{verifier.url}/healthz", context=context, timeout=15) as answer:
        found: dict[str, Any] = json.loads(answer.read())["logs"][0]
        return found


def test_a_partners_monitor_is_heard_until_it_is_revoked(
    ends: tuple[VerifierProcess, Monitor, Server], tmp_path: Path
) -> None:
    verifier, monitor, server = ends

    def get() -> int:
        with Wire(monitor, monitor.agent_context("default")) as wire:
            return wire.tunnel(f"localhost:{server.port}").request("GET", "/open/x").status

    assert get() == 200
    until(lambda: verifier.ask(agent=AGENT)["status"] == "affirming", what="a good window has come")
    found = verifier.ask("--fresh", agent=AGENT, code=0)["agents"][AGENT]
    assert found["monitors"] == [f"spiffe://{PARTNER}/monitor/m"]
    assert "not_fresh" not in [reason["what"] for reason in found["reasons"]], "it took the Verifier's order"
    until(lambda: log_of(verifier)["size"] > 0, what="its log was read")
    assert log_of(verifier)["problem"] == ""

    monitor.domain.revoke_monitor("m")
    exchange(tmp_path, monitor.domain)
    assert get() == 200
    until(lambda: "is revoked" in monitor.output(), what="what it pushes is refused")
    assert "evidence does not reach the Verifier" in monitor.output()
    until(lambda: "is revoked" in log_of(verifier)["problem"], what="its log is no longer read")
    assert verifier.ask("--fresh", agent=AGENT, code=1)["agents"][AGENT]["reasons"][0]["what"] == "not_fresh"
