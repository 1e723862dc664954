import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from lictor.bindings.catalog import Catalog, Target
from lictor.bindings.model import Action, ActionType, Behavior, Binding, Verdict
from lictor.bindings.policy import MAX_AGENTS, Policy

ALICE, BOB = "spiffe://example.org/agent/alice", "spiffe://example.org/agent/bob"
MCP = Target("urn:example:tool:calc", "tool", ("https://t.example/mcp",), "mcp")
ROWS = Target("urn:example:ds:rows", "data_source", ("https://d.example/**",))
CATALOG = Catalog([MCP, ROWS])


def behavior(name: str, types: Sequence[str], values: Sequence[str], **more: Any) -> Behavior:
    criteria = {"type": "allowlist", "values": list(values)}
    return Behavior(name, "", frozenset(ActionType(text) for text in types), criteria, **more)


def binding(name: str, *behaviors: Behavior, subjects: tuple[str, ...] = ()) -> Binding:
    return Binding(
        f"urn:example:policy:{name}", "1.0.0", subjects, behaviors, "continuous", "enforce", f"digest-{name}", {}
    )


def judged(policy: Policy, type_: str, target: str, agent: str = ALICE) -> tuple[str, str, list[tuple[str, str]]]:
    decision = policy.judge(Action(agent, ActionType(type_), target))
    spoke = [(result.behavior_id, result.result) for result in decision.behaviors]
    return decision.verdict.value, decision.reason, spoke


TOOLS = behavior("tools", ["tool_call"], [MCP.urn, MCP.urn + "#tools/add"])
DATA = behavior("data", ["data_source_access"], [ROWS.urn])


def test_what_satisfies_is_allowed_and_names_the_behavior() -> None:
    policy = Policy([binding("p", TOOLS, DATA)], CATALOG)
    assert judged(policy, "tool_call", MCP.urn + "#tools/add") == ("allow", "allowed", [("tools", "pass")])
    assert judged(policy, "data_source_access", ROWS.urn) == ("allow", "allowed", [("data", "pass")])
    (result,) = policy.judge(Action(ALICE, ActionType.TOOL_CALL, MCP.urn)).behaviors
    assert (result.policy_id, result.version, result.binding) == ("urn:example:policy:p", "1.0.0", "digest-p")


def test_what_does_not_is_denied_with_a_hint_that_keeps_the_policy_secret() -> None:
    policy = Policy([binding("p", TOOLS)], CATALOG)
    assert judged(policy, "tool_call", MCP.urn + "#tools/rm") == ("deny", "not_in_allowlist", [("tools", "fail")])
    hint = policy.judge(Action(ALICE, ActionType.TOOL_CALL, "urn:example:other")).hint
    assert hint
    assert "urn:" not in hint


def test_agents_are_not_remembered_without_bound() -> None:
    policy = Policy([binding("p", TOOLS)], CATALOG)
    for number in range(MAX_AGENTS + 10):
        assert policy.judge(Action(f"{ALICE}{number}", ActionType.TOOL_CALL, MCP.urn)).allowed
    assert len(policy._agents) <= MAX_AGENTS


def test_default_deny() -> None:
    for policy in (Policy([], CATALOG), Policy([binding("p", TOOLS)], CATALOG)):
        assert judged(policy, "http_request", "https://a.example/") == ("deny", "default_deny", [])
    nobody = Policy([binding("p", TOOLS, subjects=(BOB,))], CATALOG)
    assert judged(nobody, "tool_call", MCP.urn) == ("deny", "default_deny", [])


def test_every_behavior_of_every_binding_must_be_satisfied() -> None:
    narrow = behavior("narrow", ["tool_call"], [MCP.urn])
    policy = Policy([binding("p", TOOLS), binding("q", narrow)], CATALOG)
    assert judged(policy, "tool_call", MCP.urn) == ("allow", "allowed", [("tools", "pass"), ("narrow", "pass")])
    expected = ("deny", "not_in_allowlist", [("tools", "pass"), ("narrow", "fail")])
    assert judged(policy, "tool_call", MCP.urn + "#tools/add") == expected


def test_a_binding_judges_its_subjects_only() -> None:
    for_bob = binding("q", behavior("narrow", ["tool_call"], []), subjects=("spiffe://example.org/agent/bob",))
    policy = Policy([binding("p", TOOLS), for_bob], CATALOG)
    assert judged(policy, "tool_call", MCP.urn)[0] == "allow"
    assert judged(policy, "tool_call", MCP.urn, BOB)[0] == "deny"
    assert [b.policy_id for b in policy.policies_for(ALICE)] == ["urn:example:policy:p"]
    assert [b.policy_id for b in policy.policies_for(BOB)] == ["urn:example:policy:p", "urn:example:policy:q"]


