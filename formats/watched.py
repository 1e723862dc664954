"""Files that are read again when they change. What was good stays in force until something good replaces it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from .errors import LictorError

log = logging.getLogger(__name__)
Stamp = frozenset[tuple[Path, int, int, int]]


class Watched[T]:
    """`current` is what `load` made of the files last. `what` names them in messages."""

    def __init__(self, what: str, files: Callable[[], Iterable[Path]], load: Callable[[], T]) -> None:
        """Raises what `load` raises. `files` names those to look at, anew each time; its OSError means that none is."""
        self._what = what
        self._files = files
        self._load = load
        self._stamp = self._look()
        self.current = load()

    def poll(self) -> bool:
        """Look again; True if they changed and were loaded. What cannot be is logged, once, and changes nothing."""
        stamp = self._look()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self.current = self._load()
        except LictorError as e:
            log.error("%s changed and cannot be taken, what there was stays in force: %s", self._what, e)
            return False
        return True

    def _look(self) -> Stamp:
        """Time, size and inode of every file that is there."""
        try:
            return frozenset(found for path in self._files() if (found := _stamp(path)) is not None)
        except OSError:
            return frozenset()


def _stamp(path: Path) -> tuple[Path, int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return path, status.st_mtime_ns, status.st_size, status.st_ino
