import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lictor.bindings.patterns import AllowSet, PrefixSet, UrlMap, UrlPattern
from lictor.formats.errors import UsageError


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        (
            "urn:x1:tool:a",
            ["urn:x1:tool:a"],
            ["urn:x1:tool:ab", "urn:x1:tool", "urn:x1:tool:a#tools/b", "URN:x1:tool:a"],
        ),
        ("urn:x1:tool:a*", ["urn:x1:tool:a", "urn:x1:tool:ab", "urn:x1:tool:a#tools/b"], ["urn:x1:tool:b"]),
        (
            "urn:x1:t:a#tools/*",
            ["urn:x1:t:a#tools/b", "urn:x1:t:a#tools/b/c"],
            ["urn:x1:t:a", "urn:x1:t:a#prompts/get"],
        ),
        (
            "https://a.example/x",
            ["https://a.example/x"],
            ["https://a.example/x/", "https://a.example/", "http://a.example/x"],
        ),
        ("https://a.example/", ["https://a.example/"], ["https://a.example/x", "https://a.example:444/"]),
        ("https://A.example:443/%7ex", ["https://a.example/~x"], []),
        ("https://a.example:444/x", ["https://a.example:444/x"], ["https://a.example/x"]),
        (
            "https://a.example/**",
            ["https://a.example/", "https://a.example/x", "https://a.example/x/y/", "https://a.example/x%2Fy"],
            ["https://b.example/", "http://a.example/", "https://x.a.example/", "https://a.example.evil.com/"],
        ),
        (
            "https://a.example/x/**",
            ["https://a.example/x/", "https://a.example/x/y"],
            ["https://a.example/x", "https://a.example/xy", "https://a.example/x%2Fy"],
        ),
        (
            "https://a.example/*/y",
            ["https://a.example/x/y", "https://a.example/y/y"],
            ["https://a.example/y", "https://a.example/x/z/y", "https://a.example/x%2Fz/y", "https://a.example/x/y/"],
        ),
        (
            "https://a.example/f-*.json",
            ["https://a.example/f-1.json", "https://a.example/f-.json"],
            ["https://a.example/f.json", "https://a.example/f-1.jsonx", "https://a.example/f-%2F.json"],
        ),
        ("https://a.example/ab*b", ["https://a.example/abb"], ["https://a.example/ab"]),
        ("https://a.example/*", ["https://a.example/x"], ["https://a.example/", "https://a.example/x/y"]),
        (
            "https://*.a.example/x",
            ["https://b.a.example/x", "https://c.b.a.example/x"],
            [
                "https://a.example/x",
                "https://ba.example/x",
                "https://b.a.example:444/x",
                "https://a.example.evil.com/x",
            ],
        ),
        ("https://*.a.example:444/**", ["https://b.a.example:444/x"], ["https://b.a.example/x"]),
        ("http://127.0.0.1:8080/**", ["http://127.0.0.1:8080/x"], ["http://127.0.0.1/x"]),
        ("https://[2001:DB8::1]/x", ["https://[2001:db8::1]/x"], ["https://[2001:db8::2]/x"]),
        ("wss://a.example/s", ["wss://a.example/s"], ["https://a.example/s"]),
    ],
)
def test_what_a_pattern_matches(pattern: str, matching: list[str], others: list[str]) -> None:
    allowed = AllowSet([pattern, "urn:other:x", "https://unrelated.example/**"])
    assert [target for target in matching if not allowed.matches(target)] == []
    assert [target for target in others if allowed.matches(target)] == []


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "*",
        "**",
        "urn:*",
        "urn:x*",
        "urn:x1:",
        "urn:x1:a*b",
        "urn:x1:*a*",
        "urn:x1:**",
        "urn:x1:a b",
        "urn:x1:a#b#c",
        "urn:x1:ä",
        "URN:x1:a",
        "urn:x1:a\n",
        "http*://a.example/",
        "*://a.example/",
        "ftp://a.example/",
        "HTTPS://a.example/",
        "//a.example/",
        "a.example",
        "https://",
        "https:///x",
        "https://a.example",
        "https://*/",
        "https://*./",
        "https://**.a.example/",
        "https://*a.example/",
        "https://*.com/",
        "https://*.localhost/",
        "https://*.co.uk/",
        "https://*.com.au/",
        "https://*.0.0.1/",
        "https://*.127.0.0.1/",
        "https://*.[::1]/",
        "https://*.a.*.example/",
        "https://a.*/",
        "https://a.example.:443/",
        "https://a.example:*/",
        "https://a.example:0/",
        "https://user@a.example/",
        "https://a.example/x?y=*",
        "https://a.example/x#y",
        "https://a.example/**/x",
        "https://a.example/x**",
        "https://a.example/***",
        "https://a.example/a*b*c",
        "https://a.example/%2a",
        "https://a.example/../x",
        "https://a.example//x",
        "https://a.example/x y",
        "https://bücher.example/",
    ],
)
def test_a_bad_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError):
        AllowSet(["urn:x1:good", pattern])


