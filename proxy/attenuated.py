"""What those who hand work on may have asked for: that nobody is allowed more who takes it up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..bindings.attenuation import exceeds
from ..bindings.model import Binding
from ..bindings.patterns import AllowSet
from ..bindings.subjects import applies_to
from ..evidence.lineage import Within, exceeds_within

MAX_DECIDED = 4096


class Attenuation:
    """Over the bindings in force. A digest that stands for none of them cannot be decided about."""

    def __init__(self, bindings: Iterable[Binding]) -> None:
        self._bindings = tuple(bindings)
        self._by_digest = {binding.digest: binding for binding in self._bindings}
        self._asking = [
            (binding, AllowSet(behavior.targets) if behavior.targets is not None else None)
            for binding in self._bindings
            for behavior in binding.behaviors
            if behavior.criteria["type"] == "delegation" and "child_binding" in behavior.criteria.get("outgoing", {})
        ]
        self._decided: dict[tuple[str, tuple[str, ...]], str] = {}

    def of(self, agent_id: str, target: str, inherited: Within) -> Within | None:
        """What a delegation of this agent is within; None: more bindings than a node can name."""
        asked = any(
            applies_to(binding.subjects, agent_id) and (targets is None or targets.matches(target))
            for binding, targets in self._asking
        )
        own = tuple(binding.digest for binding in self._applying(agent_id)) if asked else ()
        within = inherited if not own or own in inherited else (*inherited, own)
        return None if exceeds_within(within) else within

    def problem(self, agent_id: str, within: Sequence[Sequence[str]]) -> str:
        """Why the bindings of a local agent exceed one of these groups, or may; "" if they do not."""
        for group in map(tuple, within):
            if (agent_id, group) not in self._decided:
                if len(self._decided) >= MAX_DECIDED:
                    self._decided.clear()
                self._decided[agent_id, group] = self._decide(agent_id, group)
            if problem := self._decided[agent_id, group]:
                return problem
        return ""

    def _decide(self, agent_id: str, group: tuple[str, ...]) -> str:
        parent = [self._by_digest.get(digest) for digest in group]
        known = [binding for binding in parent if binding is not None]
        if len(known) < len(parent):
            missing = ", ".join(digest for digest in group if digest not in self._by_digest)
            return f"the binding {missing} of the caller is not in force here, so nothing can be compared with it"
        return exceeds(self._applying(agent_id), known)

    def _applying(self, agent_id: str) -> list[Binding]:
        return [binding for binding in self._bindings if applies_to(binding.subjects, agent_id)]
