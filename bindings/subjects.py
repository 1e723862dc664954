"""Which agents a binding applies to: SPIFFE IDs, exact or with `/*` at the end for everything below."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..formats.errors import FormatError, UsageError
from ..formats.spiffe import SpiffeId, is_named
from .model import Binding


def check_subject(pattern: str) -> str:
    """Return the pattern. Raises UsageError unless it is a SPIFFE ID or `spiffe://<trust domain>[/path]/*`."""
    exact = pattern[:-1] + "x" if pattern.endswith("/*") else pattern
    try:
        SpiffeId.parse(exact)
    except FormatError:
        raise UsageError(
            f"the subject {pattern!r} is not a SPIFFE ID (spiffe://<trust domain>/<path>, or /* at its very end)"
        ) from None
    return pattern


def applies_to(subjects: tuple[str, ...], agent_id: str) -> bool:
    """No subjects mean every agent. `/*` stands for one path segment or more: no SPIFFE ID ends with a slash."""
    return not subjects or is_named(subjects, agent_id)


def for_agents_of(trust_domain: str, bindings: Iterable[Binding]) -> tuple[Binding, ...]:
    """Bindings without subjects, for every agent of this trust domain only: those of another must be named."""
    everybody = (f"spiffe://{trust_domain}/*",)
    return tuple(binding if binding.subjects else replace(binding, subjects=everybody) for binding in bindings)
