"""What an action used, as its outcome says: octets, and of a model the tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_COUNT = 1 << 53


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the answer of a model states."""

    model: str
    input: int
    output: int


@dataclass(frozen=True, slots=True)
class Used:
    """Octets of request and response bodies. `tokens` None: not stated. `failed`: the answer was an error, or none."""

    sent: int = 0
    received: int = 0
    tokens: Tokens | None = None
    failed: bool = False

    @property
    def size(self) -> int:
        """Octets in both directions."""
        return self.sent + self.received


def used_of(outcome: Mapping[str, Any]) -> Used:
    """From the member `outcome` of an outcome's entry, whoever wrote it: what is no count is taken for not stated."""
    sent, received = (_count(outcome.get(name, 0)) or 0 for name in ("request_bytes", "response_bytes"))
    status = outcome.get("status")
    failed = type(status) is not int or not 0 < status < 400
    return Used(sent, received, _tokens(outcome.get("usage")), failed)


def _tokens(usage: Any) -> Tokens | None:
    if not isinstance(usage, Mapping):
        return None
    model, counts = usage.get("model"), [_count(usage.get(name)) for name in ("input_tokens", "output_tokens")]
    if not isinstance(model, str) or counts[0] is None or counts[1] is None:
        return None
    return Tokens(model, counts[0], counts[1])


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= MAX_COUNT else None
