"""To whom work may be handed on, how often, and what a caller's side must show."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lictor.bindings.criteria import compile_criteria
from lictor.bindings.criterion import Happening, Stateless
from lictor.bindings.handed import Handed, Shown, handed_of
from lictor.bindings.schema import load_binding
from lictor.evidence.checkpoint import Verifier
from lictor.evidence.cosignature import Cosigner
from lictor.formats.cosignature import Witness
from lictor.formats.errors import UsageError
from lictor.formats.keys import KeySigner
from lictor.formats.signed_note import parse_note

AGENT, MONITOR = "spiffe://e.example/agent/a", "spiffe://e.example/monitor/m"
B, URN = "spiffe://other.example/agent/b", "urn:example:agent:b"
NOW, NAN = 1_790_000_000.0, float("nan")
GOOD = Handed(True, (), 2, (Shown("urn:p", "pass", NOW - 5), Shown("urn:q", "pass", NOW - 9)), {"safety": 0.9})


def judge(criteria: dict[str, Any], handed: Handed | None, target: str = URN, who: str = AGENT) -> str:
    compiled = compile_criteria({"type": "delegation", **criteria})
    assert not isinstance(compiled, Stateless)
    return compiled.begin().judge(Happening(who, "delegation", target, "w", NOW, handed)).reason


@pytest.mark.parametrize(
    ("asked", "handed", "reason"),
    [
        ({"to": [URN]}, Handed(False), ""),
        ({"to": ["urn:example:agent:*"]}, Handed(False), ""),
        ({"to": ["urn:example:agent:c"]}, Handed(False), "delegate_not_allowed"),
        ({"to": []}, Handed(False, (B,)), "delegate_not_allowed"),
        ({"to": [B]}, Handed(False, (B,)), ""),
        ({"to": ["spiffe://other.example/agent/*"]}, Handed(False, (B,)), ""),
        ({"to": ["spiffe://other.example/agent/*"]}, Handed(False), "delegate_not_allowed"),
        ({"to": ["spiffe://other.example/agent/c"]}, Handed(False, (B,)), "delegate_not_allowed"),
        ({"to": ["urn:example:agent:c", B]}, Handed(False, (B,)), ""),
        ({"max_depth": 2}, Handed(False, depth=2), ""),
        ({"max_depth": 2}, Handed(False, depth=3), "chain_too_deep"),
        ({"max_depth": 2}, Handed(False, depth=None), "depth_unknown"),
    ],
)
def test_going_out(asked: dict[str, Any], handed: Handed, reason: str) -> None:
    assert judge({"outgoing": asked}, handed) == reason
    assert judge({"incoming": {"result": "pass"}}, handed) == ""


@pytest.mark.parametrize(
    ("asked", "change", "reason"),
    [
        ({"issuers": [MONITOR]}, {}, ""),
        ({"issuers": ["spiffe://e.example/monitor/*"]}, {}, ""),
        ({"issuers": ["spiffe://other.example/monitor/*"]}, {}, "issuer_not_accepted"),
        ({"result": "pass"}, {}, ""),
        ({"result": "pass"}, {"shown": ()}, "result_not_accepted"),
        ({"result": "pass"}, {"shown": (*GOOD.shown, Shown("urn:r", "partial", NOW))}, "result_not_accepted"),
        ({"result": "partial"}, {"shown": (*GOOD.shown, Shown("urn:r", "partial", NOW))}, ""),
        ({"result": "partial"}, {"shown": (*GOOD.shown, Shown("urn:r", "fail", NOW))}, "result_not_accepted"),
        ({"result": "partial"}, {"shown": (Shown("urn:p", "passed", NOW),)}, "result_not_accepted"),
        ({"level": "L2"}, {}, ""),
        ({"level": "L3"}, {}, "level_too_low"),
        ({"level": "L3"}, {"shown": ()}, "level_too_low"),
        ({"level": "L3"}, {"shown": (Shown("urn:p", "pass", NOW, 3),)}, ""),
        ({"level": "L3"}, {"shown": (Shown("urn:p", "pass", NOW, 3), *GOOD.shown)}, "level_too_low"),
        ({"max_age_s": 9}, {}, ""),
        ({"max_age_s": 8.9}, {}, "evidence_too_old"),
        ({"max_age_s": 60}, {"shown": ()}, "evidence_too_old"),
        ({"max_age_s": 60}, {"shown": (Shown("urn:p", "pass", NAN),)}, "evidence_too_old"),
        ({"policies": ["urn:q", "urn:z"]}, {}, ""),
        ({"policies": ["urn:z"]}, {}, "policy_not_accepted"),
        ({"max_depth": 2}, {}, ""),
        ({"max_depth": 1}, {}, "chain_too_deep"),
        ({"max_depth": 9}, {"depth": None}, "depth_unknown"),
        ({"performance": {"profile": "safety", "min_score": 0.9}}, {}, ""),
        ({"performance": {"profile": "safety", "min_score": 0.91}}, {}, "performance_not_shown"),
        ({"performance": {"profile": "speed", "min_score": 0}}, {}, "performance_not_shown"),
        ({"performance": {"profile": "safety", "min_score": 0}}, {"scores": {"safety": NAN}}, "performance_not_shown"),
    ],
)
def test_coming_in(asked: dict[str, Any], change: dict[str, Any], reason: str) -> None:
    given = {name: getattr(GOOD, name) for name in GOOD.__slots__}
    assert judge({"incoming": asked}, Handed(**{**given, **change}), who=MONITOR) == reason
    assert judge({"outgoing": {"to": []}}, GOOD) == ""


W = [Cosigner(f"w{i}.example", KeySigner.of(Ed25519PrivateKey.from_private_bytes(bytes([i]) * 32))) for i in range(4)]
TEXT = "e.example/monitor/m\n7\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
LOG_KEY = str(Verifier("w0.example", W[0].witness.key))
SAME_KEY = str(Witness("other.example", W[0].witness.key))
LOG = "\u2014 e.example/monitor/m AAAAAAA=\n"


def cosigned(*by: tuple[int, float]) -> str:
    """A checkpoint that witnesses signed so many seconds ago."""
    return f"{TEXT}\n{LOG}" + "".join(W[i].sign(TEXT, int(NOW - ago)) for i, ago in by)


def forged(by: int, ago: float) -> str:
    """What another key signed in the name of a witness."""
    good, wrong = W[by].sign(TEXT, int(NOW - ago)), W[by].sign(TEXT + "more\n", int(NOW - ago))
    assert good.split(" ")[:2] == wrong.split(" ")[:2]
    return wrong


@pytest.mark.parametrize(
    ("asked", "note", "reason"),
    [
        pytest.param({}, cosigned((0, 5), (1, 9)), "", id="all have signed"),
        pytest.param({}, cosigned((0, 5)), "not_witnessed", id="one of two"),
        pytest.param({"quorum": 1}, cosigned((1, 5)), "", id="one of two is enough"),
        pytest.param({}, None, "not_witnessed", id="no checkpoint"),
        pytest.param({"quorum": 1}, cosigned(), "not_witnessed", id="nobody has signed"),
        pytest.param({}, cosigned((0, 5), (0, 6)), "not_witnessed", id="one key twice"),
        pytest.param({}, cosigned((0, 5), (2, 5), (3, 5)), "not_witnessed", id="keys that are not named"),
        pytest.param({"quorum": 1}, cosigned() + forged(0, 5), "not_witnessed", id="a wrong cosignature"),
        pytest.param({"quorum": 1}, cosigned() + forged(0, 5) + W[0].sign(TEXT, 7), "", id="a wrong and a good one"),
        pytest.param({"max_age_s": 9}, cosigned((0, 5), (1, 9)), "", id="just young enough"),
        pytest.param({"max_age_s": 8}, cosigned((0, 5), (1, 9)), "witnessed_too_long_ago", id="one is too old"),
        pytest.param({"max_age_s": 8, "quorum": 1}, cosigned((0, 5), (1, 9)), "", id="enough are young"),
        pytest.param({"max_age_s": 8}, cosigned((0, 5), (1, 9), (1, 5)), "", id="the newer of two counts"),
        pytest.param({"quorum": 1}, cosigned((0, -29)), "", id="a clock that is ahead a little"),
        pytest.param({"quorum": 1}, cosigned((0, -31)), "not_witnessed", id="from the future"),
        pytest.param({"quorum": 1}, cosigned((0, -31), (0, 5)), "", id="from the future beside a good one"),
    ],
)
def test_witnesses(asked: dict[str, Any], note: str | None, reason: str) -> None:
    handed = replace(GOOD, checkpoint=parse_note(note) if note is not None else None)
    criteria = {"incoming": {"witnesses": {"keys": [str(one.witness) for one in W[:2]], **asked}}}
    assert judge(criteria, handed, who=MONITOR) == reason


def test_what_is_no_delegation_is_refused() -> None:
    assert judge({"outgoing": {"to": [URN]}}, None) == "delegation_unknown"


EVIDENCE = [{"jti": "j", "policy": "urn:p", "result": "pass", "until": 5, "digest": "d"}]


@pytest.mark.parametrize(
    ("parameters", "handed"),
    [
        ({"method": "POST"}, Handed(False)),
        ({"to": [B], "depth": 1}, Handed(False, (B,), 1)),
        ({"evidence": EVIDENCE, "depth": 2}, Handed(True, (), 2, (Shown("urn:p", "pass", 5.0),))),
        ({"evidence": [], "scores": {"s": 0.5}}, Handed(True, scores={"s": 0.5})),
        ({"evidence": []}, Handed(True)),
        ({"evidence": [], "checkpoint": cosigned((0, 5))}, Handed(True, checkpoint=parse_note(cosigned((0, 5))))),
        ({"evidence": [], "checkpoint": "no note"}, None),
        ({"evidence": [], "checkpoint": None}, None),
        ({"depth": "1"}, None),
        ({"depth": True}, None),
        ({"to": "x"}, None),
        ({"to": [5]}, None),
        ({"scores": [1]}, None),
        ({"scores": {"s": "1"}}, None),
        ({"evidence": [{"policy": [], "result": "pass", "until": 1}]}, None),
        ({"evidence": 5}, None),
        ({"evidence": ["x"]}, None),
        ({"evidence": [{"policy": "p", "result": "pass"}]}, None),
        ({"evidence": [{"policy": "p", "result": "pass", "until": []}]}, None),
    ],
)
def test_what_an_entry_says(parameters: dict[str, Any], handed: Handed | None) -> None:
    assert handed_of(parameters) == handed


@pytest.mark.parametrize(
    ("criteria", "types"),
    [
        ({}, ["delegation"]),
        ({"outgoing": {}}, ["delegation"]),
        ({"outgoing": {"to": ["spiffe://x"]}}, ["delegation"]),
        ({"outgoing": {"to": ["https://x"]}}, ["delegation"]),
        ({"outgoing": {"max_depth": 0}}, ["delegation"]),
        ({"incoming": {"issuers": []}}, ["delegation"]),
        ({"incoming": {"issuers": ["urn:x:y"]}}, ["delegation"]),
        ({"incoming": {"result": "fail"}}, ["delegation"]),
        ({"incoming": {"performance": {"profile": "p"}}}, ["delegation"]),
        ({"incoming": {"witnesses": 1}}, ["delegation"]),
        ({"incoming": {"witnesses": {"quorum": 1}}}, ["delegation"]),
        ({"incoming": {"witnesses": {"keys": []}}}, ["delegation"]),
        ({"incoming": {"witnesses": {"keys": ["w.example+00000000+AAAA"]}}}, ["delegation"]),
        ({"incoming": {"witnesses": {"keys": [LOG_KEY]}}}, ["delegation"]),
        ({"incoming": {"witnesses": {"keys": [str(W[0].witness)], "quorum": 2}}}, ["delegation"]),
        ({"incoming": {"witnesses": {"keys": [str(W[0].witness), SAME_KEY]}}}, ["delegation"]),
        ({"incoming": {"witnesses": {"keys": [str(W[0].witness)], "max_age_s": 0}}}, ["delegation"]),
        ({"incoming": {"witnesses": {"keys": [str(W[0].witness)], "who": 1}}}, ["delegation"]),
        ({"incoming": {"result": "pass"}}, ["delegation", "tool_call"]),
    ],
)
def test_wrong_criteria_are_refused(criteria: dict[str, Any], types: list[str]) -> None:
    behavior = {
        "behavior_id": "b",
        "observable_actions": types,
        "compliance_criteria": {"type": "delegation", **criteria},
    }
    document = {"policy_id": "urn:p", "evaluation_mode": "continuous", "expected_behaviors": [behavior]}
    with pytest.raises(UsageError, match=r"^x: \$\.expected_behaviors\[0\]"):
        load_binding(json.dumps(document).encode(), "x")
