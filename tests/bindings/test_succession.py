"""No older binding replaces a newer one, and none disappears."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from lictor.bindings.model import Binding
from lictor.bindings.schema import load_binding
from lictor.bindings.succession import Past, Succession, next_version, precedence
from lictor.formats.errors import UsageError


def binding(version: str, policy: str = "urn:p:one", values: tuple[str, ...] = ("urn:test:one",)) -> Binding:
    behavior: dict[str, Any] = {
        "behavior_id": "b",
        "observable_actions": ["tool_call"],
        "compliance_criteria": {"type": "allowlist", "values": list(values)},
    }
    document: dict[str, Any] = {
        "policy_id": policy,
        "expected_behaviors": [behavior] if values else [],
        "evaluation_mode": "continuous",
    }
    if version:
        document["version"] = version
    return load_binding(json.dumps(document).encode(), "test")


def past(*bindings: Binding) -> list[Past]:
    return [Past.of(b.document, b.digest) for b in bindings]


OTHER = ("urn:test:two",)


@pytest.mark.parametrize(
    ("before", "found", "problem"),
    [
        ([], [binding("1.0.0")], None),
        ([binding("1.0.0")], [binding("1.0.0")], None),
        ([binding("1.0.0")], [binding("1.0.0", values=OTHER)], None),
        ([binding("1.0.0")], [binding("1.0.1", values=OTHER)], None),
        ([binding("")], [binding("", values=OTHER)], None),
        ([binding("")], [binding("0.1.0")], None),
        ([binding("1.0.0")], [binding("1.0.0"), binding("1.0.0", "urn:p:two")], None),
        ([binding("1.0.0")], [binding("1.1.0", values=())], None),
        ([binding("1.0.0"), binding("1.1.0", values=())], [], None),
        ([binding("1.1.0")], [binding("1.0.0")], "is older than 1.1.0"),
        ([binding("1.1.0")], [binding("1.1.0-rc.1", values=OTHER)], "is older than 1.1.0"),
        ([binding("1.0.0")], [binding("")], "is older than 1.0.0"),
        ([binding("1.0.0"), binding("1.0.0", values=OTHER)], [binding("1.0.0")], "was in force before"),
        ([binding("1.0.0"), binding("1.1.0", values=())], [binding("1.0.0")], "is older than 1.1.0"),
        ([binding("1.0.0")], [], "is gone"),
        ([binding("1.0.0"), binding("1.0.0", "urn:p:two")], [binding("1.0.0", "urn:p:two")], "urn:p:one was in force"),
    ],
)
def test_what_may_follow(before: list[Binding], found: list[Binding], problem: str | None) -> None:
    succession = Succession(past(*before))
    if problem is None:
        succession.check(found)
    else:
        with pytest.raises(UsageError, match=problem):
            succession.check(found)


def test_what_was_taken_is_remembered() -> None:
    succession = Succession(past(binding("1.0.0")))
    succession.took([binding("2.0.0")])
    with pytest.raises(UsageError, match=r"raise its version above 2\.0\.0"):
        succession.check([binding("1.0.0")])


def test_order_of_versions() -> None:
    """The example of SemVer 2.0.0 section 11."""
    order = ["", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11"]
    order += ["1.0.0-rc.1", "1.0", "1.9.0", "1.10.0", "2.0.0+build.7"]
    for one, other in itertools.pairwise(order):
        assert precedence(one) < precedence(other), (one, other)
    assert precedence("1.0") == precedence("1.0.0") == precedence("1.0.0+x")


@pytest.mark.parametrize(("version", "after"), [("", "0.1.0"), ("1.2", "1.3.0"), ("1.2.3-rc.1+x", "1.3.0")])
def test_next_version(version: str, after: str) -> None:
    assert next_version(version) == after
    assert precedence(version) < precedence(after)
