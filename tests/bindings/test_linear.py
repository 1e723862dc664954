import pytest

from lictor.bindings.linear import Regex
from lictor.formats.errors import UsageError


@pytest.mark.parametrize(
    ("pattern", "text", "whole", "inside"),
    [
        ("a+", "aaa", True, True),
        ("a+", "aab", False, True),
        ("a|ab", "ab", True, True),
        ("^a$", "a\n", False, False),
        ("(?i)DROP", "drop", True, True),
        ("", "", True, True),
        ("ä.", "ä☃", True, True),
        (r"\d", "٣", False, False),
        ("a", "b", False, False),
        ("a.b", "a\nb", False, False),
        ("a\x00b", "a\x00b", True, True),
    ],
)
def test_match(pattern: str, text: str, whole: bool, inside: bool) -> None:
    regex = Regex(pattern)
    assert (regex.matches(text), regex.is_in(text)) == (whole, inside)


@pytest.mark.parametrize("pattern", ["(?=a)", "(?<!a)b", r"(a)\1", "(", "a{2000}", "[b-a]", "(?P<n>a)(?P=n)", "\ud800"])
def test_what_does_not_run_in_linear_time_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match="is not a regular expression as RE2 takes them"):
        Regex(pattern)
