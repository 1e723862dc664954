"""What the addons know of one HTTP exchange, kept with mitmproxy's flow, and the port to the control process."""

from __future__ import annotations

import hashlib
import hmac
import time
from asyncio import Future
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from mitmproxy import http

from ..bindings.facts import Classified
from ..evidence.entry import ActionDraft, InboundDraft, OutcomeDraft, Receipt, Tokens
from ..formats import base64url
from ..formats.errors import LictorError
from .reading import Reading
from .upgrade import Upgrade
from .ways import Carriage

_KEY = "lictor"


class Control(Protocol):
    """The control process as the data plane sees it. Every answer comes after the entry is durable, or is an error."""

    def record_action(
        self,
        draft: ActionDraft,
        then: Callable[[Receipt | LictorError], None],
        held: Callable[[int], None] | None = None,
    ) -> Future[None]:
        """Record; `then` gets the receipt, or a LictorError with a `reason`, and runs before the future is done.

        The receipt of an action that is held comes when it was decided on; until then `held` was called with its seq.
        """

    def accept_delegation(
        self,
        draft: InboundDraft,
        then: Callable[[Receipt | LictorError], None],
        held: Callable[[int], None] | None = None,
    ) -> Future[None]:
        """The same for a delegation that comes in."""

    def withdraw(self, seq: int, reason: str) -> None:
        """Nobody waits for the held action of this entry any more; its receipt comes, and is a denial."""

    def deliver(
        self, agent_id: str, urn: str, request: str, tokens: Tokens, then: Callable[[str | LictorError], None]
    ) -> Future[None]:
        """Have the monitor of the target `urn` keep the evidence for a request of this agent.

        `then` gets "", or why it does not.
        """

    def take_delivery(self, peer_id: str, request: str, then: Callable[[Tokens | LictorError], None]) -> Future[None]:
        """What the monitor `peer_id` delivered for this request, if anything."""

    def leave_evidence(
        self, node: str, peer_id: str, nodes: Sequence[str], then: Callable[[Tokens | LictorError], None]
    ) -> Future[None]:
        """`delegation_response`, of which `peer_id` may fetch what it says, under the `nodes` that it has sent."""

    def delegation_response(self, node: str, then: Callable[[Tokens | LictorError], None]) -> Future[None]:
        """The sub-agent's node and fresh BETs, for the response of the delegation that minted `node`."""

    def finish_delegation(self, node: str) -> None:
        """The delegation that minted `node` is over."""

    def record_outcome(self, draft: OutcomeDraft, fetch: tuple[str, str] | None = None) -> None:
        """Record how an action ended; no answer.

        `fetch`, the URN of a target and the node that was sent there: what its monitor says of it becomes part of that.
        """


class Reader(Protocol):
    """Reads an answer beside its passing."""

    def begin(self, content_type: str, encoding: str) -> None:
        """The head of the answer is in."""

    def update(self, chunk: bytes) -> None:
        """Bytes of the answer. Never raises."""

    def stated(self, complete: bool) -> dict[str, object]:
        """What the outcome says of it."""


class Tally:
    """Bytes and digest of one body as it passes. Keyed with the log's salt unless both ends must get the same value."""

    __slots__ = ("_hash", "_salt", "size")

    def __init__(self, salt: bytes | None) -> None:
        self.size = 0
        self._salt = salt
        self._hash: hmac.HMAC | hashlib._Hash | None = None  # most requests have no body

    def update(self, chunk: bytes) -> None:
        if self._hash is None:
            self._hash = _new_hash(self._salt)
        self.size += len(chunk)
        self._hash.update(chunk)

    def digest(self) -> str:
        """`<name>:<base64url>`."""
        name = "hmac-sha-256" if self._salt else "sha-256"
        return f"{name}:{base64url.encode((self._hash or _new_hash(self._salt)).digest())}"


def _new_hash(salt: bytes | None) -> hmac.HMAC | hashlib._Hash:
    return _keyed(salt).copy() if salt else hashlib.sha256()


@lru_cache(4)
def _keyed(salt: bytes) -> hmac.HMAC:
    """Nothing hashed yet; copies are cheaper to make than from the key. A log has one salt."""
    return hmac.new(salt, digestmod=hashlib.sha256)


class ReadTally(Tally):
    """Bytes that are read beside, too."""

    __slots__ = ("_reader",)

    def __init__(self, salt: bytes | None, reader: Reader) -> None:
        super().__init__(salt)
        self._reader = reader

    def update(self, chunk: bytes) -> None:
        super().update(chunk)
        self._reader.update(chunk)


@dataclass(slots=True)
class Exchange:
    """One request and its response, from identification to outcome. `permit` is set by enforcement alone."""

    agent_id: str
    inbound: bool
    scheme: str
    host: str
    port: int
    path: str
    query: str
    started: float = field(default_factory=time.monotonic)
    classified: tuple[Classified, ...] = ()
    receipts: tuple[Receipt, ...] = ()
    permit: tuple[str, str, int] | None = None
    refused: bool = False
    salt: bytes | None = None
    request_tally: Tally | None = None
    response_tally: Tally | None = None
    upgrade: Upgrade | None = None
    """The WebSocket that was asked for."""
    reading: Reading | None = None
    """The answer, if it is read before it is passed on (MCP)."""
    outcome_sent: bool = False
    callee: str = ""
    """Of what comes in: the local agent."""
    ended_by: str | None = None
    """Why the monitor itself ended it, for the outcome."""
    peer_evidence: dict[str, object] = field(default_factory=dict)
    carriage: Carriage | None = None
    """Of a delegation: how its evidence travels."""
    usage: Reader | None = None
    """What reads the tokens that a model used out of its answer."""

    @property
    def delegated(self) -> bool:
        """The request hands work to another agent."""
        return any(c.type == "delegation" for c in self.classified)


def attach(flow: http.HTTPFlow, exchange: Exchange) -> None:
    flow.metadata[_KEY] = exchange


def exchange_of(flow: http.HTTPFlow) -> Exchange | None:
    """The exchange of this flow, or None before it was identified."""
    found = flow.metadata.get(_KEY)
    return found if isinstance(found, Exchange) else None


def permitted(flow: http.HTTPFlow) -> bool:
    """True if this very request (scheme, host and port as they stand now) has an allowing receipt and may go on."""
    exchange = exchange_of(flow)
    request = flow.request
    return (
        exchange is not None
        and not exchange.refused
        and exchange.ended_by is None
        and exchange.permit is not None
        and exchange.permit == (request.scheme, request.host, request.port)
    )
