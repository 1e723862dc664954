import pytest

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