def test_hosts_that_only_look_like_public_suffixes_may_have_a_star() -> None:
    for pattern in ("https://*.example.co.uk/", "https://*.foo.uk/", "https://*.co.example.com/"):
        AllowSet([pattern])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/a/b", "exact"),
        ("/a/bx", "b*"),
        ("/a/x", "star"),
        ("/a/x/y", "rest of a"),
        ("/x", "rest"),
        ("/a/b/", "rest of a"),
    ],
)
def test_the_most_specific_pattern_wins(path: str, value: str) -> None:
    urls: UrlMap[str] = UrlMap()
    patterns = {"/**": "rest", "/a/**": "rest of a", "/a/*": "star", "/a/b*": "b*", "/a/b": "exact"}
    for text, name in patterns.items():
        assert urls.add(UrlPattern.parse("https://h.example" + text), name) is None
    assert urls.find("https", "h.example", path) == value


def test_a_dead_end_does_not_hide_a_wider_pattern() -> None:
    allowed = AllowSet(["https://h.example/a/b/c", "https://h.example/*/b/d", "https://h.example/a/x/y/**"])
    assert allowed.matches("https://h.example/a/b/d")


def test_the_host_as_written_comes_before_the_longest_suffix() -> None:
    urls: UrlMap[str] = UrlMap()
    for host in ("*.x.example", "*.b.x.example", "a.b.x.example"):
        urls.add(UrlPattern.parse(f"https://{host}/**"), host)
    assert urls.find("https", "a.b.x.example", "/") == "a.b.x.example"
    assert urls.find("https", "c.b.x.example", "/") == "*.b.x.example"
    assert urls.find("https", "c.x.example", "/") == "*.x.example"
    assert urls.find("https", "x.example", "/") is None


def test_the_same_pattern_twice_keeps_the_first_value() -> None:
    urls: UrlMap[int] = UrlMap()
    assert urls.add(UrlPattern.parse("https://h.example/a/*"), 1) is None
    assert urls.add(UrlPattern.parse("https://H.example:443/a/*"), 2) == 1
    assert urls.find("https", "h.example", "/a/x") == 1


_short = st.text("ab:", max_size=4)


@given(st.lists(_short, max_size=8), _short)
def test_prefix_set_is_any_startswith(prefixes: list[str], text: str) -> None:
    assert PrefixSet(prefixes).matches(text) == any(text.startswith(prefix) for prefix in prefixes)


_segments = st.lists(st.sampled_from(["a", "b", "ab", "ba", "aab"]), min_size=1, max_size=4)
_pattern_segments = st.lists(st.sampled_from(["a", "b", "*", "a*", "*b", "a*b", "a*a"]), min_size=1, max_size=4)


def _slow_match(pattern: list[str], path: list[str]) -> bool:
    def one(glob: str, segment: str) -> bool:
        head, star, tail = glob.partition("*")
        if not star:
            return glob == segment
        return len(segment) >= len(head) + len(tail) and segment.startswith(head) and segment.endswith(tail)

    return len(pattern) == len(path) and all(map(one, pattern, path))


@given(st.lists(_pattern_segments, min_size=1, max_size=6), _segments)
def test_the_tree_agrees_with_matching_one_by_one(patterns: list[list[str]], path: list[str]) -> None:
    allowed = AllowSet("https://h.example/" + "/".join(pattern) for pattern in patterns)
    assert allowed.matches("https://h.example/" + "/".join(path)) == any(_slow_match(p, path) for p in patterns)


def test_may_match_authority() -> None:
    allowed = AllowSet(["https://a.example/x", "https://*.b.example:8443/**", "urn:x1:a"])
    assert allowed.may_match_authority("a.example", 443)
    assert allowed.may_match_authority("x.y.b.example", 8443)
    for host, port in (
        ("a.example", 80),
        ("b.example", 8443),
        ("x.b.example", 443),
        ("x.a.example", 443),
        ("example", 1),
    ):
        assert not allowed.may_match_authority(host, port)


def test_may_match_urn() -> None:
    allowed = AllowSet(["urn:x1:a", "urn:x1:b#tools/c", "urn:x1:d#tools/*", "urn:x1:e*"])
    for urn in ("urn:x1:a", "urn:x1:b", "urn:x1:d", "urn:x1:e", "urn:x1:ef"):
        assert allowed.may_match_urn(urn)
    for urn in ("urn:x1:c", "urn:x1:bb", "urn:x1"):
        assert not allowed.may_match_urn(urn)


