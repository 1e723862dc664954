"""Patterns over patterns, held against what the compiled patterns match."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lictor.bindings.covering import Cover, overlap
from lictor.bindings.patterns import AllowSet

H = "https://h.example"
SEGMENTS = st.sampled_from(["a", "ab", "b", "a%2Fb", ""])
GLOBS = st.sampled_from(["a", "ab", "*", "a*", "*b", "a*b"])
HOSTS = st.sampled_from(["h.example", "x.h.example", "y.x.h.example"])
WILD_HOSTS = st.sampled_from(["h.example", "x.h.example", "*.h.example", "*.x.h.example"])
URNS = st.sampled_from(["urn:e1:a", "urn:e1:a#tools/x", "urn:e1:a#tools/xy", "urn:e1:ab"])
URN_PATTERNS = URNS | st.sampled_from(["urn:e1:*", "urn:e1:a*", "urn:e1:a#*", "urn:e1:a#tools/*", "urn:e1:a#tools/x*"])


@st.composite
def urls(draw: st.DrawFn) -> str:
    *inner, last = draw(st.lists(SEGMENTS, min_size=1, max_size=3))
    return f"https://{draw(HOSTS)}/" + "/".join([*(s or "a" for s in inner), last])


@st.composite
def url_patterns(draw: st.DrawFn) -> str:
    *inner, last = draw(st.lists(GLOBS, min_size=1, max_size=3))
    end = draw(st.sampled_from([last, last, "**", ""]))
    return f"https://{draw(WILD_HOSTS)}/" + "/".join([*inner, end])


TARGETS = URNS | urls()
PATTERNS = URN_PATTERNS | url_patterns()


@settings(max_examples=300, deadline=None)
@given(st.lists(PATTERNS, max_size=6), TARGETS)
def test_a_value_is_found_for_every_target_that_the_list_matches(values: list[str], target: str) -> None:
    found = Cover(values).matching(target)
    assert (found is not None) == AllowSet(values).matches(target)
    assert found is None or AllowSet([found]).matches(target)


@settings(max_examples=300, deadline=None)
@given(st.lists(PATTERNS, max_size=6), PATTERNS, st.lists(TARGETS, min_size=1, max_size=20))
def test_what_is_broader_matches_whatever_the_other_does(values: list[str], value: str, targets: list[str]) -> None:
    broader = Cover(values).broader(value)
    assert broader != value
    if broader is not None:
        assert all(AllowSet([broader]).matches(target) for target in targets if AllowSet([value]).matches(target))


@settings(max_examples=300, deadline=None)
@given(PATTERNS, PATTERNS, st.lists(TARGETS, min_size=1, max_size=20))
def test_patterns_that_match_the_same_target_overlap(one: str, other: str, targets: list[str]) -> None:
    shared = any(AllowSet([one]).matches(target) and AllowSet([other]).matches(target) for target in targets)
    assert overlap(one, other) == overlap(other, one)
    assert overlap(one, other) or not shared
    if Cover([one]).covering(other) is not None:
        assert overlap(one, other)


@pytest.mark.parametrize(
    ("broad", "narrow", "covers"),
    [
        (f"{H}/**", f"{H}/a", True),
        (f"{H}/**", f"{H}/a/**", True),
        (f"{H}/a/**", f"{H}/a", False),
        (f"{H}/a/**", f"{H}/a/", True),
        (f"{H}/a/*", f"{H}/a/**", False),
        (f"{H}/a/*", f"{H}/a/", False),
        (f"{H}/*/c", f"{H}/a/c", True),
        (f"{H}/a*/c", f"{H}/a*b/c", True),
        (f"{H}/a*b/c", f"{H}/a*/c", False),
        (f"{H}/a*a", f"{H}/a", False),
        (f"{H}/*", f"{H}/a%2Fb", False),
        (f"{H}/**", f"{H}/a%2Fb", True),
        ("https://*.h.example/**", f"{H}/a", False),
        ("https://*.h.example/**", "https://*.x.h.example/a", True),
        ("https://*.x.h.example/**", "https://*.h.example/a", False),
        (f"{H}/**", "http://h.example/a", False),
        (f"{H}:8443/**", f"{H}/a", False),
        ("urn:e1:a*", "urn:e1:ab", True),
        ("urn:e1:a*", "urn:e1:*", False),
        ("urn:e1:a#tools/*", "urn:e1:a", False),
        ("urn:e1:a", f"{H}/**", False),
    ],
)
def test_covering(broad: str, narrow: str, covers: bool) -> None:
    assert (Cover([broad]).broader(narrow) == broad) is covers


def test_spellings_of_the_same_pattern() -> None:
    cover = Cover([f"{H}/a", f"{H}:443/a", "https://H.example/a", f"{H}/b"])
    assert [cover.same(v) for v in (f"{H}/a", f"{H}:443/a", "https://H.example/a")] == [None, f"{H}/a", f"{H}/a"]
    assert cover.broader(f"{H}:443/a") is None


@pytest.mark.parametrize("target", ["", "urn:", "https://", "https:///x", "ftp://h/x", "https://h x/y", "/etc/passwd"])
def test_odd_targets_match_nothing(target: str) -> None:
    assert Cover([f"{H}/**", "urn:e1:*"]).matching(target) is None
