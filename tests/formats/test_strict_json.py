import json
import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lictor.formats import strict_json
from lictor.formats.errors import FormatError


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        pytest.param(b'{"a":1,"a":1}', "'a' stands twice", id="duplicate member"),
        pytest.param(b'{"a":1,"\\u0061":2}', "'a' stands twice", id="duplicate member, escaped"),
        pytest.param(b'[{"x":{"b":1,"b":2}}]', "'b' stands twice", id="duplicate member, nested"),
        pytest.param(b"[NaN]", "NaN is not JSON", id="NaN"),
        pytest.param(b"[Infinity]", "Infinity is not JSON", id="Infinity"),
        pytest.param(b"[-Infinity]", "Infinity is not JSON", id="-Infinity"),
        pytest.param(b'"\\ud800"', "lone surrogate", id="lone surrogate"),
        pytest.param(b'{"\\udfff":1}', "lone surrogate", id="lone surrogate in a name"),
        pytest.param(b"\xef\xbb\xbf{}", "byte-order mark", id="byte-order mark"),
        pytest.param('{"a":1}'.encode("utf-16"), "not UTF-8", id="UTF-16"),
        pytest.param(b'"\xc0\xaf"', "not UTF-8", id="overlong UTF-8"),
        pytest.param(b'"\xed\xa0\x80"', "not UTF-8", id="surrogate in UTF-8"),
        pytest.param(b"[" * 65 + b"]" * 65, "deeper than 64", id="too deep"),
        pytest.param(b"[" * 200_000, "deeper than 64", id="far too deep"),
        pytest.param(b'{"a":' * 70 + b"1" + b"}" * 70, "deeper than 64", id="too deep, objects"),
        pytest.param(b"9" * 5000, "not JSON that can be read safely", id="integer of 5000 digits"),
        pytest.param(b"", "not JSON", id="empty"),
        pytest.param(b"{} {}", "not JSON", id="two texts"),
        pytest.param(b'{"a":1,}', "not JSON", id="trailing comma"),
        pytest.param(b"{'a':1}", "not JSON", id="single quotes"),
        pytest.param(b'{"a":"\x01"}', "not JSON", id="raw control character"),
        pytest.param(b"[01]", "not JSON", id="leading zero"),
        pytest.param(b"[1.]", "not JSON", id="no digit after the dot"),
        pytest.param(b"[1] // why", "not JSON", id="comment"),
        pytest.param("[\u0661]".encode(), "not JSON", id="Arabic digit"),
    ],
)
def test_doubtful_json_is_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(FormatError, match=complaint):
        strict_json.loads(data)


@pytest.mark.parametrize("data", [b"1e400", b"[-1e999]", b'{"a":1e1000}'])
def test_a_number_that_would_become_infinite_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        strict_json.loads(data)


def test_brackets_inside_strings_do_not_nest() -> None:
    text = '["' + "[{" * 100 + '\\"' + "[" * 100 + '"]'
    assert strict_json.loads(text) == ["[{" * 100 + '"' + "[" * 100]


def test_many_brackets_that_do_not_nest_deeply_are_fine() -> None:
    assert strict_json.loads("[" + ",".join(["[]"] * 500) + "]") == [[]] * 500


def test_escaped_surrogate_pairs_are_fine() -> None:
    assert strict_json.loads(b'"\\ud83d\\ude02"') == "😂"


def test_an_object_is_asked_for() -> None:
    assert strict_json.loads_object(b'{"a":[1,2.5,null,true]}') == {"a": [1, 2.5, None, True]}
    with pytest.raises(FormatError, match="not an object but list"):
        strict_json.loads_object(b"[]")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(VALUES, st.booleans())
def test_whatever_has_a_json_text_is_read_as_it_was(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert strict_json.loads(text) == value
    assert strict_json.loads(text.encode()) == value


NESTED = st.integers(62, 66).map(lambda depth: "[" * depth + "]" * depth)
STRINGS = ['"a"', '"\\u0061"', '"\\ud800"', '"\\ud83d\\ude02"']
WORDS = ["1.5e3", "1e400", "01", "-0", "null", "NaN", "-Infinity", "/**/"]
FRAGMENTS = st.sampled_from([*STRINGS, *WORDS, *':,{}[]1 "\\é\ufeff\x01'])
MEMBERS = st.lists(st.tuples(st.sampled_from(['"a"', '"b"', '"\\u0061"']), FRAGMENTS), max_size=3)
TEXTS = st.one_of(
    st.lists(FRAGMENTS, max_size=8).map("".join),
    MEMBERS.map(lambda pairs: "{" + ",".join(f"{name}:{value}" for name, value in pairs) + "}"),
    NESTED,
)


class _Doubt(Exception):
    """What the standard reader takes and this one must not."""


def _pairs(pairs: list[tuple[str, Any]]) -> Any:
    if len({name for name, _ in pairs}) < len(pairs):
        raise _Doubt
    return dict(pairs)


def _no_number(text: str) -> Any:
    raise _Doubt


def _finite(text: str) -> float:
    if math.isinf(float(text)):
        raise _Doubt
    return float(text)


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def _model(text: str) -> Any:
    """The standard library's reading; raises for what it does not read, and _Doubt for what is in doubt."""
    value = json.loads(text, object_pairs_hook=_pairs, parse_constant=_no_number, parse_float=_finite)
    if _depth(value) > strict_json.MAX_DEPTH:
        raise _Doubt
    json.dumps(value, ensure_ascii=False).encode()
    return value


@settings(max_examples=200, deadline=None)
@given(TEXTS)
@example('{"a":{"b":1,"b":1}}')
def test_it_reads_what_the_standard_reads_and_is_not_in_doubt(text: str) -> None:
    try:
        expected = _model(text)
    except (ValueError, _Doubt):
        with pytest.raises(FormatError):
            strict_json.loads(text)
        return
    assert strict_json.loads(text) == expected
