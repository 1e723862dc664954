"""Drafts a binding from the actions of a log: what the agent did, and no more than what is said to be added.

For each action type an allowlist of the targets seen. Where a segment of a URL's path is an id and enough different
ones were seen in its place, `*` stands for it (see `generalised`). Hosts are never generalised.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..formats.errors import FormatError, UsageError
from ..formats.spiffe import SpiffeId
from .covering import Cover
from .model import ActionType
from .patterns import UrlPattern, check_urn

MAX_TARGETS = 100_000
"""Different targets of one action type; what comes after is left out and counted."""
MAX_LENGTH = 4096
MAX_NAMED = 256
_ID = re.compile(
    r"[0-9]+|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
    r"|(?=[a-fA-F]*[0-9])[0-9a-fA-F]{8,}|(?=[A-Za-z]*[0-9])[0-9A-Za-z]{16,}",
    re.ASCII,
)
_Path = tuple[str, ...]


@dataclass(slots=True)
class _Seen:
    """The targets of one action type, in the order in which they were first seen."""

    targets: dict[str, None] = field(default_factory=dict)
    actions: int = 0


class Learner:
    """Takes the entries of a log, one after the other. Nothing in an entry is trusted to be what it should be."""

    def __init__(self, agent: str, include_denied: bool = False) -> None:
        """`agent`: a SPIFFE ID, or the last part of one; `include_denied`: learn what bindings denied too."""
        self._agent = agent
        self._include_denied = include_denied
        self._seen: dict[ActionType, _Seen] = {}
        self._range: tuple[int, int] | None = None
        self.agents: set[str] = set()
        """The agents that the name fits."""
        self.others: set[str] = set()
        """Some of the other agents of the log."""
        self.left_out: Counter[str] = Counter()
        """Actions of the agent that were not learned, by why."""

    @property
    def actions(self) -> int:
        return sum(seen.actions for seen in self._seen.values())

    def take(self, entry: Any, seq: int) -> None:
        """One entry of the log, whatever it is."""
        if not isinstance(entry, dict) or "outcome_of" in entry or not self._is_about(entry.get("agent_id")):
            return
        if entry.get("decision") == "hold":
            return  # what became of it stands in an entry of its own
        target, type_ = entry.get("action_target"), _type(entry.get("action_type"))
        reason = "malformed" if type_ is None or not isinstance(target, str) else self._doubt(entry, target)
        if reason == "inbound":
            return
        if reason:
            self.left_out[reason] += 1
            return
        assert type_ is not None
        assert isinstance(target, str)
        seen = self._seen.setdefault(type_, _Seen())
        if target not in seen.targets and len(seen.targets) >= MAX_TARGETS:
            self.left_out["too_many_targets"] += 1
            return
        seen.targets[target] = None
        seen.actions += 1
        self._range = (self._range[0] if self._range else seq, seq)

    def binding(self, source: str, generalise: int) -> dict[str, Any]:
        """The draft. `source` names the log; `generalise`: how many different ids make a `*`, 0 for never.

        Raises UsageError if there is nothing to learn from, or the name fits several agents.
        """
        if len(self.agents) > 1:
            raise UsageError(f"{self._agent!r} fits {', '.join(sorted(self.agents))}: give one as a SPIFFE ID")
        if self._range is None:
            there = f"; it has {', '.join(sorted(self.others))}" if self.others else ""
            why = f" ({_counted(self.left_out)} left out)" if self.left_out else ""
            raise UsageError(f"{source} has no action of {self._agent} to learn from{why}{there}")
        (agent,) = self.agents
        first, last = self._range
        source = source[:MAX_NAMED]
        left = f" Left out: {_counted(self.left_out)}." if self.left_out else ""
        what = "allowed and denied" if self._include_denied else "allowed"
        ids = f" Where {generalise} different ids or more were seen, * stands for any." if generalise else ""
        return {
            "policy_id": f"urn:lictor:policy:learned:{agent.rpartition('/')[2][:MAX_NAMED]}",
            "version": "0.1.0",
            "description": (
                f"Draft from {self.actions} {what} actions among the entries {first} to {last} of {source}."
                f"{ids}{left} Review it before it is signed."
            ),
            "subjects": [agent],
            "evaluation_mode": "continuous",
            "expected_behaviors": [
                self._behavior(type_, self._seen[type_], generalise) for type_ in sorted(self._seen)
            ],
        }

    def _behavior(self, type_: ActionType, seen: _Seen, generalise: int) -> dict[str, Any]:
        values = generalised(seen.targets, generalise) if generalise else sorted(seen.targets)
        return {
            "behavior_id": f"learned-{type_.value}",
            "description": f"{seen.actions} actions on {len(seen.targets)} targets",
            "observable_actions": [type_.value],
            "severity": "high",
            "compliance_criteria": {"type": "allowlist", "values": values},
        }

    def _is_about(self, agent_id: Any) -> bool:
        if not isinstance(agent_id, str):
            return False
        if agent_id in self.agents:
            return True
        if agent_id != self._agent and not agent_id.endswith(f"/{self._agent}"):
            if len(self.others) < 10 and _is_agent(agent_id):
                self.others.add(agent_id)
            return False
        if not _is_agent(agent_id):
            return False
        self.agents.add(agent_id)
        return True

    def _doubt(self, entry: Mapping[str, Any], target: str) -> str:
        """Why an action is not learned from; empty if it is."""
        parameters = entry.get("action_parameters")
        if not isinstance(parameters, dict):
            return "malformed"
        if parameters.get("direction") == "inbound":
            return "inbound"
        decision = entry.get("decision")
        if decision == "deny":
            if not self._include_denied:
                return "denied"
            if not judged_by_bindings(entry):
                return "refused_by_the_monitor"
            if parameters.get("method") == "CONNECT":
                return "refused_at_connect"
        elif decision not in ("allow", "flag"):
            return "malformed"
        return "" if is_value(target) else "not_a_pattern"


def judged_by_bindings(entry: Mapping[str, Any]) -> bool:
    """Whether an entry's decision is that of bindings, and not a refusal of the monitor itself."""
    return entry.get("decision") != "deny" or bool(entry.get("behaviors")) or entry.get("reason") == "default_deny"