def test_flag_lets_pass_and_says_fail() -> None:
    flagging = behavior("watch", ["tool_call"], [], on_violation="flag")
    policy = Policy([binding("p", flagging)], CATALOG)
    assert judged(policy, "tool_call", MCP.urn) == ("flag", "not_in_allowlist", [("watch", "fail")])
    assert policy.judge(Action(ALICE, ActionType.TOOL_CALL, MCP.urn)).allowed


def test_deny_beats_flag_whatever_the_order() -> None:
    flagging, denying = behavior("f", ["tool_call"], [], on_violation="flag"), behavior("d", ["tool_call"], [])
    for behaviors in ((flagging, denying), (denying, flagging)):
        policy = Policy([binding("p", *behaviors)], CATALOG)
        decision = policy.judge(Action(ALICE, ActionType.TOOL_CALL, MCP.urn))
        assert (decision.verdict, decision.allowed, decision.reason) == (Verdict.DENY, False, "not_in_allowlist")
        assert {result.result for result in decision.behaviors} == {"fail"}


def test_two_bindings_of_one_id_are_both_judged() -> None:
    """The registry refuses them; if they come here all the same, neither may hide the other."""
    loose, tight = binding("p", TOOLS), binding("p", behavior("tools", ["tool_call"], []))
    for bindings in ((loose, tight), (tight, loose)):
        assert judged(Policy(bindings, CATALOG), "tool_call", MCP.urn)[0] == "deny"


WEB = behavior("web", ["http_request"], ["https://w.example/docs/**", "https://*.x.example:8443/"])


def test_the_host_alone_decides_where_nothing_there_can_be_allowed() -> None:
    policy = Policy([binding("p", TOOLS, WEB)], CATALOG)
    for host, port in (("evil.example", 443), ("w.example", 8443), ("x.example", 8443), ("d.example", 443)):
        decision = policy.judge_authority(ALICE, host, port)
        assert decision is not None
        assert decision.verdict is Verdict.DENY
        assert decision.reason == "not_in_allowlist"
        assert [result.result for result in decision.behaviors] == ["fail"]
        assert decision.hint


def test_the_host_alone_does_not_decide_where_something_may_be_allowed() -> None:
    policy = Policy([binding("p", TOOLS, WEB)], CATALOG)
    for host, port in (("w.example", 443), ("a.x.example", 8443), ("t.example", 443)):
        assert policy.judge_authority(ALICE, host, port) is None


def test_the_host_of_an_agent_without_bindings_is_denied_by_default() -> None:
    decision = Policy([binding("p", WEB, subjects=(BOB,))], CATALOG).judge_authority(ALICE, "w.example", 443)
    assert decision is not None
    assert decision.reason == "default_deny"


def test_a_fragment_or_a_prefix_opens_the_host_of_its_target() -> None:
    for value in (MCP.urn + "#tools/add", MCP.urn + "#tools/*", "urn:example:tool:*"):
        policy = Policy([binding("p", behavior("t", ["tool_call"], [value]))], CATALOG)
        assert policy.judge_authority(ALICE, "t.example", 443) is None


def test_one_binding_that_closes_a_host_closes_it() -> None:
    policy = Policy([binding("p", WEB), binding("q", behavior("none", ["http_request"], []))], CATALOG)
    decision = policy.judge_authority(ALICE, "w.example", 443)
    assert decision is not None
    assert [result.behavior_id for result in decision.behaviors] == ["none"]


def test_flagging_never_closes_a_host() -> None:
    policy = Policy([binding("p", behavior("f", ["http_request"], [], on_violation="flag"))], CATALOG)
    assert policy.judge_authority(ALICE, "anything.example", 443) is None


def test_where_the_host_decides_no_request_there_would_be_allowed() -> None:
    policy = Policy([binding("p", TOOLS, WEB, DATA)], CATALOG)
    urls = (
        "https://w.example/docs/a",
        "https://w.example/",
        "https://a.x.example:8443/",
        "https://evil.example/docs/a",
    )
    for url in urls:
        host, _, port = url.removeprefix("https://").partition("/")[0].partition(":")
        closed = policy.judge_authority(ALICE, host, int(port or 443)) is not None
        if closed:
            assert judged(policy, "http_request", url)[0] == "deny"


