import pytest

from lictor.formats.errors import FormatError
from lictor.formats.spiffe import SpiffeId


@pytest.mark.parametrize(
    "text", ["spiffe://example.org/agent/a", "spiffe://td_1-x/A.b-c_d", "spiffe://a/...", "spiffe://a/b/c/d/e"]
)
def test_good_ids_come_back_as_they_were(text: str) -> None:
    assert str(SpiffeId.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("https://example.org/agent", id="other scheme"),
        pytest.param("SPIFFE://example.org/agent", id="scheme in upper case"),
        pytest.param("spiffe:/example.org/agent", id="one slash"),
        pytest.param("spiffe:///agent", id="no trust domain"),
        pytest.param("spiffe://Example.org/agent", id="trust domain in upper case"),
        pytest.param("spiffe://example.org:8443/agent", id="port"),
        pytest.param("spiffe://user@example.org/agent", id="userinfo"),
        pytest.param("spiffe://exämple.org/agent", id="trust domain not ASCII"),
        pytest.param("spiffe://example.org", id="no path"),
        pytest.param("spiffe://example.org/", id="root path"),
        pytest.param("spiffe://example.org/agent/", id="slash at the end"),
        pytest.param("spiffe://example.org//agent", id="empty segment"),
        pytest.param("spiffe://example.org/./agent", id="dot segment"),
        pytest.param("spiffe://example.org/a/../b", id="dot-dot segment"),
        pytest.param("spiffe://example.org/a%2Fb", id="percent-encoding"),
        pytest.param("spiffe://example.org/a?b", id="query"),
        pytest.param("spiffe://example.org/a#b", id="fragment"),
        pytest.param("spiffe://example.org/a\n", id="newline"),
        pytest.param("spiffe://example.org/a\x00", id="NUL"),
        pytest.param("spiffe://example.org/*", id="wildcard"),
        pytest.param("spiffe://example.org/ä", id="path not ASCII"),
        pytest.param("spiffe://" + "a" * 256 + "/b", id="trust domain too long"),
        pytest.param("spiffe://a/" + "b" * 2048, id="too long"),
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        SpiffeId.parse(text)
