"""The protocols that a target may speak, each by the name that its `protocol` has in the configuration."""

from __future__ import annotations

from typing import Protocol

from ..facts import Classified, RequestFacts
from ..target import Kind, Target
from .a2a import A2a
from .anthropic import ANTHROPIC
from .graphql import GraphQl
from .http import Http
from .mcp import Mcp
from .openai import OPENAI


class Classifier(Protocol):
    """From requests to a target that speaks one protocol to actions. Has no state and does no I/O."""

    kinds: tuple[Kind, ...]
    """The kinds that such a target can have."""
    inside: tuple[str, ...]
    """How the names of what is inside of such a target begin, after the `#`; "": as they like."""

    def needs_body(self, method: str) -> bool:
        """Must the whole body of a request with this HTTP method be read to tell its actions?"""

    def classify(self, target: Target, facts: RequestFacts) -> tuple[Classified, ...]:
        """The actions that a request is, at least one, in the order of the body. Raises Unclassifiable."""


PROTOCOLS: dict[str, Classifier] = {
    "http": Http(),
    "mcp": Mcp(),
    "a2a": A2a(),
    "openai": OPENAI,
    "anthropic": ANTHROPIC,
    "graphql": GraphQl(),
}
