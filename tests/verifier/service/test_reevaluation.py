"""Recorded actions judged again by copies of their bindings: what agrees, what nobody can tell, what is not honest."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import pytest

from lictor.bindings.catalog import Catalog
from lictor.bindings.model import Action, ActionType, Binding
from lictor.bindings.policy import Policy
from lictor.bindings.registry import load_binding
from lictor.evidence.bet import Bet
from lictor.formats.errors import FormatError
from lictor.verifier.service.appraisal import References
from lictor.verifier.service.reevaluation import Reevaluation, judge_again

AGENT = "spiffe://x/agent/a"
NOON, NIGHT = 1_800_000_000.0 // 86400 * 86400 + 43200, 1_800_000_000.0 // 86400 * 86400


def behavior(name: str, criteria: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"behavior_id": name, "observable_actions": ["tool_call"], "compliance_criteria": criteria, **more}


def made(*behaviors: dict[str, Any], **more: Any) -> Binding:
    document = {
        "policy_id": "urn:p",
        "version": "1.0.0",
        "evaluation_mode": "continuous",
        "expected_behaviors": list(behaviors),
        **more,
    }
    return load_binding(json.dumps(document).encode(), "p.json")


LIST = behavior("list", {"type": "allowlist", "values": ["urn:test:good", "urn:test:dose"]})
DENY = behavior("deny", {"type": "denylist", "values": ["urn:test:bad"]})
DOSE = behavior("dose", {"type": "schema", "parameter": "/arguments/dose", "schema": {"type": "integer", "maximum": 5}})
NAME = behavior(
    "name", {"type": "pattern", "parameters": {"/arguments/name": "[a-z]+"}, "forbidden": {"/arguments/x": "q"}}
)
DAY = behavior("day", {"type": "time", "timezone": "UTC", "hours": ["08:00-18:00"]})
RATE = behavior("rate", {"type": "rate", "limit": 5, "period_s": 60})
GET = behavior("get", {"type": "pattern", "parameters": {"/method": "GET"}})
HOLD = behavior("list", LIST["compliance_criteria"], on_violation="hold")
PLAIN = made(LIST, DENY)


def entry(binding: Binding, said: dict[str, str], **changes: Any) -> dict[str, Any]:
    ids = {"policy_id": binding.policy_id, "version": binding.version, "binding": binding.digest}
    return {
        "seq": 7,
        "timestamp": NOON,
        "agent_id": AGENT,
        "action_type": "tool_call",
        "action_target": "urn:test:good",
        "action_parameters": {"method": "POST"},
        "decision": "deny" if "fail" in said.values() else "allow",
        "reason": "allowed",
        "behaviors": [{**ids, "behavior_id": name, "result": result} for name, result in said.items()],
        "wid": "w",
        "node": "n",
    } | changes


def judge(binding: Binding, said: dict[str, str], opened: dict[str, Any] | None = None, **changes: Any) -> Reevaluation:
    return judge_again(entry(binding, said, **changes), opened or {}, References.of([binding]))


BOTH = {"list": "pass", "deny": "pass"}


def test_what_an_honest_monitor_recorded() -> None:
    found = judge(PLAIN, BOTH)
    assert (found.verdict, [(one.behavior, one.reference) for one in found.behaviors]) == (
        "agrees",
        [("list", "pass"), ("deny", "pass")],
    )
    assert judge(PLAIN, {"list": "fail", "deny": "fail"}, action_target="urn:test:bad").verdict == "agrees"
    batch = judge(PLAIN, BOTH, decision="deny", reason="batch_member_denied")
    assert batch.verdict == "agrees", "what is refused for other reasons is nobody's misjudgement"


@pytest.mark.parametrize(
    ("binding", "said", "changes", "what"),
    [
        (PLAIN, BOTH, {"action_target": "urn:test:bad"}, "list said pass and says fail, and 1 more"),
        (PLAIN, {"list": "fail", "deny": "pass"}, {}, "list said fail and says pass"),
        (PLAIN, {"list": "pass"}, {}, "deny observes such actions and was not asked"),
        (PLAIN, {**BOTH, "more": "pass"}, {}, "more does not observe such an action"),
        (
            PLAIN,
            {"list": "fail", "deny": "pass"},
            {"action_target": "urn:test:other", "decision": "allow"},
            "list failed, which is to deny, and the decision is allow",
        ),
        (
            made(HOLD),
            {"list": "fail"},
            {"action_target": "urn:test:other", "decision": "flag"},
            "list failed, which is to hold",
        ),
        (
            made(LIST, subjects=["spiffe://x/agent/other"]),
            {"list": "pass"},
            {},
            "does not observe such an action of this",
        ),
        (made(DAY), {"day": "pass"}, {"timestamp": NIGHT}, "day said pass and says fail"),
        (made(GET), {"get": "pass"}, {}, "get said pass and says fail"),
    ],
)
def test_what_no_honest_monitor_records(
    binding: Binding, said: dict[str, str], changes: dict[str, Any], what: str
) -> None:
    found = judge(binding, said, **changes)
    assert found.verdict == "misjudged"
    assert what in found.problem
    assert found.problem.startswith("entry 7 is not what its bindings say: ")


@pytest.mark.parametrize(
    ("binding", "said", "opened", "verdict"),
    [
        (made(DOSE), {"dose": "pass"}, {"/arguments/dose": 5}, "agrees"),
        (made(DOSE), {"dose": "pass"}, {"/arguments/dose": 6}, "misjudged"),
        (made(DOSE), {"dose": "fail"}, {"/arguments/dose": "5"}, "agrees"),
        (made(DOSE), {"dose": "fail"}, {"/arguments/dose/0": 5}, "undecided"),
        (made(DOSE), {"dose": "pass"}, {}, "undecided"),
        (made(DOSE), {"dose": "fail"}, {"/arguments/other": 6}, "undecided"),
        (made(NAME), {"name": "pass"}, {"/arguments/name": "ada", "/arguments/x": "p"}, "agrees"),
        (made(NAME), {"name": "pass"}, {"/arguments/name": "Ada", "/arguments/x": "p"}, "misjudged"),
        (made(NAME), {"name": "pass"}, {"/arguments/name": "ada", "/arguments/x": "q"}, "misjudged"),
        (made(NAME), {"name": "pass"}, {"/arguments/name": "ada"}, "undecided"),
        (made(RATE), {"rate": "fail"}, {}, "undecided"),
        (made(LIST, RATE), {"list": "pass"}, {}, "agrees"),
    ],
)
def test_what_was_disclosed_decides(
    binding: Binding, said: dict[str, str], opened: dict[str, Any], verdict: str
) -> None:
    assert judge(binding, said, opened).verdict == verdict


@pytest.mark.parametrize(
    "changes",
    [
        {"action_parameters": {"method": "CONNECT"}},
        {"action_parameters": {"direction": "inbound", "peer": AGENT}},
        {"action_parameters": {"callee": AGENT}},
        {"decision_of": 6, "by": "operator"},
        {"behaviors": []},
    ],
)
def test_what_one_entry_cannot_tell(changes: dict[str, Any]) -> None:
    assert judge(PLAIN, {"list": "fail"}, **changes).verdict == "undecided"


def test_without_a_reference_copy_nothing_is_known() -> None:
    found = judge_again(entry(PLAIN, BOTH), {}, References())
    assert (found.verdict, found.behaviors[0].why) == (
        "undecided",
        "there is no reference copy of the binding that judged",
    )


@pytest.mark.parametrize(("after", "verdict"), [(-1, "agrees"), (0, "undecided"), (59, "undecided"), (61, "misjudged")])
def test_an_hour_that_ends_just_then(after: float, verdict: str) -> None:
    """An action is judged a moment before it is recorded."""
    assert judge(made(DAY), {"day": "pass"}, timestamp=NOON + 6 * 3600 + after).verdict == verdict


def test_a_time_that_is_none() -> None:
    with pytest.raises(FormatError, match="not the entry of an action"):
        judge(made(DAY), {"day": "pass"}, timestamp=1e300)


def test_the_binding_of_the_bet_may_have_come_meanwhile() -> None:
    other = made(DENY, version="2.0.0")
    given = dict.fromkeys(Bet.__slots__, "") | {"policy": "urn:p", "ext": {"binding_digest": other.digest}}
    found = judge_again(entry(PLAIN, BOTH), {}, References.of([PLAIN, other]), Bet(**given))
    assert (found.verdict, found.problem) == ("undecided", "")
    assert "none of those that judged" in found.behaviors[-1].why


@pytest.mark.parametrize(
    "changes",
    [
        {"behaviors": None},
        {"behaviors": [{}]},
        {"behaviors": ["x"]},
        {"action_type": "log_retention"},
        {"decision": "perhaps"},
        {"timestamp": "now"},
        {"action_parameters": []},
        {"action_target": 5},
    ],
)
def test_what_is_no_action(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="not the entry of an action"):
        judge(PLAIN, BOTH, **changes)


def test_values_that_lie_in_each_other_are_none() -> None:
    with pytest.raises(FormatError):
        judge(made(DOSE), {"dose": "pass"}, {"/arguments": 1, "/arguments/dose": 5})


TARGETS = (
    "urn:test:good",
    "urn:test:bad",
    "urn:test:other",
    "https://h.test/a/b",
    "https://h.test/a//b",
    "urn:test:good#tools/x",
)
BINDINGS = [
    made(LIST, DENY),
    made(HOLD, DAY, GET),
    made(LIST, mode="audit"),
    made(
        behavior("some", {"type": "allowlist", "values": ["https://h.test/a/**"]}, targets=["https://h.test/**"]), RATE
    ),
    made(DOSE, NAME),
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("bindings", [*[[one] for one in BINDINGS], [BINDINGS[0], made(DAY, policy_id="urn:q")]])
def test_what_is_judged_live_is_never_found_misjudged(target: str, bindings: list[Binding]) -> None:
    """All that differs between an action on its way and its entry is on the side of doubt."""
    policy, known = Policy(bindings, Catalog(())), References.of(bindings)
    for method, dose, name in itertools.product(("GET", "POST"), (1, 9, None), ("ada", "Ada", None)):
        arguments = {key: value for key, value in (("dose", dose), ("name", name)) if value is not None}
        content = {"method": method, "arguments": {**arguments, "x": "p"}}
        parameters = {"method": method}
        decision = policy.judge(Action(AGENT, ActionType.TOOL_CALL, target, parameters, content))
        written = entry(bindings[0], {}, decision=decision.verdict.value, action_target=target, timestamp=time.time())
        written |= {"behaviors": [one.to_json() for one in decision.behaviors], "action_parameters": parameters}
        for opened in ({}, {f"/arguments/{key}": value for key, value in content["arguments"].items()}):
            assert judge_again(written, opened, known).problem == ""
