"""Ids of requests that a server makes of an agent, sealed when they are let in, opened when the agent answers.

So an answer is recognised by any worker, without memory, and one to a request that was never let in has no seal. The
seal is for one agent, one target and one session.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..bindings.facts import Classified, Unclassifiable
from ..bindings.target import Target
from ..formats import base64url
from ..formats.errors import FormatError

_SEALED = re.compile(r"lictor\.([A-Za-z0-9_-]{22})\.([A-Za-z0-9_-]{1,2048})")


@dataclass(frozen=True, slots=True)
class RequestIds:
    """`key` is a secret that all workers share."""

    key: bytes
    agent_id: str
    urn: str
    session: str

    def sealed(self, request_id: Any) -> str:
        """The id under which the agent sees a request: one text in every JSON writer's spelling."""
        text = json.dumps(request_id).encode()
        return f"lictor.{self._seal(text)}.{base64url.encode(text)}"

    def opened(self, sealed: Any) -> bytes | None:
        """The JSON of the server's own id; None if no request was let in under this one."""
        found = _SEALED.fullmatch(sealed) if isinstance(sealed, str) else None
        if found is None:
            return None
        try:
            text = base64url.decode(found[2])
        except FormatError:
            return None
        return text if hmac.compare_digest(found[1], self._seal(text)) else None

    def _seal(self, text: bytes) -> str:
        about = json.dumps(["mcp request id", self.agent_id, self.urn, self.session]).encode() + b"\n" + text
        return base64url.encode(hmac.digest(self.key, about, hashlib.sha256)[:16])


def ids_of(salt: bytes, agent_id: str, target: Target, session: str) -> RequestIds:
    """The ids of one agent's session with a target."""
    return RequestIds(salt, agent_id, target.urn, session)


def open_answers(salt: bytes, agent_id: str, session: str, actions: Iterable[Classified], body: bytes) -> bytes:
    """The body with the server's own ids where the agent answers its requests. Raises Unclassifiable for any other."""
    for action in actions:
        target = action.catalog_target
        if target is None or target.protocol != "mcp" or not action.rpc or action.parameters["rpc_method"]:
            continue
        own = ids_of(salt, agent_id, target, session).opened(action.rpc_id)
        sealed = f'"{action.rpc_id}"'.encode()
        if own is None or body.count(sealed) != 1:
            raise Unclassifiable("unasked_answer", "this answers no request of the server that was let in")
        body = body.replace(sealed, own)
    return body