def test_the_cost_does_not_grow_with_the_bindings_of_others() -> None:
    others = [binding(f"o{i}", TOOLS, subjects=(f"spiffe://example.org/agent/o{i}",)) for i in range(3000)]
    action = Action(ALICE, ActionType.TOOL_CALL, MCP.urn)

    def steps(policy: Policy) -> int:
        """Lines and calls, in Python and into C, of one judgement once the agent's rules were collected."""
        assert policy.judge(action).allowed
        count = 0

        def step(*_: object) -> object:
            nonlocal count
            count += 1
            return step

        sys.setprofile(step)
        sys.settrace(step)
        try:
            policy.judge(action)
        finally:
            sys.settrace(None)
            sys.setprofile(None)
        return count

    assert steps(Policy([*others, binding("p", TOOLS)], CATALOG)) == steps(Policy([binding("p", TOOLS)], CATALOG))


def test_a_denylist_closes_the_host_with_its_own_reason() -> None:
    criteria = {"type": "denylist", "values": ["https://evil.example/**"]}
    policy = Policy(
        [binding("p", Behavior("no", "", frozenset((ActionType.HTTP_REQUEST,)), criteria))],
        CATALOG,
    )
    decision = policy.judge_authority(ALICE, "evil.example", 443)
    assert decision is not None
    assert decision.reason == "in_denylist"
    assert policy.judge_authority(ALICE, "good.example", 443) is None
    assert judged(policy, "http_request", "https://evil.example/x") == ("deny", "in_denylist", [("no", "fail")])


def test_a_behavior_with_targets_observes_only_these() -> None:
    narrow = behavior("narrow", ["tool_call"], [MCP.urn], targets=(MCP.urn, MCP.urn + "#tools/rm"))
    policy = Policy([binding("p", TOOLS, narrow)], CATALOG)
    assert judged(policy, "tool_call", MCP.urn) == ("allow", "allowed", [("tools", "pass"), ("narrow", "pass")])
    assert judged(policy, "tool_call", MCP.urn + "#tools/add") == ("allow", "allowed", [("tools", "pass")])
    alone = Policy([binding("p", narrow)], CATALOG)
    assert judged(alone, "tool_call", MCP.urn + "#tools/add") == ("deny", "default_deny", [])
    assert judged(alone, "tool_call", MCP.urn + "#tools/rm") == ("deny", "not_in_allowlist", [("narrow", "fail")])
    closed = behavior("none", ["http_request"], [], targets=("https://w.example/a",))
    assert Policy([binding("p", WEB, closed)], CATALOG).judge_authority(ALICE, "w.example", 443) is None


def test_audit_lets_pass_and_says_so() -> None:
    watching = dataclasses.replace(binding("p", behavior("none", ["http_request"], [])), mode="audit")
    policy = Policy([watching], CATALOG)
    expected = ("flag", "audit:not_in_allowlist", [("none", "fail")])
    assert judged(policy, "http_request", "https://w.example/") == expected
    assert policy.judge_authority(ALICE, "w.example", 443) is None
    assert judged(policy, "tool_call", MCP.urn) == ("deny", "default_deny", [])
    both = Policy([watching, binding("q", behavior("no", ["http_request"], []))], CATALOG)
    assert judged(both, "http_request", "https://w.example/")[:2] == ("deny", "not_in_allowlist")


def asking(name: str, type_: str, criteria: dict[str, Any], **more: Any) -> Behavior:
    return Behavior(name, "", frozenset((ActionType(type_),)), criteria, **more)


QUERY = {"type": "pattern", "parameters": {"/query/q": "x"}}
BODY = {"type": "schema", "schema": True}
SITE = ("https", "w.example", 443, "/a")


def test_only_what_a_behavior_asks_for_is_read() -> None:
    policy = Policy(
        [
            binding("p", TOOLS, DATA, WEB),
            binding("q", asking("b", "tool_call", BODY), asking("q", "http_request", QUERY), subjects=(BOB,)),
        ],
        CATALOG,
    )
    tool, rows = ("https", "t.example", 443, "/mcp"), ("https", "d.example", 443, "/x")
    assert [policy.reads(ALICE, *of) for of in ((MCP, tool), (ROWS, rows), (None, SITE))] == ["target"] * 3
    assert [policy.reads(BOB, *of) for of in ((MCP, tool), (ROWS, rows), (None, SITE))] == ["body", "target", "query"]


