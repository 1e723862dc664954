"""The seams between judging and the kinds of compliance criteria: those that need no memory, and those that do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from .handed import Handed
from .model import Action
from .target import Target
from .used import Used

Reads = Literal["target", "query", "body"]
"""What of a request criteria look at: its target only, its method and query too, or its body as well."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether an action satisfies a criterion; `reason` is machine-readable and empty if it does.

    `hint` is one sentence for the agent where the criterion knows more than that the action is not allowed.
    """

    ok: bool
    reason: str = ""
    hint: str = ""


PASS = Outcome(True)


@dataclass(frozen=True, slots=True)
class Listed:
    """Patterns of targets, one of which must match (`allows`), or none."""

    values: Sequence[str]
    allows: bool


class Stateless(ABC):
    """Criteria made ready to judge. Immutable; shared by all requests of a worker."""

    __slots__ = ()
    reads: Reads = "target"
    refuses: ClassVar[str] = ""
    """The reason of a denial that the authority alone decides."""
    listed: Listed | None = None
    """Of criteria that are nothing but a list of patterns of targets: it is looked up together with all the others."""

    @abstractmethod
    def judge(self, action: Action) -> Outcome:
        """Judge one action, without I/O, in a time that does not depend on the length of the criteria."""

    def may_allow_authority(self, host: str, port: int, targets: tuple[Target, ...]) -> bool:
        """Could an action on this authority, or on one of these catalog targets behind it, satisfy? True in doubt."""
        return True


@dataclass(frozen=True, slots=True)
class Happening:
    """An action as memories see it. `time` is the entry's (of an action not recorded yet: not later than that).

    `handed` is what is known of a delegation while it is judged; None for anything else.
    """

    agent_id: str
    type: str
    target: str
    wid: str
    time: float
    handed: Handed | None = None


class Memory(Protocol):
    """What criteria remember of all agents that a behavior judges. One event loop uses it; nothing in it blocks.

    The same happenings in the same order make the same memory, so it can be made again from the log.
    """

    def judge(self, now: Happening) -> Outcome:
        """Judge an action that has not happened. Changes no answer."""

    def took(self, happened: Happening) -> None:
        """The action was let out."""

    def ended(self, happened: Happening, used: Used) -> None:
        """An action that was let out ended, and this is what it used; `time` is that of its end."""


class Stateful(Protocol):
    """Criteria made ready that need a memory. Judged by the control process, in the order of the log."""

    @property
    def remembers_all(self) -> bool:
        """Whether the memory wants every action of the agents, not only those that the behavior judges."""

    @property
    def horizon(self) -> float | None:
        """Seconds after which a happening changes no answer any more; None: never."""

    def begin(self) -> Memory:
        """An empty memory."""


Compiled = Stateless | Stateful


class Criterion(Protocol):
    """One type of compliance criteria."""

    def compile(self, criteria: Mapping[str, Any]) -> Compiled:
        """Make criteria, already checked against the binding schema, ready. Raises UsageError with the mend."""
