from typing import Any

import pytest

from lictor.bindings.catalog import Target
from lictor.bindings.criteria import compile_criteria
from lictor.bindings.criterion import Stateless
from lictor.bindings.model import Action, ActionType
from lictor.formats.errors import UsageError

ALLOWLIST = {
    "type": "allowlist",
    "values": ["urn:example:tool:a", "urn:example:tool:b#tools/x", "https://h.example/**"],
}


def ready(criteria: dict[str, Any]) -> Stateless:
    compiled = compile_criteria(criteria)
    assert isinstance(compiled, Stateless)
    return compiled


def target(urn: str) -> Target:
    return Target(urn, "tool", ("https://t.example/",))


def test_judge() -> None:
    compiled = ready(ALLOWLIST)
    good = Action("spiffe://e.example/a", ActionType.TOOL_CALL, "urn:example:tool:a")
    bad = Action("spiffe://e.example/a", ActionType.TOOL_CALL, "urn:example:tool:b")
    assert compiled.judge(good).ok
    assert (compiled.judge(bad).ok, compiled.judge(bad).reason) == (False, "not_in_allowlist")


def test_an_empty_list_allows_nothing() -> None:
    compiled = ready({"type": "allowlist", "values": []})
    assert not compiled.judge(Action("spiffe://e.example/a", ActionType.TOOL_CALL, "urn:example:tool:a")).ok
    assert not compiled.may_allow_authority("h.example", 443, (target("urn:example:tool:a"),))


def test_authority_by_url_or_by_what_stands_behind_it() -> None:
    compiled = ready(ALLOWLIST)
    assert compiled.may_allow_authority("h.example", 443, ())
    assert not compiled.may_allow_authority("t.example", 443, ())
    assert compiled.may_allow_authority("t.example", 443, (target("urn:example:tool:c"), target("urn:example:tool:b")))
    assert not compiled.may_allow_authority("t.example", 443, (target("urn:example:tool:c"),))


def test_unknown_type_names_the_known() -> None:
    with pytest.raises(UsageError, match="'magic' is not known here; known: allowlist, "):
        compile_criteria({"type": "magic"})