def test_a_behavior_of_some_targets_asks_for_these_only() -> None:
    fragment = asking("b", "tool_call", BODY, targets=(MCP.urn + "#tools/rm",))
    site = asking("s", "http_request", BODY, targets=("https://w.example/a",))
    policy = Policy([binding("p", fragment, site)], CATALOG)
    assert policy.reads(ALICE, MCP, ("https", "t.example", 443, "/mcp")) == "body"
    other = Target("urn:example:tool:other", "tool", ("https://o.example/",))
    assert policy.reads(ALICE, other, ("https", "o.example", 443, "/")) == "target"
    assert policy.reads(ALICE, None, SITE) == "body"
    assert policy.reads(ALICE, None, ("https", "w.example", 443, "/b")) == "target"


def test_content_is_judged() -> None:
    policy = Policy([binding("p", asking("q", "tool_call", QUERY))], CATALOG)
    good = Action(ALICE, ActionType.TOOL_CALL, MCP.urn, {}, {"query": {"q": "x"}})
    assert policy.judge(good).allowed
    decision = policy.judge(dataclasses.replace(good, content={"query": {"q": "y"}}))
    assert (decision.reason, decision.blamed) == ("pattern_mismatch", decision.behaviors[0])
    assert policy.judge(dataclasses.replace(good, content=None)).reason == "parameter_missing"


def test_behaviors_with_a_memory_are_left_to_it() -> None:
    limited = asking("r", "tool_call", {"type": "rate", "limit": 1, "period_s": 1})
    policy = Policy([binding("p", limited)], CATALOG)
    assert judged(policy, "tool_call", MCP.urn) == ("allow", "allowed", [])
    assert policy.judge_authority(ALICE, "t.example", 443) is None
    assert judged(policy, "http_request", "https://w.example/") == ("deny", "default_deny", [])
    both = Policy([binding("p", limited, TOOLS)], CATALOG)
    assert judged(both, "tool_call", MCP.urn) == ("allow", "allowed", [("tools", "pass")])
    assert judged(both, "tool_call", "urn:x:y") == ("deny", "not_in_allowlist", [("tools", "fail")])


@pytest.mark.parametrize(
    ("effects", "verdict"),
    [
        (["hold"], "hold"),
        (["flag", "hold"], "hold"),
        (["hold", "flag"], "hold"),
        (["hold", "deny"], "deny"),
        (["deny", "hold"], "deny"),
        (["quarantine"], "deny"),
        (["hold", "quarantine"], "deny"),
    ],
)
def test_the_gravest_effect_counts(effects: list[str], verdict: str) -> None:
    behaviors = [behavior(effect, ["tool_call"], [], on_violation=effect) for effect in effects]
    decision = Policy([binding("p", *behaviors)], CATALOG).judge(Action(ALICE, ActionType.TOOL_CALL, MCP.urn))
    assert (decision.verdict, decision.reason) == (verdict, "not_in_allowlist")
    assert decision.blamed is not None
    gravest = next(one for one in effects if one == verdict or (one == "quarantine" and verdict == "deny"))
    assert decision.blamed.behavior_id == gravest
    assert (decision.allowed, decision.denied) == (False, verdict == "deny")


def test_audit_holds_nothing_and_puts_nobody_in_quarantine() -> None:
    behaviors = [behavior(effect, ["tool_call"], [], on_violation=effect) for effect in ("hold", "quarantine")]
    policy = Policy([dataclasses.replace(binding("p", *behaviors), mode="audit")], CATALOG)
    assert judged(policy, "tool_call", MCP.urn)[:2] == ("flag", "audit:not_in_allowlist")


@pytest.mark.parametrize(("effect", "closed"), [("hold", False), ("quarantine", True)])
def test_the_host_alone_decides_only_what_is_not_asked_about(effect: str, closed: bool) -> None:
    web = behavior("web", ["http_request"], ["https://w.example/docs/**"], on_violation=effect)
    decision = Policy([binding("p", web)], CATALOG).judge_authority(ALICE, "evil.example", 443)
    assert (decision is not None) is closed


def test_quarantine_denies_one_agent_everything() -> None:
    policy = Policy([binding("p", TOOLS, WEB)], CATALOG).with_quarantined({ALICE})
    assert judged(policy, "tool_call", MCP.urn) == ("deny", "quarantined", [])
    assert judged(policy, "tool_call", MCP.urn, BOB)[0] == "allow"
    for agent, closed in ((ALICE, True), (BOB, False)):
        assert (policy.judge_authority(agent, "w.example", 443) is not None) is closed
    assert judged(policy.with_quarantined(()), "tool_call", MCP.urn)[0] == "allow"
