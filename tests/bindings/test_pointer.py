from typing import Any

import pytest

from lictor.bindings.pointer import MISSING, Pointer
from lictor.formats.errors import UsageError

CONTENT: dict[str, Any] = {
    "method": "POST",
    "body": {"a/b": 1, "m~n": 2, "": 3, "list": [{"x": None}, False], "01": 4, "~1": 5},
}


@pytest.mark.parametrize(
    ("pointer", "found"),
    [
        ("", CONTENT),
        ("/method", "POST"),
        ("/body/a~1b", 1),
        ("/body/m~0n", 2),
        ("/body/", 3),
        ("/body/~01", 5),
        ("/body/list/0/x", None),
        ("/body/list/1", False),
        ("/body/01", 4),
        ("/body/list/2", MISSING),
        ("/body/list/-1", MISSING),
        ("/body/list/²", MISSING),
        ("/body/list/" + "9" * 5000, MISSING),
        ("/body/list/0/x/y", MISSING),
        ("/method/0", MISSING),
        ("/query", MISSING),
    ],
)
def test_find(pointer: str, found: Any) -> None:
    value = Pointer(pointer).find(CONTENT)
    assert value is found or value == found


def test_nothing_is_found_where_nothing_was_read() -> None:
    assert Pointer("/body").find(None) is MISSING


@pytest.mark.parametrize("text", ["body", "/body/~", "/body/~2", "/", "/headers", "//body"])
def test_wrong_pointers(text: str) -> None:
    with pytest.raises(UsageError):
        Pointer(text)


def test_what_must_be_read() -> None:
    reads = {text: Pointer(text).reads for text in ("", "/method", "/query/q", "/arguments", "/params", "/body/x")}
    assert reads == {
        "": "body",
        "/method": "query",
        "/query/q": "query",
        "/arguments": "body",
        "/params": "body",
        "/body/x": "body",
    }
