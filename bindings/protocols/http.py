"""Plain HTTP: one request is one action on the target."""

from __future__ import annotations

from ..facts import Classified, RequestFacts
from ..target import ACTION_TYPES, Kind, Target


class Http:
    """Any target that says nothing else of itself."""

    kinds: tuple[Kind, ...] = ("tool", "data_source", "model", "agent")
    inside: tuple[str, ...] = ()

    def needs_body(self, method: str) -> bool:
        return False

    def classify(self, target: Target, facts: RequestFacts) -> tuple[Classified, ...]:
        parameters = {"method": facts.method}
        return (Classified(ACTION_TYPES[target.kind], target.urn, parameters, catalog_target=target),)
