"""What the control process does for evidence that goes or comes apart from the request that it is about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...addons import delegate
from ...bindings.model import Binding
from ...evidence.entry import Tokens
from ..config import Config
from .evidence_listener import EvidenceListener
from .handing_over import HandingOver


class Apart:
    """Both ends: to and from the monitors of other agents (`handing_over`), and for callers' (`evidence_listener`)."""

    def __init__(self, config: Config, bindings: Callable[[], Iterable[Binding]]) -> None:
        """Raises VerificationError for the revocation list."""
        self._handing = HandingOver(config)
        self._address = config.listen.evidence
        self._listener = EvidenceListener(config, bindings) if self._address is not None else None

    async def start(self) -> None:
        """Raises UsageError if the listener cannot listen."""
        if self._listener is not None and self._address is not None:
            await self._listener.start(*self._address)

    async def stop(self) -> None:
        """Listen no more, and end all connections."""
        if self._listener is not None:
            await self._listener.stop()
        await self._handing.stop()

    async def deliver(self, urn: str, request: str, tokens: Tokens) -> str:
        """See `HandingOver`."""
        return await self._handing.deliver(urn, request, tokens)

    async def fetch(self, urn: str, node: str, outcome: Mapping[str, Any]) -> Mapping[str, Any]:
        """The outcome of a delegation, with digests of what the callee's monitor says of it, if it says anything."""
        tokens = await self._handing.fetch(urn, node)
        if tokens is None:
            return outcome
        came = delegate.digests_of(tokens.execution_context, tokens.behavioral_evidence)
        return {**delegate.joined(outcome, came), "last_evidence": "fetched"}

    async def take(self, peer: str, request: str) -> Tokens:
        """What was delivered for a request that came in; nothing if nothing was."""
        return self._listener.take(peer, request) if self._listener is not None else Tokens()

    def leave(self, peer: str, nodes: Iterable[str], tokens: Tokens) -> None:
        """See `EvidenceListener`."""
        if self._listener is not None:
            self._listener.leave(peer, nodes, tokens)
