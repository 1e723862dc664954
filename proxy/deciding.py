"""What is decided in the control process beside the bindings: quarantine, holds, approvals, and orders from afar."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..bindings.model import Binding
from ..bindings.policy import IN_QUARANTINE, QUARANTINED
from ..evidence.entry import Resolution
from ..evidence.held import MONITOR, MONITOR_GONE, Holds
from ..evidence.ledger import Ledger
from ..evidence.store import Reader
from .approvals import Approvals
from .authority import Authority
from .config import Config
from .decisions import Decisions
from .order_listener import OrderListener
from .orders import Order, decided
from .quarantine import Quarantine
from .state import State


class Deciding:
    """Made when the ledger is open; `tell` says something to all workers, `demanded` are further orders from afar."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        stored: Reader,
        state: State,
        bindings: tuple[Binding, ...],
        tell: Callable[[dict[str, Any]], None],
        demanded: Mapping[str, Order],
    ) -> None:
        limits, monitor_id = config.limits, config.monitor.spiffe_id
        self._tell = tell
        self._listen = config.listen
        self.holds = Holds(ledger, limits.hold_s, limits.held_actions, limits.held_actions_per_agent)
        self.quarantine = Quarantine(ledger, stored, monitor_id, self._quarantine_changed)
        approvals = Approvals(ledger, stored, monitor_id)
        self.authority = Authority(state, self.quarantine, approvals, bindings)
        self.decisions = Decisions(ledger, self.quarantine, self.holds, approvals)
        self._listener: OrderListener | None = None
        if config.listen.orders is not None:
            self._listener = OrderListener(config, config.listen.orders_from, {**demanded, **decided(self.decisions)})

    async def start(self) -> None:
        """Take orders from afar. Raises UsageError if the listener cannot listen."""
        if self._listener is not None and self._listen.orders is not None:
            await self._listener.start(*self._listen.orders)

    async def stop(self) -> None:
        """Take no more orders."""
        if self._listener is not None:
            await self._listener.stop()

    def deny_what_waits(self) -> None:
        """The monitor ends: nobody will decide any more."""
        self.holds.resolve_all(lambda one: True, Resolution(False, MONITOR_GONE, MONITOR))

    def _quarantine_changed(self) -> None:
        """All workers refuse what the agents in quarantine do; what waited for a decision is denied."""
        self._tell({"quarantined": self.quarantine.agents()})
        said = Resolution(False, QUARANTINED, MONITOR, IN_QUARANTINE.hint)
        self.holds.resolve_all(lambda one: one.draft.agent_id in self.quarantine, said)
