"""Tokens that wait to be taken: bounded in bytes and in time, each owner for itself.

Evidence that travels beside its request waits here for the request, and evidence about a stream for whoever asked for
the work. What an owner leaves can take no room from others, nor what all owners of a trust domain leave, however many
names it gives itself; and what nobody takes is forgotten.
"""

from __future__ import annotations

from collections import Counter, OrderedDict

from ..formats.spiffe import trust_domain
from .entry import Tokens

OWNER_BYTES = 8 * 1024 * 1024
ALL_BYTES = 64 * 1024 * 1024
"""Of these a trust domain may have as many as are left: alone half, and less where others have some."""
_OVERHEAD = 512
"""What keeping tokens costs beside their characters, about."""

Key = tuple[str, str]
"""Owner (a SPIFFE ID), and the name of what waits."""


class Deposit:
    """What waits, for `seconds` each. `now` is any clock that does not go back."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: OrderedDict[Key, tuple[float, int, Tokens]] = OrderedDict()
        self._bytes_of: Counter[str] = Counter()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, owner: str, name: str, tokens: Tokens, now: float) -> str:
        """Let `tokens` wait; "", or why they may not. The same once more is no other; another under the name is."""
        self._forget(now)
        waiting = self._waiting.get((owner, name))
        if waiting is not None:
            return "" if waiting[2] == tokens else "other evidence waits for this already"
        size, domain = _size(tokens), trust_domain(owner)
        if self._bytes_of[owner] + size > OWNER_BYTES or self._bytes_of[domain] + size > ALL_BYTES - self._bytes:
            return "too much evidence waits already"
        self._waiting[owner, name] = now + self._seconds, size, tokens
        self._bytes += size
        for one in (owner, domain):
            self._bytes_of[one] += size
        return ""

    def look(self, owner: str, name: str, now: float) -> Tokens | None:
        """What waits under that name; it goes on waiting."""
        self._forget(now)
        found = self._waiting.get((owner, name))
        return found[2] if found is not None else None

    def take(self, owner: str, name: str, now: float) -> Tokens | None:
        """What waits under that name, once."""
        self._forget(now)
        return self._remove((owner, name)) if (owner, name) in self._waiting else None

    def _forget(self, now: float) -> None:
        while self._waiting and self._waiting[oldest := next(iter(self._waiting))][0] <= now:
            self._remove(oldest)

    def _remove(self, key: Key) -> Tokens:
        _, size, tokens = self._waiting.pop(key)
        self._bytes -= size
        for one in (key[0], trust_domain(key[0])):
            self._bytes_of[one] -= size
            if not self._bytes_of[one]:
                del self._bytes_of[one]
        return tokens


def _size(tokens: Tokens) -> int:
    return _OVERHEAD + sum(map(len, (*tokens.execution_context, *tokens.behavioral_evidence, *tokens.checkpoint)))