def is_value(target: str) -> bool:
    """Whether a target, written as a pattern, matches itself and nothing else."""
    if len(target) > MAX_LENGTH:
        return False
    try:
        if target.startswith("urn:"):
            return check_urn(target) == target
        return UrlPattern.parse(target).exact == target
    except (UsageError, FormatError, UnicodeError):
        return False


def generalised(targets: Iterable[str], enough: int) -> list[str]:
    """The targets as patterns: URLs that differ in ids only become one where there are `enough` of those.

    URLs are compared that have ids in the same places and all other segments in common. From the left, where `enough`
    different ids were seen after the same beginning, `*` takes their place; where there are fewer, each stays.
    """
    values: set[str] = set()
    shapes: dict[_Path, list[_Path]] = {}
    for target in targets:
        path = tuple(target.split("/"))
        shape = tuple("" if i > 2 and _ID.fullmatch(part) else f"={part}" for i, part in enumerate(path))
        if target.startswith("urn:") or "" not in shape:
            values.add(target)
        else:
            shapes.setdefault(shape, []).append(path)
    for shape, paths in shapes.items():
        places = [i for i, part in enumerate(shape) if not part]
        values.update("/".join(path) for path in _merged(paths, places, enough))
    cover = Cover(values)
    return sorted(value for value in values if cover.broader(value) is None)


def _merged(paths: Iterable[_Path], places: list[int], enough: int) -> Iterator[_Path]:
    if not places:
        yield from paths
        return
    place, *rest = places
    by_id: dict[str, list[_Path]] = {}
    for path in paths:
        by_id.setdefault(path[place], []).append(path)
    if len(by_id) >= enough:
        starred = {(*path[:place], "*", *path[place + 1 :]) for group in by_id.values() for path in group}
        yield from _merged(starred, rest, enough)
    else:
        for group in by_id.values():
            yield from _merged(group, rest, enough)


def _type(value: Any) -> ActionType | None:
    try:
        return ActionType(value)
    except ValueError:
        return None


def _is_agent(text: str) -> bool:
    try:
        return str(SpiffeId.parse(text)) == text
    except FormatError:
        return False


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {why.replace('_', ' ')}" for why, count in sorted(counts.items()))
