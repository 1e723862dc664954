"""Evidence on the wire: the headers that carry ECTs and BETs. Lines that came in are never rewritten, only added to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from mitmproxy import http

from ..evidence import witnessed
from ..evidence.entry import Receipt, Tokens
from ..formats import base64url

EXECUTION_CONTEXT = "Execution-Context"
BEHAVIORAL_EVIDENCE = "Behavioral-Evidence"
CHECKPOINT = witnessed.HEADER


def attach_evidence(headers: http.Headers, receipts: Iterable[Receipt]) -> None:
    """Add the caller's nodes and BETs to a delegated request, and who witnessed the log that they rest on."""
    for receipt in receipts:
        attach_tokens(headers, receipt.execution_context, receipt.behavioral_evidence)
        for line in receipt.checkpoint:
            headers.add(CHECKPOINT, line)


def tokens_of(receipts: Sequence[Receipt]) -> Tokens:
    """The same, for a request that must not be touched."""
    return Tokens(
        tuple(line for receipt in receipts for line in receipt.execution_context),
        tuple(line for receipt in receipts for line in receipt.behavioral_evidence),
        tuple(line for receipt in receipts for line in receipt.checkpoint),
    )


def attach_tokens(headers: http.Headers, nodes: Iterable[str], bets: Iterable[str]) -> None:
    """Add one line for each token."""
    for name, tokens in ((EXECUTION_CONTEXT, nodes), (BEHAVIORAL_EVIDENCE, bets)):
        for token in tokens:
            headers.add(name, token)


def joined(first: Mapping[str, object], then: Mapping[str, Sequence[str]]) -> dict[str, object]:
    """Digests of what came at the beginning and at the end."""
    found: dict[str, object] = dict(first)
    for name, lines in then.items():
        before = first.get(name, ())
        assert isinstance(before, Sequence)
        known = frozenset(before)
        found[name] = [*before, *(line for line in lines if line not in known)]
    return found


def digests(headers: http.Headers) -> dict[str, list[str]]:
    """SHA-256 of each evidence line of a response, for the outcome entry: what the other side claimed, held to it."""
    return digests_of(headers.get_all(EXECUTION_CONTEXT), headers.get_all(BEHAVIORAL_EVIDENCE))


def digests_of(nodes: Sequence[str], bets: Sequence[str]) -> dict[str, list[str]]:
    """The same of tokens."""
    return {
        field: [base64url.encode(hashlib.sha256(line.encode()).digest()) for line in lines]
        for field, lines in (("peer_ect", nodes), ("peer_bet", bets))
        if lines
    }
