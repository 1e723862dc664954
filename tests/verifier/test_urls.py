"""Where somebody is asked over TLS."""

from __future__ import annotations

import pytest

from lictor.formats.errors import UsageError
from lictor.verifier.fetching import check_url
from lictor.verifier.urls import https_address


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://a.example:8446", ("a.example", 8446)),
        ("https://a.example:8446/", ("a.example", 8446)),
        ("https://10.0.0.1:443", ("10.0.0.1", 443)),
        ("https://[::1]:8446", ("::1", 8446)),
    ],
)
def test_what_is_an_address(url: str, found: tuple[str, int]) -> None:
    assert https_address(url, "x") == found


def test_written_again() -> None:
    assert check_url("https://[::1]:8446/") == "https://[::1]:8446"
    assert check_url("https://A.example:1") == "https://a.example:1"


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example:1",
        "a.example:1",
        "https://",
        "https://:1",
        "https://a.example",
        "https://a.example:0",
        "https://a.example:99999",
        "https://a.example:http",
        "https://[::1:1",
        "https://[a.example]:1",
        "https://user@a.example:1",
        "https://a.example:1/path",
        "https://a.example:1?query",
        "https://a.example:1#fragment",
        "",
    ],
)
def test_what_is_none(url: str) -> None:
    with pytest.raises(UsageError, match="it must be https://HOST:PORT, found"):
        https_address(url, "it must be")
