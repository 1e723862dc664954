"""Notices that the bindings on disk changed, and takes them only when all of them are good."""

from __future__ import annotations

import logging

from ..bindings import registry
from ..bindings.model import Binding
from ..bindings.succession import Succession
from ..formats.errors import LictorError
from .config import BindingSettings
from .policies import read_signers

log = logging.getLogger(__name__)

Stamp = tuple[tuple[str, int, int], ...]


class BindingsOnDisk:
    """The bindings of a directory. What was good stays in force until something good replaces all of it."""

    def __init__(self, settings: BindingSettings) -> None:
        """Raises UsageError or VerificationError if what is there now is not good."""
        self._settings = settings
        self._succession = Succession(())
        self._stamp = self._look()
        self.current = self._load()

    def follow(self, succession: Succession) -> None:
        """Hold what is there, and all that comes, to what was in force before. Raises UsageError."""
        succession.check(self.current)
        succession.took(self.current)
        self._succession = succession

    def poll(self) -> bool:
        """Look again; True if other bindings are in force now. A bad change is logged, once."""
        stamp = self._look()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            found = self._load()
            self._succession.check(found)
        except LictorError as e:
            log.error("the bindings changed and are not taken, the former stay in force: %s", e)
            return False
        if {b.digest for b in found} == {b.digest for b in self.current}:
            return False
        self._succession.took(found)
        self.current = found
        return True

    def _load(self) -> tuple[Binding, ...]:
        settings = self._settings
        return registry.load_directory(settings.directory, read_signers(settings.signers), settings.allow_unsigned)

    def _look(self) -> Stamp:
        """Name, time and size of every file there; a directory that cannot be read looks empty."""
        try:
            files = [(path.name, path.stat()) for path in self._settings.directory.iterdir()]
        except OSError:
            return ()
        return tuple(sorted((name, status.st_mtime_ns, status.st_size) for name, status in files))
