"""What must come before, and what must never come after: by agent, by workflow, in time."""

from typing import Any

import pytest

from lictor.bindings import remembered
from lictor.bindings.criteria import compile_criteria
from lictor.bindings.criteria import sequence as module
from lictor.bindings.criterion import Happening, Memory, Stateless
from lictor.bindings.schema import load_binding
from lictor.formats.canonical import canonical
from lictor.formats.errors import UsageError

A, B = "spiffe://e.example/a", "spiffe://e.example/b"
PRIVATE, APPROVE, PAY = "urn:e1:ds:private", "urn:e1:tool:approve", "urn:e1:tool:pay"
INSIDE, OUTSIDE = "https://x.inside.example/a", "https://outside.example/b"


def memory(**criteria: Any) -> Memory:
    compiled = compile_criteria({"type": "sequence", **criteria})
    assert not isinstance(compiled, Stateless)
    assert compiled.remembers_all
    assert compiled.horizon == criteria.get("within_s")
    return compiled.begin()


def do(on: Memory, target: str, agent: str = A, wid: str = "w1", time: float = 1000.0) -> str:
    happening = Happening(agent, "tool_call", target, wid, time)
    outcome = on.judge(happening)
    if outcome.ok:
        on.took(happening)
    return outcome.reason


def test_nothing_goes_outside_after_private_data_was_read() -> None:
    flow = memory(scope="agent", never_after=[PRIVATE], **{"except": ["https://*.inside.example/**", PRIVATE]})
    assert do(flow, OUTSIDE) == ""
    assert do(flow, PRIVATE) == ""
    assert [do(flow, target) for target in (OUTSIDE, INSIDE, PRIVATE)] == ["forbidden_after", "", ""]
    assert do(flow, OUTSIDE, wid="w2", time=1e9) == "forbidden_after"
    assert do(flow, OUTSIDE, agent=B) == ""


def test_the_scope_of_a_workflow_spans_agents() -> None:
    flow = memory(scope="workflow", never_after=[PRIVATE])
    do(flow, PRIVATE)
    assert do(flow, OUTSIDE, agent=B) == "forbidden_after"
    assert do(flow, OUTSIDE, wid="w2") == ""


def test_never_after_without_exception_means_once() -> None:
    once = memory(scope="agent", never_after=[PAY])
    assert [do(once, PAY), do(once, PAY)] == ["", "forbidden_after"]


def test_must_follow() -> None:
    approved = memory(scope="workflow", must_follow=[APPROVE])
    assert [do(approved, target) for target in (PAY, APPROVE, PAY, PAY)] == ["missing_predecessor", "", "", ""]
    assert do(approved, PAY, wid="w2") == "missing_predecessor"


def test_within() -> None:
    approved = memory(scope="agent", must_follow=[APPROVE], within_s=60)
    do(approved, APPROVE, time=1000.0)
    assert [do(approved, PAY, time=t) for t in (1060.0, 1060.5)] == ["", "missing_predecessor"]
    cooling = memory(scope="agent", never_after=[PRIVATE], within_s=60)
    do(cooling, PRIVATE, time=1000.0)
    assert [do(cooling, OUTSIDE, time=t) for t in (1060.0, 1060.5)] == ["forbidden_after", ""]


def test_what_was_denied_did_not_happen() -> None:
    flow = memory(scope="agent", never_after=[PRIVATE])
    flow.judge(Happening(A, "data_source_access", PRIVATE, "w1", 1.0))
    assert do(flow, OUTSIDE) == ""


def test_a_workflow_is_kept_while_it_lives() -> None:
    flow = memory(scope="workflow", never_after=[PRIVATE], **{"except": [INSIDE]})
    do(flow, PRIVATE, time=0.0)
    day = 86400.0
    for n in range(1, 10):
        do(flow, INSIDE, time=n * 20 * day)
        do(flow, PRIVATE, wid=f"other{n}", time=n * 20 * day)
    assert do(flow, OUTSIDE, time=200 * day) == "forbidden_after"


def test_what_cannot_be_remembered_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered.Remembered.__init__, "__defaults__", (2,))
    flow = memory(scope="workflow", never_after=[PRIVATE])
    assert [do(flow, PRIVATE, wid=f"w{n}") for n in range(2)] == ["", ""]
    assert do(flow, OUTSIDE, wid="new") == ""
    assert do(flow, PRIVATE, wid="w9") == ""
    assert do(flow, OUTSIDE, wid="w9") == "forbidden_after"
    assert do(flow, OUTSIDE, wid="new") == "forbidden_after"
    assert module.KEPT_S > 86400


@pytest.mark.parametrize(
    ("criteria", "complaint"),
    [
        ({"scope": "agent"}, "either must_follow or never_after"),
        ({"scope": "agent", "must_follow": [PAY], "never_after": [PAY]}, "and not both"),
        ({"scope": "agent", "must_follow": []}, "must_follow"),
        ({"scope": "all", "must_follow": [PAY]}, "scope: expected one of 'agent', 'workflow'"),
        ({"scope": "agent", "must_follow": ["*"]}, "must start with urn:"),
        ({"scope": "agent", "must_follow": [PAY], "within_s": 0}, "within_s"),
    ],
)
def test_wrong_criteria_are_refused(criteria: dict[str, Any], complaint: str) -> None:
    behavior = {
        "behavior_id": "b",
        "observable_actions": ["tool_call"],
        "compliance_criteria": {"type": "sequence", **criteria},
    }
    document = {"policy_id": "urn:p", "evaluation_mode": "continuous", "expected_behaviors": [behavior]}
    with pytest.raises(UsageError, match=complaint):
        load_binding(canonical(document), "x")
