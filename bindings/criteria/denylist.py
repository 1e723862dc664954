"""Criteria of type `denylist`: the action's target must match none of `values` (see `bindings.patterns`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..criterion import PASS, Listed, Outcome, Stateless
from ..model import Action
from ..patterns import AllowSet
from ..target import Target

_FAIL = Outcome(False, "in_denylist")


class CompiledDenylist(Stateless):
    """The values as sets and prefix trees. An authority is closed only if one value denies all of it."""

    __slots__ = ("_denied", "listed")
    refuses = "in_denylist"

    def __init__(self, values: list[str]) -> None:
        self._denied = AllowSet(values)
        self.listed: Listed | None = Listed(values, False)

    def judge(self, action: Action) -> Outcome:
        return _FAIL if self._denied.matches(action.target) else PASS

    def may_allow_authority(self, host: str, port: int, targets: tuple[Target, ...]) -> bool:
        if not targets:
            return not self._denied.covers_authority(host, port)
        return any(not self._denied.covers_urn(target.urn, target.protocol == "mcp") for target in targets)


class Denylist:
    """`{"type": "denylist", "values": [...]}`."""

    def compile(self, criteria: Mapping[str, Any]) -> CompiledDenylist:
        return CompiledDenylist(criteria["values"])
