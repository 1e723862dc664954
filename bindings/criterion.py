"""The seam between judging and the kinds of compliance criteria."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from .catalog import Target
from .model import Action


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether an action satisfies a criterion; `reason` is machine-readable and empty if it does."""

    ok: bool
    reason: str = ""


class Compiled(Protocol):
    """Criteria made ready to judge. Immutable; shared by all requests of a worker."""

    def judge(self, action: Action) -> Outcome:
        """Judge one action, without I/O, in a time that does not depend on the length of the criteria."""

    def may_allow_authority(self, host: str, port: int, targets: tuple[Target, ...]) -> bool:
        """Could an action on this authority, or on one of these catalog targets behind it, satisfy? True in doubt."""


class Criterion(Protocol):
    """One type of compliance criteria."""

    def compile(self, criteria: Mapping[str, Any]) -> Compiled:
        """Make criteria, already checked against the binding schema, ready. Raises UsageError with the mend."""
