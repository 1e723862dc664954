"""Judges single windows again from the entries that a log serves: a BET says what they say, or is no honest one.

What is recomputed is the evidence hash, where the window lies, what each behavior counted and the result; and each
action is judged again by the reference copies (`reevaluation`). How many actions were denied by default is taken from
the BET if it says at least as many as certainly were: for the rest one would need the windows of all policies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from ...evidence import bet
from ...evidence.bet import Bet
from ...evidence.entry import needs_judgement
from ...evidence.windows import PolicyInfo, Window
from ...formats.errors import FormatError
from .appraisal import References
from .contradictions import Found
from .reevaluation import judge_again
from .tiles import Unchecked

MAX_SPAN = 2048
"""Entries of a log that are read for one window; one that reaches further is left alone."""
MAX_OCTETS = 16 << 20
"""As many octets of entries before the place that a BET names are held."""
BLOCK = 256
Read = Callable[[int, int], Iterable[tuple[int, bytes]]]
"""The proven entries of a log from one seq to before another, with their seq. Raises Unchecked."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A window that is to be judged again, by these copies of bindings."""

    bet: Bet
    references: References


def judge_window(one: Bet, read: Read, references: References) -> tuple[Found, ...]:
    """What contradicts a BET, or its binding, in the entries of its log.

    Raises Unchecked for a window that is too long, or whose entries are not to be had.
    """
    binding = references.bindings.get(str(one.ext.get("binding_digest")))
    window = _Again(one, PolicyInfo.of(binding).severities if binding is not None else {}, references)
    try:
        for seq, data in _entries(one, read):
            window.take(seq, data, orjson.loads(data))
        return (*window.found, *window.compared(exact=binding is not None))
    except (orjson.JSONDecodeError, FormatError, KeyError, TypeError, AttributeError) as e:
        raise Unchecked(f"the BET {one.jti} or an entry of its window cannot be read: {e!r}") from None


def _entries(one: Bet, read: Read) -> Iterator[tuple[int, bytes]]:
    """All entries of the log in the time of the window, and some before it: `first_seq` may be wrong."""
    size = one.ext["checkpoint_size"]
    first = begin = min(one.ext["first_seq"], size)
    before: list[tuple[int, bytes]] = []
    while begin > 0 and (not before or orjson.loads(before[0][1])["timestamp"] >= one.start):
        _check_span(len(before))
        begin, end = max(0, begin - BLOCK), begin
        before = [*read(begin, end), *before]
        if sum(len(data) for _, data in before) > MAX_OCTETS:
            raise Unchecked(f"the entries before a window have more than {MAX_OCTETS} octets")
    yield from before
    for number, (seq, data) in enumerate(read(first, size), len(before)):
        _check_span(number)
        yield seq, data
        if orjson.loads(data)["timestamp"] >= one.end:
            return


def _check_span(count: int) -> None:
    if count >= MAX_SPAN:
        raise Unchecked(f"a window reaches over more than {MAX_SPAN} entries")


class _Again:
    """The window of a BET, filled again."""

    def __init__(self, one: Bet, severities: Any, references: References) -> None:
        self.found: list[Found] = []
        self._bet = one
        self._references = references
        digest = str(one.ext.get("binding_digest"))
        self._window = Window(one.subject, PolicyInfo(one.policy, "", digest, severities), one.start, 0, None)
        self._denied = 0

    def take(self, seq: int, data: bytes, entry: dict[str, Any]) -> None:
        one, window = self._bet, self._window
        if entry["agent_id"] != one.subject or not one.start <= entry["timestamp"] < one.end:
            return
        window.add(seq, data)
        if not needs_judgement(entry):
            return
        for said in entry["behaviors"]:
            if said["policy_id"] == one.policy:
                window.judge(said["behavior_id"], said["result"], entry["decision"])
        passed = all(said["result"] == "pass" for said in entry["behaviors"])
        self._denied += passed and entry["decision"] == "deny"
        again = judge_again(entry, {}, self._references)
        if again.problem:
            self.found.append(("misjudged", again.problem))

    def compared(self, exact: bool) -> Iterable[Found]:
        """How the BET differs; `exact`: the severities of its behaviors are known."""
        one, window = self._bet, self._window
        first = window.first_entry if window.count else one.ext["checkpoint_size"]
        said = one.ext["count"], one.ext["first_seq"], one.evidence
        if said != (window.count, first, window.evidence()):
            yield "other_entries", f"the BET {one.jti} is not over the entries that its window has in the log"
            return
        if not exact or len(one.ext.get("binding_versions", ())) > 1:
            return
        window.default_denied, window.unjudged = one.ext.get("default_denied", 0), one.ext.get("unjudged", 0)
        shown, _ = bet.details(window.tallies, window.policy.severities)
        counted = [dict(item) for item in one.details] == shown and window.default_denied >= self._denied
        if not counted or one.result != window.result():
            yield "other_entries", f"the BET {one.jti} does not say what the entries of its window say"
