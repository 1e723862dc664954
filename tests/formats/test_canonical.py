"""The fast encoder against RFC 8785: the published vectors, the ES6 number sequence, and rfc8785 as the oracle."""

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from lictor.formats.canonical import MAX_INT, canonical, digest
from lictor.formats.errors import FormatError

VECTORS = Path(__file__).parents[1] / "vectors" / "jcs"
OUTSIDE = {"weird": "from U\\+E000 up", "values": "no canonical form|outside of the range|beyond"}

_names = st.text(st.characters(max_codepoint=0xDFFF, exclude_categories=("Cs",)), max_size=8)
_numbers = st.integers(-MAX_INT, MAX_INT) | st.floats(1e-5, 1e14) | st.floats(-1e14, -1e-5) | st.just(-0.0)
_leaves = st.none() | st.booleans() | _numbers | st.text(max_size=20)
_values = st.recursive(
    _leaves, lambda v: st.lists(v, max_size=4) | st.dictionaries(_names, v, max_size=4), max_leaves=20
)
_anything = st.recursive(
    _leaves | st.integers() | st.floats(),
    lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(max_size=6), v, max_size=4),
    max_leaves=15,
)


@pytest.mark.parametrize("name", ["arrays", "french", "structures", "unicode", "values", "weird"])
def test_published_vector_is_matched_or_refused(name: str) -> None:
    value = json.loads((VECTORS / "testdata" / "input" / f"{name}.json").read_bytes())
    if name in OUTSIDE:
        with pytest.raises(FormatError, match=OUTSIDE[name]):
            canonical(value)
    else:
        assert canonical(value) == (VECTORS / "testdata" / "output" / f"{name}.json").read_bytes().rstrip(b"\n")
        hexadecimal = (VECTORS / "testdata" / "outhex" / f"{name}.txt").read_text()
        assert canonical(value) == bytes.fromhex(hexadecimal)


@given(_values)
def test_inside_the_subset_the_bytes_are_those_of_the_rfc(value: Any) -> None:
    assert canonical(value) == rfc8785.dumps(value)


@given(_anything)
def test_outside_of_the_subset_it_refuses_or_agrees(value: Any) -> None:
    try:
        data = canonical(value)
    except FormatError:
        return
    assert data == rfc8785.dumps(value)


@given(_values)
def test_canonical_bytes_are_a_fixed_point(value: Any) -> None:
    assert canonical(json.loads(canonical(value))) == canonical(value)


def _es6_doubles(static: list[str]) -> Iterator[int]:
    yield from (int(word, 16) for word in static)
    yield from (0x0010000000000000 + i for i in range(2000))
    block = bytes(32)
    while True:
        block = hashlib.sha256(block).digest()
        for (bits,) in struct.iter_unpack("<Q", block):
            number = struct.unpack("<d", struct.pack("<Q", bits))[0]
            if number != 0 and number - number == 0:
                yield bits


def test_numbers_of_the_es6_sequence() -> None:
    facts = json.loads((VECTORS / "numbers.json").read_bytes())
    hashes = {item["lines"]: item["sha256"] for item in facts["sha256_of_first_n_lines"]}
    running, ours = hashlib.sha256(), 0
    for line, bits in enumerate(_es6_doubles(facts["static_u64"]), start=1):
        number = struct.unpack("<d", struct.pack("<Q", bits))[0]
        try:
            text = canonical(number)
            ours += 1
        except FormatError:
            text = rfc8785.dumps(number)
        running.update(f"{bits:x},{text.decode()}\n".encode())
        if line in hashes:
            assert running.hexdigest() == hashes[line]
        if line == 10_000:
            break
    assert ours > 100


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(float("nan"), id="NaN"),
        pytest.param(float("inf"), id="Infinity"),
        pytest.param(2**53, id="2^53"),
        pytest.param(-(2**53), id="-2^53"),
        pytest.param(1e16, id="integral float beyond 2^53-1"),
        pytest.param(1e-7, id="number that RFC 8785 writes with an exponent"),
        pytest.param({"\ue000": 1}, id="name that UTF-16 sorts differently"),
        pytest.param({"a😂": 1}, id="name with an astral character"),
        pytest.param({1: 2}, id="name that is no string"),
        pytest.param({"a": b"x"}, id="bytes"),
        pytest.param({1, 2}, id="set"),
        pytest.param("\ud800", id="lone surrogate"),
        pytest.param({"\ud800": 1}, id="lone surrogate in a name"),
        pytest.param(object(), id="object"),
    ],
)
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(FormatError):
        canonical(value)
    with pytest.raises(FormatError):
        canonical([{"deeper": value}])


class Text(str):
    """Not a JSON string to the encoder."""


@pytest.mark.parametrize("value", [{1: 2}, {"a": {None: 1}}, {Text("a"): 1}, {"a": Text("b")}, {"a": (1, {2})}])
def test_what_only_looks_like_json_is_refused_within(value: Any) -> None:
    with pytest.raises(FormatError):
        canonical(value)


def test_endless_nesting_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(FormatError):
        canonical(value)


def test_integral_floats_and_booleans() -> None:
    assert canonical([1.0, -0.0, 1e15, True]) == b"[1,0,1000000000000000,true]"


@pytest.mark.parametrize(
    "data",
    [
        b'{"b":1,"a":2}',
        b'{"a":1, "b":2}',
        b'{"a":1,"a":1}',
        b'{"a":1.0}',
        b'{"a":-0.0}',
        b'{"a":[1,{"b":[2.0]}]}',
        b'{"a":1.50}',
        b'{"a":"\\u0041"}',
        b'{"a":"\\/"}',
        b'{"a":1}\n',
    ],
)
def test_another_spelling_is_not_canonical(data: bytes) -> None:
    assert canonical(orjson.loads(data)) != data


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":9007199254740992}',
        b'{"a":[-9007199254740992]}',
        b'{"a":1e-6}',
        b'{"a":{"b":0.000001}}',
        b'{"a":1e16}',
        b'{"a":1000000000000000.5}',
        '{"\ue000":1}'.encode(),
        b'{"a":' * 500 + b"1" + b"}" * 500,
    ],
)
def test_bytes_outside_of_the_subset_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        canonical(orjson.loads(data))


def test_digest_of_the_empty_window() -> None:
    assert digest([]) == "T1PNoYwrqgwDVLtfmj7L5e0Sq02OEbqHPC8RFhICuUU"
