"""What may be ordered of a running monitor, by name: by its own user (`operator`), or from afar (`listener`)."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from ...evidence.demand import Demands
from ...evidence.retention import BY_HAND, Retention
from ...formats.errors import UsageError
from .decisions import Decisions
from .interventions import Interventions

Order = Callable[[dict[str, Any], str], Awaitable[Any]]
"""Takes the arguments, and who gives the order."""


def erasing(retention: Retention) -> Mapping[str, Order]:
    """`erase` (before)."""

    async def erase(arguments: dict[str, Any], by: str) -> dict[str, Any]:
        before = arguments.pop("before", None)
        if arguments or type(before) not in (int, float):
            raise UsageError("the order erase takes before (a number)")
        return asdict(await retention.erase(before, BY_HAND))

    return {"erase": erase}


def demanded(demands: Demands) -> Mapping[str, Order]:
    """`bet` (agent, policy, from, to)."""

    async def issue(arguments: dict[str, Any], by: str) -> list[str]:
        values = [arguments.pop(name, None) for name in ("agent", "policy", "from", "to")]
        agent, policy, start, end = values
        texts = isinstance(agent, str) and (policy is None or isinstance(policy, str))
        times = all(moment is None or type(moment) in (int, float) for moment in (start, end))
        if arguments or not texts or not times:
            raise UsageError("the order bet takes agent and policy (texts), from and to (numbers)")
        return list(await demands.issue(agent, policy, start, end))

    return {"bet": issue}


def decided(decisions: Decisions) -> Mapping[str, Order]:
    """What `Decisions` has, under the same names."""
    methods = (
        decisions.quarantine,
        decisions.release,
        decisions.quarantined,
        decisions.waiting,
        decisions.standing,
        decisions.decide,
        decisions.revoke,
    )
    return {method.__name__: _order(method) for method in methods}


def intervening(interventions: Interventions) -> Mapping[str, Order]:
    """What `Interventions` has, under the same names."""
    methods = (
        interventions.delegations,
        interventions.revoke_delegation,
        interventions.holds,
        interventions.hold,
        interventions.unhold,
    )
    return {method.__name__: _order(method) for method in methods}


def _order(method: Callable[..., Awaitable[Any]]) -> Order:
    parameters = inspect.signature(method).parameters
    known = [name for name in parameters if name != "by"]
    needed = [name for name in known if parameters[name].default is inspect.Parameter.empty]

    async def give(arguments: dict[str, Any], by: str) -> Any:
        if not set(needed) <= set(arguments) <= set(known):
            raise UsageError(f"the order {method.__name__} takes {', '.join(known) or 'nothing'}")
        return await (method(by=by, **arguments) if "by" in parameters else method(**arguments))

    return give
