"""What outsiders see of the log, and say about it: the API that serves it, the witnesses that sign it, who is told."""

from __future__ import annotations

from typing import Any

from ...evidence.ledger import Ledger
from ...formats.jws import Signer
from ..config import Config
from .api import Api
from .reporting import Reporting
from .webhook import Webhooks
from .witnessing import Witnessing


class Transparency:
    """Runs beside the recorder. Made and started when the ledger is open, stopped before it is closed."""

    def __init__(self, config: Config, ledger: Ledger, signer: Signer) -> None:
        """Raises like `Api`, `Witnessing`, `Reporting` and `Webhooks`."""
        self._config = config
        self._ledger = ledger
        self._api = Api(config, self._health) if config.listen.api is not None else None
        self._witnessing = Witnessing(config, ledger) if config.witnessing.witnesses else None
        self._reporting = Reporting(config, config.verifier, ledger) if config.verifier is not None else None
        self._webhooks = Webhooks(config.webhooks, ledger, signer, config.monitor.spiffe_id, config.ledger.path)

    async def start(self) -> None:
        """Raises UsageError if the API cannot listen."""
        if self._api is not None and self._config.listen.api is not None:
            await self._api.start(*self._config.listen.api)
        if self._witnessing is not None:
            self._witnessing.start()
        if self._reporting is not None:
            self._reporting.start()
        self._webhooks.start()

    async def stop(self) -> None:
        """Have the end witnessed and reported, and end everything."""
        await self._webhooks.stop()
        if self._reporting is not None:
            await self._reporting.stop()
        if self._witnessing is not None:
            await self._witnessing.stop()
        if self._api is not None:
            await self._api.stop()

    def _health(self) -> dict[str, Any]:
        witnesses = self._witnessing.health() if self._witnessing is not None else {}
        verifier = {"verifier": self._reporting.health()} if self._reporting is not None else {}
        told = self._webhooks.health()
        return {"origin": self._ledger.origin, **witnesses, **verifier, **({"webhooks": told} if told else {})}
