"""Criteria of type `allowlist`: the action's target must match one of `values` (see `bindings.patterns`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..criterion import PASS, Listed, Outcome, Stateless
from ..model import Action
from ..patterns import AllowSet
from ..target import Target

_FAIL = Outcome(False, "not_in_allowlist")


class CompiledAllowlist(Stateless):
    """The values as sets and prefix trees."""

    __slots__ = ("_allowed", "listed")
    refuses = "not_in_allowlist"

    def __init__(self, values: list[str]) -> None:
        self._allowed = AllowSet(values)
        self.listed: Listed | None = Listed(values, True)

    def judge(self, action: Action) -> Outcome:
        return PASS if self._allowed.matches(action.target) else _FAIL

    def may_allow_authority(self, host: str, port: int, targets: tuple[Target, ...]) -> bool:
        return self._allowed.may_match_authority(host, port) or any(
            self._allowed.may_match_urn(target.urn) for target in targets
        )


class Allowlist:
    """The draft's `{"type": "allowlist", "values": [...]}`."""

    def compile(self, criteria: Mapping[str, Any]) -> CompiledAllowlist:
        return CompiledAllowlist(criteria["values"])
