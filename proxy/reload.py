"""Notices that the bindings on disk changed, and takes them only when all of them are good."""

from __future__ import annotations

from collections.abc import Iterable

from ..bindings import registry
from ..bindings.model import Binding
from ..bindings.subjects import for_agents_of
from ..bindings.succession import Succession
from ..formats.watched import Watched
from .config import BindingSettings
from .policies import read_signers


class BindingsOnDisk:
    """The bindings of a directory. What was good stays in force until something good replaces all of it."""

    def __init__(self, settings: BindingSettings) -> None:
        """Raises UsageError or VerificationError if what is there now is not good."""
        self._settings = settings
        self._succession = Succession(())
        self._watched = Watched("the directory of bindings", settings.directory.iterdir, self._load)

    @property
    def current(self) -> tuple[Binding, ...]:
        """Those in force."""
        return self._watched.current

    def follow(self, succession: Succession) -> None:
        """Hold what is there, and all that comes, to what was in force before. Raises UsageError."""
        succession.check(self.current)
        succession.took(self.current)
        self._succession = succession

    def poll(self) -> bool:
        """Look again; True if other bindings are in force now. A bad change is logged, once."""
        before = _digests(self.current)
        if not self._watched.poll() or _digests(self.current) == before:
            return False
        self._succession.took(self.current)
        return True

    def _load(self) -> tuple[Binding, ...]:
        settings = self._settings
        found = registry.load_directory(settings.directory, read_signers(settings.signers), settings.allow_unsigned)
        self._succession.check(found)
        return for_agents_of(settings.trust_domain, found)


def _digests(bindings: Iterable[Binding]) -> set[str]:
    return {binding.digest for binding in bindings}
