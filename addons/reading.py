"""What is known of an MCP server's answer while it is read (`answers`)."""

from __future__ import annotations

from dataclasses import dataclass

from ..bindings.target import Target
from ..formats.sse import Splitter
from .request_ids import RequestIds


@dataclass(slots=True)
class Reading:
    """One answer. `seals`: the revision has requests of servers, which have `ids`. Read by `events`, or `whole`."""

    target: Target
    ids: RequestIds
    seals: bool
    events: Splitter | None = None
    whole: bool = False
