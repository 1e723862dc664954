"""What a memory keeps by key, bounded in number and in time."""

from __future__ import annotations

from collections import OrderedDict

MAX_KEYS = 200_000


class Remembered[K, V]:
    """Values by key; each is forgotten `keep` seconds after it was last put (None: never). Times only grow."""

    __slots__ = ("_keep", "_limit", "_values")

    def __init__(self, keep: float | None, limit: int = MAX_KEYS) -> None:
        self._keep = keep
        self._limit = limit
        self._values: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def get(self, key: K) -> V | None:
        found = self._values.get(key)
        return None if found is None else found[1]

    def put(self, key: K, value: V, now: float) -> None:
        self._values[key] = (now, value)
        self._values.move_to_end(key)
        self._forget(now)

    def no_room_for(self, key: K, now: float) -> bool:
        """Whether so much is remembered that the key cannot be taken up: what depends on it must be refused."""
        self._forget(now)
        return len(self._values) >= self._limit and key not in self._values

    def _forget(self, now: float) -> None:
        while self._keep is not None and self._values and next(iter(self._values.values()))[0] < now - self._keep:
            self._values.popitem(last=False)

    def __len__(self) -> int:
        return len(self._values)
