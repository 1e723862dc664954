"""What one decision costs: with short lists and with long ones, and with a hundred behaviors that all must be asked."""

from __future__ import annotations

import gc
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import orjson

from lictor.bindings.catalog import Catalog
from lictor.bindings.model import Action, ActionType
from lictor.bindings.policy import Policy
from lictor.bindings.schema import load_binding

from .appending import DIGEST

AGENT = "spiffe://example.test/agent/a"
WEEK = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
ROUNDS = 15
DECISIONS = 3_000
SINGLE = 20_000
FEW, MANY, BEHAVIORS = 10, 100_000, 100


def measure() -> dict[str, float]:
    """All figures of this module. Policies judge in this process, as in a worker."""
    gc.collect()
    figures = _length() | _behaviors()
    for name, value in figures.items():
        print(f"{name:32} {value:12.3f}")
    return figures


def _length() -> dict[str, float]:
    """Targets that a value names, that a pattern matches, and that nothing does, in turn; another one each time."""
    short, long = (_policy([_behavior(0, "allowlist", values=_values(entries))]) for entries in (FEW, MANY))
    actions = [
        _action(target)
        for i in range(DECISIONS // 3)
        for target in (
            f"https://api{i % (FEW // 2)}.example.test/v1/items/{i % (FEW // 2)}",
            f"https://host{i % (FEW // 2)}.example.org/v1/some/{i}/where",
            f"https://host{i}.example.net/v1/nowhere",
        )
    ]
    rounds = [(_microseconds(long, actions), _microseconds(short, actions)) for _ in range(ROUNDS)]
    return {
        "decision_us": statistics.median(one for _, one in rounds),
        "decision_100k_vs_10": statistics.median(many / few for many, few in rounds),
    }


def _behaviors() -> dict[str, float]:
    """A hundred behaviors, all of which observe each action and are satisfied; and the time to encode its entry."""
    policy = _policy([_mixed(i) for i in range(BEHAVIORS)])
    actions = [_action(f"https://api{i % 10}.example.test/v1/items/{i}") for i in range(SINGLE)]
    assert all(policy.judge(action).allowed for action in actions)
    entry = _entry(policy, actions[0])
    middle, slowest, encoding, encoding_usual = [], [], [], []
    usual = {**entry, "behaviors": entry["behaviors"][:2]}
    for at in range(0, SINGLE, SINGLE // ROUNDS):
        part = actions[at : at + SINGLE // ROUNDS]
        single = sorted(_once(lambda action=action: policy.judge(action)) for action in part)  # type: ignore[misc]
        middle.append(single[len(single) // 2])
        slowest.append(single[int(len(single) * 0.99)])
        encoding += [_once(lambda: orjson.dumps(entry, option=orjson.OPT_SORT_KEYS)) for _ in part[:200]]
        encoding_usual += [_once(lambda: orjson.dumps(usual, option=orjson.OPT_SORT_KEYS)) for _ in part[:200]]
    return {
        "decision_p50_us": statistics.median(middle),
        "decision_p99_us": statistics.median(slowest),
        "encode_entry_us": statistics.median(encoding_usual),
        "encode_entry_100_behaviors_us": statistics.median(encoding),
    }


def _mixed(number: int) -> dict[str, Any]:
    """Of twenty: two times, two schemas, one expression over the target, and lists, two for some targets only."""
    if number % 20 == 7:
        return _behavior(number, "pattern", target=r"https://[a-z0-9.-]+/v1/[a-z0-9/]*")
    if number % 10 == 8:
        return _behavior(number, "time", timezone="Europe/Berlin", weekdays=WEEK)
    if number % 10 == 9:
        return _behavior(number, "schema", parameter="/method", schema={"enum": ["GET", "POST"]})
    if number % 10 == 6:
        allowed = [*_values(20), "https://*.example.test/v1/**"]
        return {**_behavior(number, "allowlist", values=allowed), "targets": ["https://*.example.test/v1/items/*"]}
    if number % 2:
        return _behavior(number, "denylist", values=[f"https://*.evil{number}.test/**", "https://*.paste.test/**"])
    return _behavior(number, "allowlist", values=[f"urn:example:tool:{number}", "https://*.example.test/v1/**"])


def _values(entries: int) -> list[str]:
    """Half of them URLs, half of them patterns on hosts of their own; the first ten are the same for all lengths."""
    exact = [f"https://api{i}.example.test/v1/items/{i}" for i in range(entries // 2)]
    return exact + [f"https://host{i}.example.org/v1/**" for i in range(entries // 2)]


def _behavior(number: int, kind: str, **criteria: Any) -> dict[str, Any]:
    return {
        "behavior_id": f"b{number}",
        "observable_actions": ["http_request"],
        "compliance_criteria": {"type": kind, **criteria},
    }


def _policy(behaviors: list[dict[str, Any]]) -> Policy:
    document = {
        "policy_id": "urn:p:a",
        "version": "1.0.0",
        "evaluation_mode": "continuous",
        "expected_behaviors": behaviors,
    }
    return Policy([load_binding(json.dumps(document).encode(), "bench")], Catalog([]))


def _action(target: str) -> Action:
    return Action(AGENT, ActionType.HTTP_REQUEST, target, {"method": "GET"}, {"method": "GET"})


def _entry(policy: Policy, action: Action) -> dict[str, Any]:
    """The entry of an action, as the control process encodes it."""
    decision = policy.judge(action)
    return {
        "seq": 12345,
        "timestamp": 1790000000.123456,
        "agent_id": action.agent_id,
        "action_type": action.type.value,
        "action_target": action.target,
        "action_parameters": {"method": "GET", "request_bytes": 0, "request_digest": DIGEST},
        "decision": decision.verdict.value,
        "reason": decision.reason,
        "behaviors": [behavior.to_json() for behavior in decision.behaviors],
        "wid": "00000000-0000-4000-8000-000000000000",
        "node": "00000000-0000-4000-8000-000000000000",
        "lineage": "root",
    }


def _microseconds(policy: Policy, actions: list[Action]) -> float:
    """For one decision, of all of them; of the processor, so that what others do in between is not taken for ours."""
    began = time.thread_time()
    for action in actions:
        policy.judge(action)
    return (time.thread_time() - began) / len(actions) * 1e6


def _once(work: Callable[[], object]) -> float:
    """The same for one call of anything."""
    began = time.thread_time_ns()
    work()
    return (time.thread_time_ns() - began) / 1000


if __name__ == "__main__":
    measure()
