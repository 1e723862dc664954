"""What the operator may order of a running monitor (see `operator`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..evidence.demand import Demands
from ..evidence.retention import BY_HAND, Retention
from ..formats.errors import UsageError
from .operator import Order


def orders(demands: Demands, retention: Retention) -> Mapping[str, Order]:
    """By name: `bet` (agent, policy, from, to) answers with the tokens, `erase` (before) with what was erased."""

    async def issue(arguments: dict[str, Any]) -> list[str]:
        values = [arguments.pop(name, None) for name in ("agent", "policy", "from", "to")]
        agent, policy, start, end = values
        texts = isinstance(agent, str) and (policy is None or isinstance(policy, str))
        times = all(moment is None or type(moment) in (int, float) for moment in (start, end))
        if arguments or not texts or not times:
            raise UsageError("the order bet takes agent and policy (texts), from and to (numbers)")
        return list(await demands.issue(agent, policy, start, end))

    async def erase(arguments: dict[str, Any]) -> dict[str, Any]:
        before = arguments.pop("before", None)
        if arguments or type(before) not in (int, float):
            raise UsageError("the order erase takes before (a number)")
        return asdict(await retention.erase(before, BY_HAND))

    return {"bet": issue, "erase": erase}
