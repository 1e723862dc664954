"""The arguments of orders, each read from whatever somebody sent. Every function raises UsageError."""

from __future__ import annotations

from typing import Any

from ...bindings.model import ActionType
from ...formats.errors import FormatError, UsageError
from ...formats.spiffe import SpiffeId

MAX_WHY = 500
MAX_ID = 64
MOST_VALUES = 32
MAX_SECONDS = 366 * 86400


def agent_of(text: Any) -> str:
    """The SPIFFE ID of an agent."""
    try:
        return str(SpiffeId.parse(text))
    except (FormatError, TypeError, AttributeError):
        raise UsageError(f"expected the SPIFFE ID of an agent, found {text!r:.300}") from None


def number_of(value: Any, name: str) -> int:
    """The number of an entry."""
    if type(value) is not int or value < 0:
        raise UsageError(f"{name}: expected the number of an entry, found {value!r:.100}")
    return value


def truth_of(value: Any, name: str) -> bool:
    """True or false."""
    if type(value) is not bool:
        raise UsageError(f"{name}: expected true or false, found {value!r:.100}")
    return value


def why_of(why: Any) -> str:
    """A reason in words."""
    if not isinstance(why, str) or len(why) > MAX_WHY or not why.isprintable():
        raise UsageError(f"why: expected at most {MAX_WHY} printable characters")
    return why


def id_of(value: Any, name: str, what: str) -> str:
    """The id of a node or a workflow."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID or not value.isprintable():
        raise UsageError(f"{name}: expected the id of a {what}, found {value!r:.100}")
    return value


def seconds_of(seconds: Any) -> float | None:
    """How long something lasts; None: without end."""
    if seconds is None:
        return None
    if type(seconds) not in (int, float) or not 0 < seconds <= MAX_SECONDS:
        raise UsageError(f"seconds: expected a number above 0 and up to {MAX_SECONDS}, found {seconds!r:.100}")
    return float(seconds)


def limits_of(action_types: Any, targets: Any, workflow: Any) -> dict[str, Any]:
    """The actions of an agent that are meant, as far as that is limited."""
    for name, values in (("action_types", action_types), ("targets", targets)):
        good = isinstance(values, list) and 0 < len(values) <= MOST_VALUES and all(isinstance(v, str) for v in values)
        if values is not None and not good:
            raise UsageError(f"{name}: expected a list of 1 to {MOST_VALUES} texts")
    known = [type_.value for type_ in ActionType]
    unknown = sorted(set(action_types or ()).difference(known))
    if unknown:
        raise UsageError(f"action_types: there is no {unknown[0]!r:.100}; there are: {', '.join(known)}")
    if workflow is not None:
        id_of(workflow, "workflow", "workflow")
    given = {"action_types": action_types, "targets": targets, "workflow": workflow}
    return {name: value for name, value in given.items() if value is not None}
