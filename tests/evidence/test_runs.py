"""Runs: the pieces make the canonical entry, a worker is not believed, and a run leaves what single actions would."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from lictor.evidence import awaited
from lictor.evidence.entry import ActionDraft, OutcomeDraft, Receipt, action_fields
from lictor.evidence.ledger import Ledger
from lictor.evidence.lineage import Place
from lictor.evidence.merkle import leaf_hash, root
from lictor.evidence.recorder import PolicyInfo, Recorder
from lictor.evidence.runs import Receipts, Run, encode, parse_common, parse_run
from lictor.evidence.sqlite_store import SqliteStore
from lictor.evidence.store import MAX_ENTRY
from lictor.formats.canonical import MAX_INT
from lictor.formats.errors import FormatError, LedgerError
from lictor.formats.keys import KeySigner
from lictor.verifier.bets import parse_bet

A = "spiffe://example.test/agent/a"
P = PolicyInfo("urn:p", "1.0.0", "digest-p", {"p1": "critical"})
Q = PolicyInfo("urn:q", "2.0.0", "digest-q", {"q1": "high"})
Opened = Callable[[], tuple[Ledger, SqliteStore]]


def said(policy: PolicyInfo, behavior: str, result: str = "pass") -> dict[str, str]:
    of_policy = {"policy_id": policy.policy_id, "version": policy.version, "binding": policy.digest}
    return {**of_policy, "behavior_id": behavior, "result": result}


def action(target: str = "urn:x", **changes: Any) -> ActionDraft:
    behaviors = [said(P, "p1"), said(Q, "q1")]
    return replace(ActionDraft(A, "tool_call", target, {"n": 1}, "allow", "allowed", behaviors), **changes)


def run_of(*drafts: ActionDraft) -> Run:
    """What the control process makes of what a worker encodes."""
    encoded = [encode(draft) for draft in drafts]
    assert len({common for common, _ in encoded}) == 1
    return parse_run(parse_common(encoded[0][0]), b"\n".join(head for _, head in encoded))


_texts = st.text(max_size=12)
_names = st.text(st.characters(max_codepoint=0xDFFF, exclude_categories=("Cs",)), max_size=8)
_numbers = st.integers(-MAX_INT, MAX_INT) | st.floats(1e-5, 1e14) | st.floats(-1e14, -1e-5)
_values = st.recursive(
    st.none() | st.booleans() | _numbers | _texts,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(_names, v, max_size=3),
    max_leaves=8,
)
_drafts = st.builds(
    ActionDraft,
    _texts,
    _texts,
    _texts,
    st.dictionaries(_names, _values, max_size=4),
    _texts,
    _texts,
    st.lists(
        st.fixed_dictionaries(dict.fromkeys(("policy_id", "version", "binding", "behavior_id", "result"), _texts))
    ),
)


@given(_drafts, _texts, _texts, st.integers(0, MAX_INT), st.integers(10**15, 4 * 10**15))
def test_the_pieces_are_the_canonical_entry(draft: ActionDraft, wid: str, node: str, seq: int, clock: int) -> None:
    place = Place(wid, node, "root")
    run = run_of(draft, draft)
    middle, tail = run.common.pieces(place)
    entry = {**action_fields(draft, place), "seq": seq, "timestamp": clock / 1e6}
    for head in run.heads:
        spliced = b'%b%b%d,"timestamp":%b%b' % (head, middle, seq, rfc8785.dumps(clock / 1e6), tail)
        assert spliced == rfc8785.dumps(entry)
    assert orjson.loads(orjson.dumps(list(run.drafts()))) == orjson.loads(orjson.dumps([draft, draft]))


GOOD = b'{"action_parameters":{"n":1},"action_target":"x"}'


@pytest.mark.parametrize(
    ("what", "heads"),
    [
        ("nothing", b""),
        ("an empty line", GOOD + b"\n"),
        ("no JSON", b"{"),
        ("no UTF-8", b'{"action_parameters":{},"action_target":"\xff"}'),
        ("two in one line", GOOD + b"," + GOOD),
        ("a line ending inside", b'{"action_parameters":{"n":1},\n"action_target":"x"}'),
        ("a line ending inside of an array", b'{"action_parameters":{"a":[{}\n{}]},"action_target":"x"}'),
        ("a space before", b" " + GOOD),
        ("a space after", GOOD + b" "),
        ("a carriage return", GOOD + b"\r\n" + GOOD),
        ("a member twice", b'{"action_parameters":{"n":1,"n":1},"action_target":"x"}'),
        ("the target twice", b'{"action_parameters":{},"action_target":"x","action_target":"x"}'),
        ("not in order", b'{"action_target":"x","action_parameters":{}}'),
        ("parameters not in order", b'{"action_parameters":{"b":1,"a":1},"action_target":"x"}'),
        ("one member more", b'{"action_parameters":{},"action_target":"x","agent_id":"y"}'),
        ("another member", b'{"action_parameters":{},"agent_id":"y"}'),
        ("no target", b'{"action_parameters":{}}'),
        ("a target that is no text", b'{"action_parameters":{},"action_target":1}'),
        ("parameters that are no object", b'{"action_parameters":[],"action_target":"x"}'),
        ("an array", b'[{"action_parameters":{},"action_target":"x"}]'),
        ("a text", b'"action_parameters"'),
        ("an integral float", b'{"action_parameters":{"n":1.0},"action_target":"x"}'),
        ("minus nothing", b'{"action_parameters":{"n":-0},"action_target":"x"}'),
        ("minus nothing, a float", b'{"action_parameters":{"n":-0.0},"action_target":"x"}'),
        ("an exponent", b'{"action_parameters":{"n":1e-7},"action_target":"x"}'),
        ("a long float", b'{"action_parameters":{"n":0.10},"action_target":"x"}'),
        ("an integer beyond", b'{"action_parameters":{"n":9007199254740992},"action_target":"x"}'),
        ("an integer far beyond", b'{"action_parameters":{"n":' + b"9" * 30 + b'},"action_target":"x"}'),
        ("infinity", b'{"action_parameters":{"n":1e999},"action_target":"x"}'),
        ("NaN", b'{"action_parameters":{"n":NaN},"action_target":"x"}'),
        ("an escape that need not be", b'{"action_parameters":{},"action_target":"\\u0061"}'),
        ("an escaped solidus", b'{"action_parameters":{},"action_target":"\\/"}'),
        ("an escape in capitals", b'{"action_parameters":{},"action_target":"\\u001F"}'),
        ("a lone surrogate", b'{"action_parameters":{},"action_target":"\\ud800"}'),
        ("a name from U+E000 up", '{"action_parameters":{"\ue000":1},"action_target":"x"}'.encode()),
        ("too deep", b'{"action_parameters":{"a":' + b"[" * 5000 + b"]" * 5000 + b'},"action_target":"x"}'),
    ],
)
def test_heads_that_are_not_taken(what: str, heads: bytes) -> None:
    common = parse_common(encode(action())[0])
    for lines in (heads, GOOD + b"\n" + heads, heads + b"\n" + GOOD):
        with pytest.raises(FormatError):
            parse_run(common, lines)


COMMON = orjson.loads(encode(action())[0])


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("no JSON", b"{"),
        ("no object", b"[]"),
        ("null", b"null"),
        ("nothing", b"{}"),
        *((f"no {name}", {k: v for k, v in COMMON.items() if k != name}) for name in COMMON),
        *((f"{name} of another type", {**COMMON, name: 1}) for name in COMMON),
        ("an unknown member", {**COMMON, "seq": 7}),
        ("a target", {**COMMON, "action_target": "x"}),
        ("a text for behaviors", {**COMMON, "behaviors": "pass"}),
        ("behaviors that are no objects", {**COMMON, "behaviors": [1]}),
        *(
            (
                f"a behavior without {name}",
                {**COMMON, "behaviors": [{k: v for k, v in said(P, "p1").items() if k != name}]},
            )
            for name in said(P, "p1")
        ),
        ("a behavior with a number", {**COMMON, "behaviors": [{**said(P, "p1"), "x": 1}]}),
        ("a name from U+E000 up", {**COMMON, "behaviors": [{**said(P, "p1"), "\ue000": "x"}]}),
        ("lines that are one text", {**COMMON, "execution_context": "x"}),
        ("lines that are no texts", {**COMMON, "execution_context": [1]}),
        ("a traceparent of another type", {**COMMON, "traceparent": 1}),
        ("disclosures of another type", {**COMMON, "disclosures": {"a": 1}}),
    ],
)
def test_what_is_in_common_and_is_not_taken(what: str, data: Any) -> None:
    with pytest.raises(FormatError):
        parse_common(data if isinstance(data, bytes) else orjson.dumps(data))


def test_what_a_worker_says_twice_is_in_the_log_once() -> None:
    """Of what a run has in common the values are taken, never the octets."""
    data = encode(action())[0].replace(b'"decision":"allow"', b'"decision":"deny", "decision":"allow"')
    assert parse_common(data) == parse_common(encode(action())[0])


@pytest.mark.parametrize(
    ("what", "changes", "plain"),
    [
        ("allowed", {}, True),
        ("of a type that is an enumeration's", {"action_type": "model_inference"}, True),
        ("denied", {"decision": "deny"}, False),
        ("flagged", {"decision": "flag"}, False),
        ("held", {"decision": "hold"}, False),
        ("a behavior failed", {"behaviors": [said(P, "p1"), said(Q, "q1", "fail")]}, False),
        ("no behavior spoke", {"behaviors": []}, False),
        ("a delegation", {"action_type": "delegation"}, False),
        ("with a traceparent", {"traceparent": "x"}, False),
        ("with an execution context", {"execution_context": ("x",)}, False),
        ("with values to keep", {"disclosures": ("x",)}, False),
    ],
)
def test_what_need_not_be_looked_at_one_by_one(what: str, changes: dict[str, Any], plain: bool) -> None:
    draft = action(**changes)
    run = run_of(draft)
    assert run.common.plain is plain
    [back] = run.drafts()
    assert orjson.loads(orjson.dumps(back)) == orjson.loads(orjson.dumps(draft))


@dataclass
class Monitor:
    """A recorder on a ledger."""

    ledger: Ledger
    store: SqliteStore
    recorder: Recorder

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(data) for _, data in self.store.entries()]


@pytest.fixture
def start(open_ledger: Opened, signer: KeySigner) -> Callable[..., Monitor]:
    def make(**options: Any) -> Monitor:
        ledger, store = open_ledger()
        recorder = Recorder(ledger, signer, "spiffe://x/monitor/one", lambda _: (P, Q), stored=store, **options)
        return Monitor(ledger, store, recorder)

    return make


@pytest.fixture
async def monitor(start: Callable[..., Monitor]) -> AsyncIterator[Monitor]:
    made = start()
    yield made
    await made.ledger.close()


async def test_a_run_leaves_what_single_actions_leave(start: Callable[..., Monitor], tmp_path: Path) -> None:
    drafts = [action(f"urn:x:{number}", action_parameters={"n": number}) for number in range(5)]
    logs = []
    for whole in (True, False):
        monitor = start()
        first = await monitor.recorder.record_action(action("urn:first"))
        if whole:
            receipts = monitor.recorder.enter_run(run_of(*drafts))
            assert receipts is not None
            given = list(receipts.each())
            await monitor.recorder.commit()
        else:
            given = [await monitor.recorder.record_action(draft) for draft in drafts]
        assert [one._replace(timestamp=0) for one in given] == [
            Receipt(seq, 0, "allow", "allowed", first.wid, first.node) for seq in range(1, 6)
        ]
        assert [one.timestamp for one in given] == [entry["timestamp"] for entry in monitor.entries()[1:]]
        await monitor.recorder.record_outcome(OutcomeDraft(3, {"status": 200}))
        await monitor.recorder.lost(None)
        await monitor.recorder.close()
        claims = [parse_bet(row.token) for row in monitor.store.bets(A)]
        told = [(one.policy, one.result, one.ext["count"], one.ext["first_seq"], one.details) for one in claims]
        same = [{**e, "timestamp": 0, "wid": "", "node": ""} for e in monitor.entries()]
        logs.append((same, told))
        await monitor.ledger.close()
        for file in tmp_path.glob("recorder.db*"):
            file.unlink()
    assert logs[0] == logs[1]
    assert logs[0][1][0][2] == len(logs[0][0]) == 12, "six actions, each with its outcome, in every window"


async def test_the_log_over_runs_can_be_taken_up_again(start: Callable[..., Monitor]) -> None:
    """Tree, tiles and checkpoint agree with the entries, over the end of a tile."""
    monitor = start()
    for _ in range(3):
        assert monitor.recorder.enter_run(run_of(*[action()] * 100)) is not None
    await monitor.recorder.commit()
    leaves = [leaf_hash(data) for _, data in monitor.store.entries()]
    assert monitor.ledger.root() == root(leaves)
    assert monitor.store.hashes(1, 0, 1) == [root(leaves[:256])]
    await monitor.ledger.close()
    again = start()
    assert again.ledger.size == 600, "300 actions; what became of them is unknown"
    await again.ledger.close()


async def test_times_in_a_run_rise_and_whole_seconds_are_integers(monitor: Monitor) -> None:
    monitor.ledger._clock = clock = 4_102_444_799_999_990
    monitor.recorder.enter_run(run_of(*[action()] * 20))
    await monitor.recorder.commit()
    stamps = [entry["timestamp"] for entry in monitor.entries()]
    assert [round(stamp * 1e6) - clock for stamp in stamps] == list(range(4, 24))
    assert [type(stamp) for stamp in stamps].count(int) == 1
    assert all(rfc8785.dumps(json.loads(data)) == data for _, data in monitor.store.entries())


async def test_the_clock_stands(monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    before = monitor.ledger.now()
    receipts = monitor.recorder.enter_run(run_of(action(), action()))
    assert receipts is not None
    stamps = [one.timestamp for one in receipts.each()]
    assert before < stamps[0] < stamps[1] < monitor.ledger.now()


class State:
    """Behaviors with a memory, or none."""

    def __init__(self, idle: bool) -> None:
        self._idle = idle

    def idle(self, agent_id: str) -> bool:
        assert agent_id == A
        return self._idle


@pytest.mark.parametrize(
    ("what", "draft", "options"),
    [
        ("something has a memory", action(), {"state": State(False)}),
        ("not plain", action(decision="flag"), {}),
        ("no window of what judged it", action(behaviors=[{**said(P, "p1"), "policy_id": "urn:other"}]), {}),
    ],
)
async def test_what_has_to_be_recorded_one_by_one(
    what: str, draft: ActionDraft, options: dict[str, Any], start: Callable[..., Monitor]
) -> None:
    monitor = start(**options)
    assert monitor.recorder.enter_run(run_of(draft)) is None
    assert monitor.ledger.size == 0
    await monitor.ledger.close()


async def test_memories_that_are_idle_are_not_asked(start: Callable[..., Monitor]) -> None:
    monitor = start(state=State(True))
    assert monitor.recorder.enter_run(run_of(action())) is not None
    await monitor.ledger.close()


async def test_a_run_with_an_entry_that_is_too_large_is_not_recorded(monitor: Monitor) -> None:
    with pytest.raises(FormatError, match="more than"):
        monitor.recorder.enter_run(run_of(action(), action("x" * MAX_ENTRY)))
    assert monitor.ledger.size == 0
    assert monitor.recorder.enter_run(run_of(action())) == Receipts(
        Receipt(0, pytest.approx(time.time(), abs=60), "allow", "allowed", *_place(monitor)), 1
    )


def _place(monitor: Monitor) -> tuple[str, str]:
    windows = monitor.recorder._agents.get(A).windows
    return windows.wid, windows.node


async def test_a_dead_ledger_takes_no_run(monitor: Monitor) -> None:
    monitor.ledger._dead = LedgerError("the disk is full")
    with pytest.raises(LedgerError, match="full"):
        monitor.recorder.enter_run(run_of(action()))
    monitor.ledger._dead = None


async def test_outcomes_that_never_come(monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awaited, "MAX_AWAITED", 4)
    monitor.recorder.enter_run(run_of(*(action(f"urn:x:{number}") for number in range(7))))
    await monitor.recorder.commit()
    given_up = [(e["outcome_of"], e["action_target"]) for e in monitor.entries() if "outcome_of" in e]
    assert given_up == [(number, f"urn:x:{number}") for number in range(3)]


async def test_what_others_add_in_the_same_turn_is_in_the_same_batch(monitor: Monitor) -> None:
    monitor.recorder.enter_run(run_of(action(), action()))
    done = monitor.recorder.commit()
    acting = asyncio.ensure_future(monitor.recorder.record_action(action()))
    await asyncio.gather(done, acting)
    assert [entry["seq"] for entry in monitor.entries()] == [0, 1, 2]
