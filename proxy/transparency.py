"""What outsiders can see of the log: the API that serves it."""

from __future__ import annotations

from typing import Any

from ..evidence.ledger import Ledger
from .api import Api
from .config import Config


class Transparency:
    """Runs beside the recorder. Made and started when the ledger is open, stopped before it is closed."""

    def __init__(self, config: Config, ledger: Ledger) -> None:
        """Raises like `Api`."""
        self._config = config
        self._ledger = ledger
        self._api = Api(config, self._health) if config.listen.api is not None else None

    async def start(self) -> None:
        """Raises UsageError if the API cannot listen."""
        if self._api is not None and self._config.listen.api is not None:
            await self._api.start(*self._config.listen.api)

    async def stop(self) -> None:
        """End everything."""
        if self._api is not None:
            await self._api.stop()

    def _health(self) -> dict[str, Any]:
        return {"origin": self._ledger.origin}
