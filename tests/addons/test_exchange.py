"""The permit is for one request as it stands; bodies are counted without being kept."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from flows import make_flow

from lictor.addons.exchange import Exchange, Tally, attach, exchange_of, permitted
from lictor.bindings.facts import Classified
from lictor.bindings.model import ActionType
from lictor.engine.problem import Problem, problem_of, set_problem
from lictor.formats import base64url


def exchange() -> Exchange:
    return Exchange("spiffe://x.test/agent/a", False, "https", "api.example", 443, "/", "")


def test_only_a_permit_permits() -> None:
    flow = make_flow()
    assert not permitted(flow), "nothing is known of it"
    one = exchange()
    attach(flow, one)
    assert not permitted(flow), "no permit was given"
    one.permit = ("https", "api.example", 443)
    assert permitted(flow)
    one.ended_by = "quarantined"
    assert not permitted(flow), "ended before it was used"
    one.ended_by, one.refused = None, True
    assert not permitted(flow), "refused afterwards"


@pytest.mark.parametrize(("name", "value"), [("host", "evil.example"), ("port", 8443), ("scheme", "http")])
def test_a_permit_is_for_this_very_place(name: str, value: object) -> None:
    """Whatever changes the request after it was judged takes the permit away."""
    flow, one = make_flow(), exchange()
    attach(flow, one)
    one.permit = ("https", "api.example", 443)
    setattr(flow.request, name, value)
    assert not permitted(flow)


def test_nobody_else_can_put_an_exchange_there() -> None:
    flow = make_flow()
    flow.metadata["lictor"] = {"permit": ("https", "api.example", 443)}
    assert exchange_of(flow) is None
    assert not permitted(flow)


def test_a_problem_is_kept_with_the_flow() -> None:
    flow = make_flow()
    assert problem_of(flow) is None
    set_problem(flow, Problem("invalid_request", "text"))
    assert problem_of(flow) == Problem("invalid_request", "text")


@pytest.mark.parametrize("parts", [[], [b""], [b"abc"], [b"a", b"", b"bc"]])
def test_tally(parts: list[bytes]) -> None:
    plain, keyed, body = Tally(None), Tally(b"salt"), b"".join(parts)
    for part in parts:
        plain.update(part)
        keyed.update(part)
    assert plain.size == keyed.size == len(body)
    assert plain.digest() == "sha-256:" + base64url.encode(hashlib.sha256(body).digest())
    assert keyed.digest() == "hmac-sha-256:" + base64url.encode(hmac.digest(b"salt", body, "sha256"))


def test_delegated() -> None:
    one = exchange()
    assert not one.delegated
    one.classified = (
        Classified(ActionType.HTTP_REQUEST, "https://x/"),
        Classified(ActionType.DELEGATION, "urn:agent"),
    )
    assert one.delegated
