"""What may follow what: a binding is never replaced by an older one, and none disappears unless it was retired.

Each binding is signed by itself, so whoever can write the directory, but not sign, could put an old one back or take
one away. What was in force before is in the log; what is found is held to it. A retired binding has no behaviors: it
observes nothing, stays in the directory, and says by its signature that its policy is over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..formats.errors import UsageError
from .model import Binding


@dataclass(frozen=True, slots=True)
class Past:
    """What matters of a binding that was in force. `digest` as in `Binding`."""

    policy_id: str
    version: str
    digest: str
    retired: bool

    @classmethod
    def of(cls, document: Mapping[str, Any], digest: str) -> Past:
        """From the document of a binding that was good when it was taken, whatever this release makes of it."""
        return cls(document["policy_id"], document.get("version", ""), digest, not document["expected_behaviors"])


class Succession:
    """The bindings that were in force, in the order in which they came."""

    __slots__ = ("_last", "_seen")

    def __init__(self, before: Iterable[Past]) -> None:
        self._last: dict[str, Past] = {}
        self._seen: set[str] = set()
        for past in before:
            self._take(past)

    def took(self, bindings: Iterable[Binding]) -> None:
        """These are in force now."""
        for binding in bindings:
            self._take(Past.of(binding.document, binding.digest))

    def _take(self, past: Past) -> None:
        self._last[past.policy_id] = past
        self._seen.add(past.digest)

    def check(self, found: Iterable[Binding]) -> None:
        """May these be in force next? Raises UsageError that names the policy and the mend."""
        there = {binding.policy_id: binding for binding in found}
        for policy_id, last in self._last.items():
            if policy_id not in there and not last.retired:
                raise UsageError(
                    f"the binding {policy_id} was in force and is gone: put its file back, or retire it with "
                    "lictor binding retire"
                )
        for policy_id, binding in there.items():
            self._check_follows(binding, self._last.get(policy_id))

    def _check_follows(self, binding: Binding, last: Past | None) -> None:
        if last is None or binding.digest == last.digest:
            return
        named = f"the binding {binding.policy_id} {binding.version}".rstrip()
        mend = f"to go back to what it says, raise its version above {last.version or 'none'} and sign it again"
        if precedence(binding.version) < precedence(last.version):
            raise UsageError(f"{named} is older than {last.version}, which was in force: {mend}")
        if binding.digest in self._seen:
            raise UsageError(f"{named} was in force before and was replaced: {mend}")


def precedence(version: str) -> tuple[object, ...]:
    """What versions are compared by (SemVer 2.0.0 section 11); none at all ("") comes before every other."""
    if not version:
        return ()
    core, _, pre = version.partition("+")[0].partition("-")
    numbers = [int(part) for part in core.split(".")]
    while len(numbers) < 3:
        numbers.append(0)
    # A release comes after its pre-releases; of two identifiers a number comes before a word.
    rest = tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in pre.split(".")) if pre else ()
    return (*numbers, 0 if pre else 1, *rest)


def next_version(version: str) -> str:
    """The version after this one: its minor number raised by one."""
    major, minor = (version.partition("+")[0].partition("-")[0] or "0.0").split(".")[:2]
    return f"{major}.{int(minor) + 1}.0"
