"""The addresses that a configuration listens on, and who may give orders there."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..formats.errors import UsageError
from ..formats.settings import address, spiffe_id

ORDERS = frozenset(("quarantine", "release", "decide", "revoke", "revoke_delegation", "hold", "unhold", "bet"))
"""What may be ordered from afar."""
_EVERYWHERE = {"0.0.0.0", "::"}  # noqa: S104


@dataclass(frozen=True, slots=True)
class Listen:
    """Addresses as (host, port). Without `ingress` the monitor fronts no agent, without `api` it serves no log.

    `orders_allowed`: the SPIFFE IDs that orders are taken from on `orders`, and which each may give. On `evidence`
    other monitors bring and fetch what they cannot put on requests and responses.
    """

    egress: tuple[str, int]
    ingress: tuple[str, int] | None
    api: tuple[str, int] | None
    orders: tuple[str, int] | None = None
    orders_allowed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    evidence: tuple[str, int] | None = None

    def named(self) -> dict[str, tuple[str, int]]:
        """All addresses that are listened on, by their keys."""
        names = "egress", "ingress", "api", "orders", "evidence"
        given = {name: getattr(self, name) for name in names}
        return {name: address for name, address in given.items() if address is not None}


def listening(document: Mapping[str, Any]) -> Listen:
    """From a configuration whose form is checked. Raises UsageError."""
    found = {name: address(text, f"listen.{name}") for name, text in document["listen"].items()}
    # Workers share their ports, so one port for two listeners would not fail: it would serve each of them now and then.
    for (name, (host, port)), (other, (other_host, other_port)) in itertools.combinations(found.items(), 2):
        if port == other_port and (host == other_host or {host, other_host} & _EVERYWHERE):
            raise UsageError(f"listen.{name} and listen.{other} are both on port {port}: give each a port of its own")
    if "evidence" in found and "ingress" not in found:
        raise UsageError("listen.evidence is about work that comes in by listen.ingress, which is missing")
    if ("orders" in found) != ("orders" in document):
        raise UsageError("listen.orders and the section [orders] go together; one of them is missing")
    accepted = _allowed(document.get("orders", {}))
    where = found["egress"], found.get("ingress"), found.get("api"), found.get("orders")
    return Listen(*where, accepted, found.get("evidence"))


def _allowed(table: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    allowed = {spiffe_id(text, "orders.from"): ORDERS for text in table.get("from", ())}
    for text, names in table.get("allow", {}).items():
        caller = spiffe_id(text, "orders.allow")
        if caller in allowed:
            raise UsageError(f"orders: {caller} is in `from`, which lets it give every order, and in `allow`")
        allowed[caller] = frozenset(names)
    return allowed
