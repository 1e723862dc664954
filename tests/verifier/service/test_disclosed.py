"""Disclosures handed to the Verifier: who may, what they prove, and what becomes of a monitor that misjudged."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from disclosing import DIGEST, KEPT, RULES, entry, log_of
from pushed import Pusher
from serving import AGENT, Served, serving

from lictor.certs.domain import TrustDomain
from lictor.cli.init import write_binding
from lictor.evidence.salted import disclosure


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> TrustDomain:
    made = TrustDomain.create(tmp_path_factory.mktemp("disclosed") / "trust", "v.test")
    made.add_verifier("v")
    for monitor in ("one", "two"):
        made.add_monitor(monitor)
    made.add_agent("good")
    return made


@pytest.fixture
def more() -> str:
    return ""


@pytest.fixture
async def served(tmp_path: Path, domain: TrustDomain, more: str) -> AsyncIterator[Served]:
    write_binding(tmp_path / "known" / "p.json", RULES, domain)
    async with serving(tmp_path, domain, f'{more}\n[references]\ndirectory = "known"\n') as found:
        yield found


async def hand_in(served: Served, text: str, who: str = "agent/good") -> tuple[int, Any]:
    status, body = await served.call("POST", "/disclosures", text.encode(), who)
    return status, json.loads(body) if status == 200 else body.decode()


async def reasons(served: Served) -> list[str]:
    return [one["what"] for one in (await served.ask()).submodules[AGENT].behavior["reasons"]]


async def test_an_honest_entry_changes_nothing(served: Served, domain: TrustDomain, tmp_path: Path) -> None:
    good, bad = await log_of(tmp_path, domain, "one", entry("urn:test:good"), entry("urn:test:bad", "fail"))
    status, said = await hand_in(served, good)
    assert (status, said["verdict"], said["monitor"], said["seq"]) == (200, "agrees", "spiffe://v.test/monitor/one", 0)
    assert said["hidden"] == 1
    assert (await hand_in(served, bad, "monitor/two"))[1]["verdict"] == "agrees"


async def test_a_monitor_that_misjudged_is_no_witness_for_anybody(
    served: Served, domain: TrustDomain, tmp_path: Path
) -> None:
    one = Pusher(domain.monitor("one"), AGENT)
    ext = {"binding_digest": DIGEST}
    await served.push(one.bet(ext=ext, bhv_policy=RULES["policy_id"]), keys=[one.jwk])
    assert (await served.ask()).status == "affirming"
    (text,) = await log_of(tmp_path, domain, "one", entry("urn:test:bad"))
    _, said = await hand_in(served, text)
    assert (said["verdict"], said["behaviors"][0]["reference"]) == ("misjudged", "fail")
    result = await served.ask()
    assert result.status == "contraindicated"
    (reason,) = [one for one in result.submodules[AGENT].behavior["reasons"] if one["what"] == "misjudged"]
    assert "entry 0 is not what its bindings say" in reason["text"]


async def test_a_disclosure_of_another_history_shows_it(served: Served, domain: TrustDomain, tmp_path: Path) -> None:
    """Both trees are signed by the monitor: the one that is shown to the auditor, and the one that its BET names."""
    one = Pusher(domain.monitor("one"), AGENT)
    await served.push(one.bet(), keys=[one.jwk])
    (text,) = await log_of(tmp_path, domain, "one", entry("urn:test:good"))
    assert (await hand_in(served, text))[1]["verdict"] == "agrees"
    assert "two_histories" in await reasons(served)


async def test_what_proves_nothing_is_not_taken(served: Served, domain: TrustDomain, tmp_path: Path) -> None:
    (text,) = await log_of(tmp_path, domain, "one", entry("urn:test:bad"))
    (other,) = await log_of(tmp_path, domain, "two", entry("urn:test:good"))
    mixed = json.dumps({**json.loads(text), "fields": [disclosure("/arguments/dose", 1)]})
    forged = text.replace("index 0", "index 1")
    bodies = {
        mixed: "is not one that the entry holds the digest of",
        forged: "is not entry 1 of the log",
        "{}": "required property",
        "[]": "JSON object",
        json.dumps({**json.loads(text), "more": 1}): "more",
    }
    for body, what in bodies.items():
        status, said = await hand_in(served, body)
        assert (status, what in said) == (400, True), said
    assert (await hand_in(served, other))[1]["verdict"] == "agrees"
    assert (await served.ask()).status == "none"


async def test_values_are_opened(served: Served, domain: TrustDomain, tmp_path: Path) -> None:
    (text,) = await log_of(tmp_path, domain, "one", entry("urn:test:good"))
    opened = json.dumps({**json.loads(text), "fields": [KEPT]})
    assert (await hand_in(served, opened))[1]["hidden"] == 0


@pytest.mark.parametrize(
    "more", ['monitors = ["spiffe://v.test/monitor/two"]\nrelying_parties = ["spiffe://v.test/agent/auditor"]']
)
async def test_who_may_hand_in_what(served: Served, domain: TrustDomain, tmp_path: Path) -> None:
    (text,) = await log_of(tmp_path, domain, "one", entry("urn:test:bad"))
    assert await hand_in(served, text) == (
        403,
        "spiffe://v.test/agent/good may not hand disclosures to this Verifier\n",
    )
    status, said = await hand_in(served, text, "monitor/two")
    assert (status, "whose evidence this Verifier does not take" in said) == (400, True)
