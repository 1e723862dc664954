"""Criteria of type `budget`: at most so many calls, octets, tokens or so much money in a stretch of time or a workflow.

Hours, days and months are those of UTC. Octets and tokens are known when an exchange has ended, and count for the time
of its end: an action is refused once they are used up, what is under way then is not cut off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ...formats.errors import UsageError
from ..criterion import PASS, Happening, Outcome
from ..remembered import Remembered
from ..used import Tokens, Used

KEPT_S = 31 * 86400.0
"""A workflow is forgotten so long after its last action."""
_LENGTHS = {"hour": 3600.0, "day": 86400.0, "month": KEPT_S}
_PARTS = {"hour": 4, "day": 3, "month": 2, "workflow": 0}
_MICRO = 1_000_000
_UNSTATED = Tokens("", 0, 0)


@dataclass(slots=True)
class _Spent:
    """What was used in one hour, day, month or workflow (`window` is empty then)."""

    window: tuple[int, ...]
    calls: int = 0
    size: int = 0
    tokens: int = 0
    cost: int = 0


@dataclass(frozen=True, slots=True)
class Prices:
    """Millionths of the currency per million tokens (input, output), by model and by prefix, the longest first."""

    models: Mapping[str, tuple[int, int]]
    prefixes: tuple[tuple[str, tuple[int, int]], ...]
    highest: tuple[int, int]

    @classmethod
    def of(cls, prices: Mapping[str, Mapping[str, float]]) -> Prices:
        """From `{"<model>" or "<prefix>*": {"input": …, "output": …}}`."""
        by_name = {name: (_micro(price["input"]), _micro(price["output"])) for name, price in prices.items()}
        prefixes = sorted(((n[:-1], p) for n, p in by_name.items() if n.endswith("*")), key=lambda one: -len(one[0]))
        found = list(by_name.values()) or [(0, 0)]
        return cls(by_name, tuple(prefixes), (max(i for i, _ in found), max(o for _, o in found)))

    def cost(self, tokens: Tokens) -> int:
        """In 10^-12 of the currency. A model without a price costs the highest of all prices."""
        input_, output = self.models.get(tokens.model) or self._other(tokens.model)
        return tokens.input * input_ + tokens.output * output

    def _other(self, model: str) -> tuple[int, int]:
        named = (price for prefix, price in self.prefixes if model and model.startswith(prefix))
        return next(named, self.highest)


class BudgetMemory:
    """What was used, by agent or by workflow."""

    __slots__ = ("_criteria", "_spent")

    def __init__(self, criteria: CompiledBudget) -> None:
        self._criteria = criteria
        self._spent: Remembered[str, _Spent] = Remembered(criteria.horizon or KEPT_S)

    def judge(self, now: Happening) -> Outcome:
        criteria, key = self._criteria, self._criteria.key(now)
        spent = self._spent.get(key)
        if spent is None:
            return criteria.exhausted if self._spent.no_room_for(key, now.time) else PASS
        if spent.window != criteria.window(now.time):
            return PASS
        for limit, used in (
            (criteria.calls, spent.calls),
            (criteria.size, spent.size),
            (criteria.tokens, spent.tokens),
            (criteria.cost, spent.cost),
        ):
            if limit is not None and used >= limit:
                return criteria.exhausted
        return PASS

    def took(self, happened: Happening) -> None:
        self._current(happened).calls += 1

    def ended(self, happened: Happening, used: Used) -> None:
        spent, criteria = self._current(happened), self._criteria
        spent.size += used.size
        if criteria.tokens is not None or criteria.cost is not None:
            tokens = counted(used)
            spent.tokens += tokens.input + tokens.output
            spent.cost += criteria.prices.cost(tokens)

    def _current(self, happened: Happening) -> _Spent:
        key, window = self._criteria.key(happened), self._criteria.window(happened.time)
        spent = self._spent.get(key)
        if spent is None or spent.window != window:
            spent = _Spent(window)
        self._spent.put(key, spent, happened.time)
        return spent


def counted(used: Used) -> Tokens:
    """The tokens that count: as stated; else one for each octet, of a model without a price, unless it failed."""
    if used.tokens is not None:
        return used.tokens
    return _UNSTATED if used.failed else Tokens("", used.sent, used.received)


@dataclass(frozen=True, slots=True)
class CompiledBudget:
    """`calls`, `size` (octets), `tokens` and `cost` (10^-12 of the currency) per hour, day, …; None: no limit."""

    per: str
    calls: int | None
    size: int | None
    tokens: int | None
    cost: int | None
    prices: Prices
    remembers_all: bool = False

    @property
    def horizon(self) -> float | None:
        return _LENGTHS.get(self.per)

    @property
    def exhausted(self) -> Outcome:
        wait = "in the next workflow" if self.per == "workflow" else f"in the next {self.per} (UTC)"
        return Outcome(False, "budget_exhausted", f"The budget for this is used up; there is more {wait}.")

    def key(self, happening: Happening) -> str:
        return happening.wid if self.per == "workflow" else happening.agent_id

    def window(self, time: float) -> tuple[int, ...]:
        return datetime.fromtimestamp(time, UTC).timetuple()[: _PARTS[self.per]]

    def begin(self) -> BudgetMemory:
        return BudgetMemory(self)


def _micro(amount: float) -> int:
    return round(amount * _MICRO)


class Budget:
    """`{"type": "budget", "per": "hour" | "day" | "month" | "workflow", "calls": …, "bytes": …, "tokens": …, …}`."""

    def compile(self, criteria: Mapping[str, Any]) -> CompiledBudget:
        if not {"calls", "bytes", "tokens", "cost"} & criteria.keys():
            raise UsageError("a budget needs at least one of calls, bytes, tokens and cost")
        if ("cost" in criteria) != ("prices" in criteria):
            raise UsageError(
                "cost and prices go together: a budget of money needs the prices of models, and only it does"
            )
        cost = criteria.get("cost")
        return CompiledBudget(
            criteria["per"],
            criteria.get("calls"),
            criteria.get("bytes"),
            criteria.get("tokens"),
            None if cost is None else _micro(cost) * _MICRO,
            Prices.of(criteria.get("prices", {})),
        )