def test_the_cost_does_not_grow_with_the_list() -> None:
    """Bisection takes a few more steps; a scan of 20,000 patterns would take thousands."""

    def patterns(n: int) -> list[str]:
        kinds = (
            "urn:x1:t{}",
            "urn:x1:p{}-*",
            "https://h{}.example/x",
            "https://*.h{}.example/**",
            "https://h.example/a{}*z/b",
        )
        return [kind.format(i) for i in range(n) for kind in kinds]

    targets = ("urn:x1:none", "https://no.h1x.example/a/b", "https://h.example/a1x/b", "https://h.example/a12z/b")
    small, large = AllowSet(patterns(4)), AllowSet(patterns(4000))

    def steps(allowed: AllowSet) -> int:
        count = 0

        def step(*_: object) -> object:
            nonlocal count
            count += 1
            return step

        sys.setprofile(step)
        sys.settrace(step)
        try:
            for target in targets:
                allowed.matches(target)
        finally:
            sys.settrace(None)
            sys.setprofile(None)
        return count

    assert steps(large) < 2 * steps(small)


# A model that looks at one pattern after the other, and at one host, segment and character after the other.


def _split(url: str) -> tuple[str, str, int, list[str]]:
    scheme, _, rest = url.partition("://")
    authority, _, path = rest.partition("/")
    host, _, port = authority.partition(":")
    return scheme, host, int(port or {"https": 443, "http": 80}[scheme]), path.split("/")


def _model_urn(pattern: str, target: str) -> bool:
    return target.startswith(pattern[:-1]) if pattern.endswith("*") else target == pattern


def _model_segment(glob: str, segment: str) -> bool:
    if "*" not in glob:
        return glob == segment
    stands_for = [segment[i:j] for i in range(len(segment) + 1) for j in range(i, len(segment) + 1)]
    fits = any(glob.replace("*", text) == segment for text in stands_for)
    return fits and segment != "" and "%2F" not in segment


def _model_path(pattern: list[str], path: list[str]) -> bool:
    if pattern == ["**"]:
        return len(path) > 0
    if not pattern or not path:
        return pattern == path
    return _model_segment(pattern[0], path[0]) and _model_path(pattern[1:], path[1:])


def _model_matches(pattern: str, target: str) -> bool:
    if pattern.startswith("urn:") or target.startswith("urn:"):
        return pattern.startswith("urn:") and target.startswith("urn:") and _model_urn(pattern, target)
    (scheme, host, port, path), (to_scheme, to_host, to_port, to_path) = _split(pattern), _split(target)
    same_host = to_host.endswith(host[1:]) if host.startswith("*.") else host == to_host
    return (scheme, port) == (to_scheme, to_port) and same_host and _model_path(path, to_path)


_URN_TEXT = st.text(st.sampled_from("ab:/"), max_size=3)
_URNS = st.builds("urn:e1:a{}{}{}".format, _URN_TEXT, st.sampled_from(["", "#"]), _URN_TEXT)
_PLACES = st.sampled_from(["https://h.example", "http://h.example", "https://h.example:444", "https://a.h.example"])
_BELOW = st.sampled_from(
    ["https://*.h.example", "https://*.b.h.example", "http://*.h.example", "https://*.h.example:444"]
)
_TO = st.sampled_from(["https://a.b.h.example", "https://xh.example", "https://b.h.example:444"])
_SEGMENTS = st.sampled_from(["a", "b", "ab", "aab", "a%2Fb", "aa"])
_GLOBS = st.sampled_from(["a", "b", "*", "a*", "*b", "a*b", "a*a", "ab"])
_END = st.sampled_from(["", "/**", "/", "/*"])
_PATTERNS = st.one_of(
    _URNS.flatmap(lambda urn: st.sampled_from([urn, urn + "*"])),
    st.builds(
        lambda place, path, end: f"{place}/{'/'.join(path)}{end if path else end[1:]}",
        _PLACES | _BELOW,
        st.lists(_GLOBS, max_size=3),
        _END,
    ),
)
_TARGETS = _URNS | st.builds(
    lambda place, path, end: f"{place}/{'/'.join(path)}{end if path else ''}",
    _PLACES | _TO,
    st.lists(_SEGMENTS, max_size=4),
    st.sampled_from(["", "/"]),
)


@st.composite
def _near(draw: st.DrawFn, patterns: list[str]) -> str:
    """A target that one of the patterns may match: with something for each `*`, or in the place of its segment."""
    pattern = draw(st.sampled_from(patterns)).replace("/**", draw(st.sampled_from(["/", "/a", "/a/b"])))
    scheme, mark, rest = pattern.replace("*.", draw(st.sampled_from(["a.", "a.b.", "x"]))).partition("://")
    parts = [
        draw(_SEGMENTS | st.just("")) if "*" in part and draw(st.booleans()) else part.replace("*", draw(_SEGMENTS))
        for part in rest.split("/")
    ]
    return scheme.replace("*", "b") + mark + "/".join(parts)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.lists(_PATTERNS, min_size=1, max_size=8))
def test_a_set_matches_what_one_of_its_patterns_matches(data: st.DataObject, patterns: list[str]) -> None:
    allowed = AllowSet(patterns)
    for target in data.draw(st.lists(_TARGETS | _near(patterns), min_size=1, max_size=4)):
        assert allowed.matches(target) == any(_model_matches(pattern, target) for pattern in patterns), target
