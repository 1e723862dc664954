"""What is decided in the control process beside the bindings: quarantine, holds, approvals, and all orders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..bindings.model import Binding
from ..bindings.policy import IN_QUARANTINE, QUARANTINED
from ..evidence.delegations import Delegations
from ..evidence.entry import Resolution
from ..evidence.held import MONITOR, MONITOR_GONE, Holds
from ..evidence.ledger import Ledger
from ..evidence.sqlite_store import SqliteReader
from ..evidence.store import Reader
from .authority import Authority
from .config import Config
from .orders.approvals import Approvals
from .orders.catalogue import Order, decided, intervening
from .orders.decisions import Decisions
from .orders.demanded_holds import DemandedHolds
from .orders.interventions import Interventions
from .orders.listener import OrderListener
from .orders.operator import Operator
from .orders.quarantine import Quarantine
from .state import State


class Deciding:
    """Made when the ledger is open; `tell` says something to all workers."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        stored: Reader,
        state: State,
        bindings: tuple[Binding, ...],
        tell: Callable[[dict[str, Any]], None],
    ) -> None:
        limits, monitor_id = config.limits, config.monitor.spiffe_id
        self._config = config
        self._ledger = ledger
        self._tell = tell
        self.holds = Holds(ledger, limits.hold_s, limits.held_actions, limits.held_actions_per_agent)
        self.quarantine = Quarantine(ledger, stored, monitor_id, self._quarantine_changed)
        self._demanded = DemandedHolds(ledger, stored, monitor_id)
        approvals = Approvals(ledger, stored, monitor_id)
        self.authority = Authority(state, self.quarantine, self._demanded, approvals, bindings)
        self._decisions = Decisions(ledger, self.quarantine, self.holds, approvals)
        self._operator: Operator | None = None
        self._listener: OrderListener | None = None

    async def start(self, delegations: Delegations, afar: Mapping[str, Order], here: Mapping[str, Order]) -> None:
        """Take orders; those besides what is decided here are given, `here` for the monitor's own user alone.

        Raises UsageError if nobody can be listened to, VerificationError for the revocation list.
        """
        config = self._config
        interventions = Interventions(
            self._ledger, delegations, self._demanded, lambda: SqliteReader(config.ledger.path), self._tell
        )
        orders = {**afar, **decided(self._decisions), **intervening(interventions)}
        self._operator = Operator(config.ledger.path, {**orders, **here})
        await self._operator.start()
        if config.listen.orders is not None:
            self._listener = OrderListener(config, config.listen.orders_allowed, orders)
            await self._listener.start(*config.listen.orders)

    async def stop(self) -> None:
        """Take no more orders."""
        if self._operator is not None:
            await self._operator.close()
        if self._listener is not None:
            await self._listener.stop()

    def tick(self) -> None:
        """End the holds whose time is up."""
        self._demanded.expire(self._ledger.now())

    def deny_what_waits(self) -> None:
        """The monitor ends: nobody will decide any more."""
        self.holds.resolve_all(lambda one: True, Resolution(False, MONITOR_GONE, MONITOR))

    def _quarantine_changed(self) -> None:
        """All workers refuse what the agents in quarantine do; what waited for a decision is denied."""
        self._tell({"quarantined": self.quarantine.agents()})
        said = Resolution(False, QUARANTINED, MONITOR, IN_QUARANTINE.hint)
        self.holds.resolve_all(lambda one: one.draft.agent_id in self.quarantine, said)
