import json

import pytest

from lictor.bindings.schema import load_binding
from lictor.bindings.subjects import applies_to, check_subject, for_agents_of
from lictor.formats.errors import UsageError

DOCUMENT = {
    "policy_id": "urn:example:policy:everybody",
    "version": "1.0.0",
    "evaluation_mode": "continuous",
    "expected_behaviors": [
        {
            "behavior_id": "b",
            "observable_actions": ["delegation"],
            "compliance_criteria": {"type": "allowlist", "values": ["urn:example:agent:b"]},
        }
    ],
}


@pytest.mark.parametrize(
    ("subjects", "agent", "applies"),
    [
        ((), "spiffe://a.example/agent/x", True),
        (("spiffe://a.example/agent/x",), "spiffe://a.example/agent/x", True),
        (("spiffe://a.example/agent/x",), "spiffe://a.example/agent/xy", False),
        (("spiffe://a.example/agent/x",), "spiffe://a.example/agent/x/y", False),
        (("spiffe://a.example/agent/*",), "spiffe://a.example/agent/x", True),
        (("spiffe://a.example/agent/*",), "spiffe://a.example/agent/x/y", True),
        (("spiffe://a.example/agent/*",), "spiffe://a.example/agent", False),
        (("spiffe://a.example/agent/*",), "spiffe://a.example/agents/x", False),
        (("spiffe://a.example/*",), "spiffe://a.example/agent/x", True),
        (("spiffe://a.example/*",), "spiffe://a.example.evil/agent/x", False),
        (("spiffe://b.example/*", "spiffe://a.example/z"), "spiffe://a.example/z", True),
    ],
)
def test_applies_to(subjects: tuple[str, ...], agent: str, applies: bool) -> None:
    assert applies_to(subjects, agent) is applies


@pytest.mark.parametrize(
    "pattern",
    ["", "*", "spiffe://*", "spiffe://*/agent/x", "spiffe://a.example", "spiffe://a.example/", "spiffe://a.example/a*",
     "spiffe://a.example/*/b", "spiffe://a.example/**", "spiffe://a.example//*", "spiffe://A.example/*", "urn:a1:b"],
)  # fmt: skip
def test_bad_subject(pattern: str) -> None:
    with pytest.raises(UsageError, match="is not a SPIFFE ID"):
        check_subject(pattern)


def test_without_subjects_it_is_for_the_agents_of_one_trust_domain() -> None:
    """So that a partner's may do what bindings that name them say, and nothing else."""
    named = {**DOCUMENT, "policy_id": "urn:example:policy:named", "subjects": ["spiffe://partner.example/monitor/*"]}
    loaded = [load_binding(json.dumps(document).encode(), "test") for document in (DOCUMENT, named)]
    everybody, only = for_agents_of("own.example", loaded)
    assert only == loaded[1]
    assert (everybody.digest, everybody.document) == (loaded[0].digest, loaded[0].document)
    good = "spiffe://own.example/agent/a"
    others = ("spiffe://partner.example/agent/a", "spiffe://own.example.evil/agent/a", "spiffe://own.exampl/agent/a")
    assert applies_to(everybody.subjects, good)
    assert not any(applies_to(everybody.subjects, other) for other in others)
