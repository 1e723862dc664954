"""What classification works on: a request in canonical parts, and an action that it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..formats import strict_json
from ..formats.errors import LictorError
from ..formats.names import url_text
from .model import ActionType
from .target import Target


class Unclassifiable(LictorError):
    """The request cannot be mapped to actions, so it is denied. `reason` is machine-readable."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """A request in canonical parts (`formats.names`). Header names are lower case; `body` None means not read."""

    method: str
    scheme: str
    host: str
    port: int
    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None

    def header(self, name: str) -> list[str]:
        """All values of a header, in order."""
        return [value.strip() for other, value in self.headers if other == name]

    @property
    def url(self) -> str:
        """The URL without the query, canonical."""
        return url_text(self.scheme, self.host, self.port, self.path)


@dataclass(frozen=True, slots=True)
class Classified:
    """One action that a request is. `rpc`: the caller speaks JSON-RPC, and a refusal answers with `rpc_id`."""

    type: ActionType
    target: str
    parameters: dict[str, Any] = field(default_factory=dict)
    rpc_id: strict_json.JSON = None
    rpc: bool = False
    catalog_target: Target | None = None
    content: dict[str, Any] | None = None
