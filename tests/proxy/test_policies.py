"""Signers are read strictly; the recorder learns of exactly the bindings that apply."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lictor.bindings.model import Binding
from lictor.bindings.schema import load_binding
from lictor.certs.domain import TrustDomain
from lictor.formats.errors import UsageError
from lictor.formats.keys import KeySigner
from lictor.proxy.policies import policies_for, read_signers


def test_the_operators_key(tmp_path: Path) -> None:
    domain = TrustDomain.create(tmp_path / "trust", "test.internal")
    assert list(read_signers([domain.operator_jwk])) == [KeySigner.from_file(domain.operator_key).kid]


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("missing", None),
        ("not JSON", "{"),
        ("an array", "[]"),
        ("no key", "{}"),
        ("symmetric", '{"kty": "oct", "k": "c2VjcmV0"}'),
        ("key twice", '{"kty": "OKP", "kty": "OKP"}'),
    ],
)
def test_bad_signer(tmp_path: Path, what: str, text: str | None) -> None:
    path = tmp_path / "signer.jwk"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=r"bindings\.signers.*signer\.jwk"):
        read_signers([path])


def binding(policy: str, *subjects: str) -> Binding:
    behavior = {
        "behavior_id": "b",
        "severity": "critical",
        "observable_actions": ["tool_call"],
        "compliance_criteria": {"type": "allowlist", "values": ["urn:test:tool"]},
    }
    document = {
        "policy_id": policy,
        "version": "1.2.3",
        "subjects": list(subjects),
        "evaluation_mode": "continuous",
        "expected_behaviors": [behavior],
    }
    return load_binding(json.dumps(document).encode(), "test")


def test_policies_for() -> None:
    bindings = [
        binding("urn:test:exact", "spiffe://test.internal/agent/a"),
        binding("urn:test:all", "spiffe://test.internal/agent/*"),
        binding("urn:test:other", "spiffe://test.internal/monitor/*"),
    ]
    find = policies_for(bindings)
    found = find("spiffe://test.internal/agent/a")
    assert [info.policy_id for info in found] == ["urn:test:exact", "urn:test:all"]
    assert [info.policy_id for info in find("spiffe://test.internal/agent/b")] == ["urn:test:all"]
    assert find("spiffe://else.internal/agent/a") == ()
    assert (found[0].version, found[0].digest) == ("1.2.3", bindings[0].digest)
    assert found[0].severities == {"b": "critical"}
