"""Two logs about one agent, held against each other entry by entry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lictor.evidence import ledger as ledgers
from lictor.evidence.ledger import Ledger
from lictor.evidence.sqlite_store import SqliteStore
from lictor.formats.keys import KeySigner
from lictor.verifier.comparing import compare

AGENT, OTHER = "spiffe://x/agent/a", "spiffe://x/agent/b"
BEGIN = 1_790_000_000.0


@dataclass(frozen=True)
class Done:
    """What an agent did `at` so many seconds, and how it ended."""

    at: float
    target: str = "https://x.test/1"
    status: int | None = 200
    decision: str = "allow"
    octets: int = 10
    digest: str = "keyed"
    type: str = "http_request"
    method: str = "GET"
    agent: str = AGENT
    approved: bool | None = None


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a log at the times that are given."""
    signer = KeySigner.of(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))

    def make(name: str, *done: Done, until: float = 1000) -> Path:
        clock = [BEGIN]
        monkeypatch.setattr(ledgers.time, "time_ns", lambda: int(clock[0] * 1e9))

        async def fill() -> None:
            log = Ledger.open(SqliteStore(tmp_path / name), f"x/monitor/{name}", signer)
            about = {"agent_id": f"spiffe://x/monitor/{name}", "action_type": "monitor_description"}
            log.add({**about, "action_target": name, "action_parameters": {}, "decision": "allow"})
            for one in done:
                clock[0] = BEGIN + one.at
                for fields in entries_of(one, log.size):
                    log.add(fields)
            clock[0] = BEGIN + until
            log.add({**about, "action_target": name, "action_parameters": {}, "decision": "allow"})
            await log.close()

        asyncio.run(fill())
        return tmp_path / name

    return make


def entries_of(one: Done, seq: int) -> list[dict[str, Any]]:
    named = {"agent_id": one.agent, "action_type": one.type, "action_target": one.target}
    found = [{**named, "action_parameters": {"method": one.method}, "decision": one.decision}]
    out = one.decision in ("allow", "flag")
    if one.approved is not None:
        out = one.approved
        decided = {"decision": "allow" if out else "deny", "decision_of": seq}
        found.append({**named, "action_parameters": {}, **decided})
    if out and one.status is not None:
        outcome = {"status": one.status, "complete": True, "request_bytes": 0, "response_bytes": one.octets}
        outcome |= {"response_digest": one.digest, "duration_ms": one.at}
        found.append({**named, "action_parameters": {}, "outcome_of": seq, "outcome": outcome})
    return found


ONE = Done(10)


@pytest.mark.parametrize(
    ("near", "far", "said"),
    [
        pytest.param([ONE], [ONE], [], id="the same"),
        pytest.param([ONE], [Done(39.9)], [], id="within the skew"),
        pytest.param([ONE], [Done(41)], ["not seen", "not seen"], id="beyond the skew"),
        pytest.param([ONE], [], ["not seen"], id="only the near one"),
        pytest.param([], [ONE], ["not seen"], id="only the far one"),
        pytest.param([ONE, ONE], [ONE], ["not seen"], id="one of two"),
        pytest.param([Done(n) for n in range(50)], [Done(n + 1) for n in range(50)], [], id="many alike"),
        pytest.param([ONE], [Done(10, target="https://x.test/2")], ["not seen", "not seen"], id="another target"),
        pytest.param([ONE], [Done(10, type="tool_call")], ["not seen", "not seen"], id="another type"),
        pytest.param([ONE], [Done(10, method="POST")], ["not seen", "not seen"], id="another method"),
        pytest.param([ONE], [Done(10, agent=OTHER)], ["not seen"], id="another agent"),
        pytest.param([ONE], [Done(10, status=500)], ["(200, 0, 10) and (500, 0, 10)"], id="another status"),
        pytest.param([ONE], [Done(10, octets=11)], ["(200, 0, 10) and (200, 0, 11)"], id="another size"),
        pytest.param([ONE], [Done(10, digest="keyed otherwise")], [], id="keyed digests are not compared"),
        pytest.param(
            [Done(10, type="delegation")], [Done(10, type="delegation", digest="x")], ["'keyed'"], id="others are"
        ),
        pytest.param([ONE], [Done(10, status=None)], [], id="an outcome that is not there yet"),
        pytest.param([Done(10), Done(11, octets=5)], [Done(10, octets=5), Done(11)], [], id="in another order"),
        pytest.param([Done(10, decision="deny")], [], [], id="refused by the near one"),
        pytest.param([ONE], [Done(10, decision="deny")], [], id="refused by the far one"),
        pytest.param([Done(10, decision="hold", approved=True)], [ONE], [], id="held and let out"),
        pytest.param([Done(10, decision="hold", approved=False)], [], [], id="held and refused"),
        pytest.param([Done(10, decision="hold", approved=True)], [], ["not seen"], id="held, let out and not seen"),
    ],
)
def test_what_they_tell(near: list[Done], far: list[Done], said: list[str], write: Callable[..., Path]) -> None:
    found = compare([write("near", *near), write("far", *far)], AGENT)
    assert len(found.differences) == len(said), found
    assert all(text in one.what for text, one in zip(said, found.differences, strict=True)), found
    assert (found.start, found.end) == (BEGIN, BEGIN + 1000)
    assert found.acts["x/monitor/near"] == sum(one.agent == AGENT for one in near)


def test_a_difference_says_where(write: Callable[..., Path]) -> None:
    found = compare([write("near", ONE, Done(20)), write("far", ONE)], AGENT)
    (one,) = found.differences
    assert (one.log, one.seq, one.other) == ("x/monitor/near", 3, "x/monitor/far")
    assert one.what == "http_request https://x.test/1 GET: not seen"


def test_only_the_time_that_both_cover(write: Callable[..., Path]) -> None:
    """Or what is asked for."""
    paths = [write("near", ONE, Done(900)), write("far", ONE, until=500)]
    assert compare(paths, AGENT).differences == ()
    assert len(compare(paths, AGENT, end=BEGIN + 1000).differences) == 1
    assert compare(paths, AGENT, end=BEGIN + 1000, start=BEGIN + 950).differences == ()
    assert compare(paths, AGENT, start=BEGIN + 950).empty


def test_nothing_to_compare(write: Callable[..., Path]) -> None:
    assert compare([write("near"), write("far")], AGENT).empty
    assert not compare([write("near2", ONE), write("far2")], AGENT).empty


def test_three(write: Callable[..., Path]) -> None:
    found = compare([write("a", ONE), write("b", ONE), write("c")], AGENT)
    assert [(one.log, one.other) for one in found.differences] == [
        ("x/monitor/a", "x/monitor/c"),
        ("x/monitor/b", "x/monitor/c"),
    ]


def test_many_alike_take_time_that_grows_with_them(write: Callable[..., Path]) -> None:
    """20,000 of one kind within seconds: pairing each with each would not end."""
    near = [Done(10 + n / 1000, status=None) for n in range(20_000)]
    found = compare([write("near", *near), write("far", *near[:-1])], AGENT)
    assert len(found.differences) == 1
