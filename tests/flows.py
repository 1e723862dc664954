"""A control process that answers at once, and flows as the engine hands them to addons."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from mitmproxy import http
from mitmproxy.test import tflow, tutils

from lictor.addons.open_exchanges import OpenExchanges
from lictor.bindings.catalog import Catalog
from lictor.bindings.policy import Policy
from lictor.evidence.entry import Receipt, Tokens
from lictor.formats.errors import LictorError


class FakeControl:
    """Keeps what it was asked to record. `answer(draft)` may be replaced."""

    def __init__(self) -> None:
        self.drafts: list[Any] = []
        self.inbound: list[Any] = []
        self.outcomes: list[Any] = []
        self.finished: list[str] = []
        self.withdrawn: list[tuple[int, str]] = []
        self.delivered: list[tuple[str, str, Tokens]] = []
        self.taken: list[tuple[str, str]] = []
        self.left: list[tuple[str, str, tuple[str, ...]]] = []
        self.fetched: list[tuple[str, str] | None] = []
        self.problem: Any = ""
        self.waiting: Any = Tokens()
        self.tokens: Any = Tokens(("node.b",), ("bet.b",))

    def answer(self, draft: Any) -> Receipt | LictorError:
        seq = len(self.drafts) + len(self.inbound) - 1
        delegation = getattr(draft, "action_type", "") == "delegation" and draft.decision != "deny"
        return Receipt(
            seq,
            1.0,
            draft.decision,
            draft.reason,
            "wid",
            f"node-{seq}",
            ("node.a",) if delegation else (),
            ("bet.a",) if delegation or draft.decision == "deny" else (),
        )

    def _done(self, then: Callable[[Any], None], answer: Any) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        then(answer)
        future.set_result(None)
        return future

    def record_action(self, draft: Any, then: Callable[[Any], None], held: Any = None) -> asyncio.Future[None]:
        self.drafts.append(draft)
        return self._done(then, self.answer(draft))

    def accept_delegation(self, draft: Any, then: Callable[[Any], None], held: Any = None) -> asyncio.Future[None]:
        self.inbound.append(draft)
        return self._done(then, self.answer(draft))

    def delegation_response(self, node: str, then: Callable[[Any], None]) -> asyncio.Future[None]:
        return self._done(then, self.tokens)

    def finish_delegation(self, node: str) -> None:
        self.finished.append(node)

    def withdraw(self, seq: int, reason: str) -> None:
        self.withdrawn.append((seq, reason))

    def deliver(
        self, agent_id: str, urn: str, request: str, tokens: Tokens, then: Callable[[Any], None]
    ) -> asyncio.Future[None]:
        self.delivered.append((urn, request, tokens))
        return self._done(then, self.problem)

    def take_delivery(self, peer_id: str, request: str, then: Callable[[Any], None]) -> asyncio.Future[None]:
        self.taken.append((peer_id, request))
        return self._done(then, self.waiting)

    def leave_evidence(
        self, node: str, peer_id: str, nodes: Sequence[str], then: Callable[[Any], None]
    ) -> asyncio.Future[None]:
        self.left.append((node, peer_id, tuple(nodes)))
        return self._done(then, self.tokens)

    def record_outcome(self, draft: Any, fetch: tuple[str, str] | None = None) -> None:
        self.outcomes.append(draft)
        self.fetched.append(fetch)


def nothing_open(policy: Callable[[], Policy] = lambda: Policy((), Catalog(()))) -> OpenExchanges:
    """Open exchanges that nothing has been let out into; cutting a connection does nothing."""
    return OpenExchanges(policy, lambda client: None, lambda seq, reason: None)


def make_flow(
    method: str = "GET",
    path: str = "/open/x",
    *headers: tuple[bytes, bytes],
    host: str = "api.example",
    port: int = 443,
    scheme: str = "https",
    host_header: bytes | None = b"",
    body: bytes | None = None,
    authority: str = "",
) -> http.HTTPFlow:
    """A request as the engine makes it. `host_header` b"" means that it names `host`; None: there is none."""
    fields = list(headers)
    if host_header is not None:
        named = host if port in (80, 443) else f"{host}:{port}"
        fields.insert(0, (b"Host", host_header or named.encode()))
    request = tutils.treq(
        method=method.encode("utf-8", "surrogateescape"),
        path=path.encode("utf-8", "surrogateescape"),
        host=host,
        port=port,
        scheme=scheme.encode(),
        authority=authority.encode(),
        headers=http.Headers(fields),
        content=body,
    )
    flow = tflow.tflow(req=request, resp=False)
    flow.client_conn.sni = host if scheme == "https" else None
    flow.client_conn.proxy_mode = tflow.tclient_conn().proxy_mode
    flow.live = True
    return flow


async def run(hooked: Any) -> None:
    """Wait for what a hook returned, if anything."""
    if hooked is not None:
        await hooked
