import pytest
from hypothesis import given
from hypothesis import strategies as st

from lictor.formats import base64url
from lictor.formats.errors import FormatError


@given(st.binary(max_size=200))
def test_decode_undoes_encode(data: bytes) -> None:
    assert base64url.decode(base64url.encode(data)) == data


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("YQ==", id="padding"),
        pytest.param("YR", id="stray bits"),
        pytest.param("Y", id="impossible length"),
        pytest.param("+/+/", id="alphabet of plain base64"),
        pytest.param("YW Jj", id="space"),
        pytest.param("YWJj\n", id="newline"),
        pytest.param("ÿÿÿÿ", id="not ASCII"),
        pytest.param("-_-=", id="padding in the middle of a quantum"),
    ],
)
def test_a_second_spelling_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        base64url.decode(text)


@given(st.text(alphabet="AQgwx-_=+/", max_size=8))
def test_what_decodes_has_one_spelling(text: str) -> None:
    try:
        data = base64url.decode(text)
    except FormatError:
        return
    assert base64url.encode(data) == text
