"""Claims are read strictly, and an error names the claim, what was expected and what was found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lictor.evidence import claims
from lictor.formats.errors import VerificationError

A, B = "550e8400-e29b-41d4-a716-446655440000", "a0b1c2d3-e4f5-6789-abcd-ef0123456789"


@pytest.mark.parametrize(
    ("read", "found", "message"),
    [
        pytest.param(claims.integer, None, "'x' is null, expected an integer", id="null integer"),
        pytest.param(claims.integer, True, "'x' is true, expected an integer", id="bool as integer"),
        pytest.param(claims.integer, 1.0, "'x' is 1.0, expected an integer", id="float as integer"),
        pytest.param(claims.integer, "1", "expected an integer", id="text as integer"),
        pytest.param(claims.integer, -1, "expected an integer", id="negative integer"),
        pytest.param(claims.integer, 2**53, "expected an integer", id="integer beyond 2^53-1"),
        pytest.param(claims.number, False, "'x' is false, expected a number", id="bool as number"),
        pytest.param(claims.number, 10**400, "expected a number", id="number beyond a float"),
        pytest.param(claims.number, float("nan"), "expected a number", id="NaN"),
        pytest.param(claims.number, "1.5", "expected a number", id="text as number"),
        pytest.param(claims.text, "", "expected a string", id="empty text"),
        pytest.param(claims.text, "x" * 2049, "expected a string", id="long text"),
        pytest.param(claims.text, "x\x1b[2J", "printable", id="terminal control sequence"),
        pytest.param(claims.text, ["x"], "expected a string", id="array as text"),
        pytest.param(claims.uuid_text, A[:-1], "expected a UUID", id="short UUID"),
        pytest.param(claims.uuid_text, A.replace("-", ""), "expected a UUID", id="UUID without dashes"),
        pytest.param(claims.uuid_text, A + "\n", "expected a UUID", id="UUID with a line end"),
    ],
)
def test_wrong_values(read: Callable[[dict[str, Any], str], Any], found: object, message: str) -> None:
    with pytest.raises(VerificationError, match=message):
        read({"x": found}, "x")


@pytest.mark.parametrize("read", [claims.integer, claims.number, claims.text, claims.uuid_text])
def test_a_missing_claim_is_said_to_be_missing(read: Callable[[dict[str, Any], str], Any]) -> None:
    with pytest.raises(VerificationError, match="'x' is missing"):
        read({}, "x")


def test_audience_is_a_string_or_an_array() -> None:
    assert claims.audience({"aud": "a"}) == ("a",)
    assert claims.audience({"aud": ["a", "b"]}) == ("a", "b")


@pytest.mark.parametrize("aud", [None, [], [""], [1], {"a": 1}, 5])
def test_wrong_audience(aud: object) -> None:
    with pytest.raises(VerificationError, match="'aud'"):
        claims.audience({"aud": aud})


def test_predecessors_by_either_name() -> None:
    assert claims.predecessors({"par": [A]}) == (A,)
    assert claims.predecessors({"pred": []}) == ()
    assert claims.predecessors({"pred": [A, B], "par": [A, B]}) == (A, B)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        pytest.param({}, "is missing", id="neither name"),
        pytest.param({"pred": [A], "par": []}, "differ", id="names that differ"),
        pytest.param({"pred": A}, "expected an array", id="text"),
        pytest.param({"pred": ["x"]}, "expected an array of UUIDs", id="no UUID"),
        pytest.param({"pred": [A, A]}, "twice", id="one twice"),
        pytest.param({"pred": [claims.new_id() for _ in range(101)]}, "101 members, more than 100", id="too many"),
    ],
)
def test_wrong_predecessors(found: dict[str, Any], message: str) -> None:
    with pytest.raises(VerificationError, match=message):
        claims.predecessors(found)


def test_extension_limits_are_exact() -> None:
    fits = {"x": "y" * (4096 - len('{"x":""}'))}
    assert claims.extension({"ext": fits}) == fits
    with pytest.raises(VerificationError, match="4097 bytes, more than 4096"):
        claims.extension({"ect_ext": {"x": fits["x"] + "y"}})
    deep: dict[str, Any] = {"1": {"2": [{"4": {"5": 0}}]}}
    assert claims.extension({"ext": deep}) == deep
    with pytest.raises(VerificationError, match="6 levels deep, more than 5"):
        claims.extension({"ext": {"0": deep}})


def test_extension_objects_may_not_clash() -> None:
    assert claims.extension({"ext": {"a": 1}, "ect_ext": {"a": 1, "b": 2}}) == {"a": 1, "b": 2}
    with pytest.raises(VerificationError, match="'a' of 'ext' and 'ect_ext' differs"):
        claims.extension({"ext": {"a": 1}, "ect_ext": {"a": 2}})
    with pytest.raises(VerificationError, match="expected an object"):
        claims.extension({"ext": []})


def test_times() -> None:
    claims.check_issued(100, 200, 199.9)
    claims.check_issued(100, 200, None)
    claims.check_issued(130, 200, 100.0)
    for iat, exp, now, message in [
        (100, 200, 200.0, "expired 0 s ago"),
        (131, 200, 100.0, "from the future"),
        (100, 100, 100.0, "expected later than 'iat'"),
    ]:
        with pytest.raises(VerificationError, match=message):
            claims.check_issued(iat, exp, now)


def test_audience_check_names_both_sides() -> None:
    claims.check_audience(["a"], None)
    claims.check_audience(["a", "b"], {"b", "c"})
    with pytest.raises(VerificationError, match="'aud' is a, expected b or c"):
        claims.check_audience(["a"], ["c", "b"])
    with pytest.raises(VerificationError):
        claims.check_audience(["a"], [])
