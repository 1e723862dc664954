import pytest

from lictor.bindings.subjects import applies_to, check_subject
from lictor.formats.errors import UsageError


@pytest.mark.parametrize(
    ("subjects", "agent", "applies"),
    [
        ((), "spiffe://a.example/agent/x", True),
        (("spiffe://a.example/agent/x",), "spiffe://a.example/agent/x", True),
        (("spiffe://a.example/agent/x",), "spiffe://a.example/agent/xy", False),
        (("spiffe://a.example/agent/x",), "spiffe://a.example/agent/x/y", False),
        (("spiffe://a.example/agent/*",), "spiffe://a.example/agent/x", True),
        (("spiffe://a.example/agent/*",), "spiffe://a.example/agent/x/y", True),
        (("spiffe://a.example/agent/*",), "spiffe://a.example/agent", False),
        (("spiffe://a.example/agent/*",), "spiffe://a.example/agents/x", False),
        (("spiffe://a.example/*",), "spiffe://a.example/agent/x", True),
        (("spiffe://a.example/*",), "spiffe://a.example.evil/agent/x", False),
        (("spiffe://b.example/*", "spiffe://a.example/z"), "spiffe://a.example/z", True),
    ],
)
def test_applies_to(subjects: tuple[str, ...], agent: str, applies: bool) -> None:
    assert applies_to(subjects, agent) is applies


@pytest.mark.parametrize(
    "pattern",
    ["", "*", "spiffe://*", "spiffe://*/agent/x", "spiffe://a.example", "spiffe://a.example/", "spiffe://a.example/a*",
     "spiffe://a.example/*/b", "spiffe://a.example/**", "spiffe://a.example//*", "spiffe://A.example/*", "urn:a1:b"],
)  # fmt: skip
def test_bad_subject(pattern: str) -> None:
    with pytest.raises(UsageError, match="is not a SPIFFE ID"):
        check_subject(pattern)
