"""Third-party code: loaded if it is named, told by a digest, checked by its schema; never in the place of our own."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from third_party import CODE, install

from lictor.bindings import extensions
from lictor.bindings.catalog import Catalog
from lictor.bindings.criteria import CRITERIA
from lictor.bindings.extensions import load_extensions
from lictor.bindings.model import Action, ActionType
from lictor.bindings.policy import Policy
from lictor.bindings.protocols import PROTOCOLS
from lictor.bindings.schema import load_binding
from lictor.formats.errors import UsageError


@pytest.fixture(autouse=True)
def leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    known = dict(CRITERIA), dict(PROTOCOLS)
    monkeypatch.setattr(extensions, "_loaded", {})
    yield
    for registry, before in zip((CRITERIA, PROTOCOLS), known, strict=True):
        registry.clear()
        registry.update(before)  # type: ignore[arg-type]
    sys.modules.pop("acme_rules", None)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(install(tmp_path / "site")))
    return tmp_path / "site"


def bound(**criteria: object) -> bytes:
    behavior = {
        "behavior_id": "b",
        "observable_actions": ["tool_call"],
        "compliance_criteria": {"type": "acme.even", **criteria},
    }
    return json.dumps(
        {"policy_id": "urn:p", "evaluation_mode": "continuous", "expected_behaviors": [behavior]}
    ).encode()


def test_what_is_named_is_loaded_and_judges(installed: Path) -> None:
    with pytest.raises(UsageError, match=r"'acme\.even' is not known here"):
        load_binding(bound(), "x")
    assert "acme_rules" not in sys.modules, "what is not named is not even imported"
    criterion, classifier = load_extensions({"criteria": ["acme.even"], "classifiers": ["acme.header"]})
    assert (criterion.kind, criterion.name, criterion.distribution, criterion.version) == (
        "criteria",
        "acme.even",
        "acme-rules",
        "1.2",
    )
    assert (classifier.kind, classifier.name, classifier.digest) == ("classifiers", "acme.header", criterion.digest)
    policy = Policy([load_binding(bound(off=9), "x")], Catalog([]))
    decisions = [
        policy.judge(Action("spiffe://e.example/a", ActionType.TOOL_CALL, t)) for t in ("urn:e1:a", "urn:e1:aa")
    ]
    assert [decision.reason for decision in decisions] == ["odd", "allowed"]
    assert PROTOCOLS["acme.header"].kinds == ("tool",)
    assert load_extensions({"criteria": ["acme.even"]}) == (criterion,), "a second time it is the same"


def test_the_digest_is_over_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    for n, code in enumerate((CODE, CODE, CODE + "\n# other\n")):
        monkeypatch.setattr(extensions, "_loaded", {})
        with monkeypatch.context() as patched:
            patched.syspath_prepend(str(install(tmp_path / str(n), code)))
            (extension,) = load_extensions({"criteria": ["acme.even"]})
            sys.modules.pop("acme_rules")
        found.add(extension.digest)
    assert len(found) == 2


@pytest.mark.parametrize(
    ("kind", "name", "problem"),
    [
        ("criteria", "allowlist", "is built in and cannot be replaced"),
        ("classifiers", "http", "is built in and cannot be replaced"),
        ("criteria", "nothing", r"is not installed: .* group lictor\.criteria \(absent, acme\.even, .* there\)"),
        ("classifiers", "acme.even", r"is not installed: .* group lictor\.classifiers"),
        ("criteria", "broken", "cannot be loaded from acme_rules:nowhere: AttributeError"),
        ("criteria", "absent", "cannot be loaded from acme_absent:x: ModuleNotFoundError"),
        ("criteria", "unfit", "has no schema and no compile"),
    ],
)
def test_what_cannot_be_taken(installed: Path, kind: str, name: str, problem: str) -> None:
    with pytest.raises(UsageError, match=f"^extensions.{kind}: {name!r} .*{problem}"):
        load_extensions({kind: [name]})
    assert set(CRITERIA) | set(PROTOCOLS) >= {"allowlist", "http"}
    assert name in ("allowlist", "http") or name not in CRITERIA


def test_code_that_fails_at_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(install(tmp_path / "site", "import sys\nsys.exit(3)\n")))
    with pytest.raises(UsageError, match=r"cannot be loaded from .*: SystemExit: 3"):
        load_extensions({"criteria": ["acme.even"]})


def test_two_distributions_with_one_name(installed: Path) -> None:
    install(installed, version="2", name="acme-other")
    with pytest.raises(UsageError, match=r"is offered by acme-other and acme-rules: uninstall one"):
        load_extensions({"criteria": ["acme.even"]})


@pytest.mark.parametrize(
    ("criteria", "problem"),
    [
        ({"of": 1}, "Additional properties are not allowed"),
        ({"off": 10}, "10 is greater than the maximum of 9"),
        ({"off": 7}, r"the extension acme\.even does not take these criteria: .* zero"),
    ],
)
def test_criteria_that_it_does_not_take(installed: Path, criteria: dict[str, int], problem: str) -> None:
    load_extensions({"criteria": ["acme.even"]})
    with pytest.raises(UsageError, match=rf"x: \$\.expected_behaviors\[0\]\.compliance_criteria.*{problem}"):
        load_binding(bound(**criteria), "x")
