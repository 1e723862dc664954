"""Evidence on the wire: the headers that carry ECTs and BETs. Lines that came in are never rewritten, only added to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from mitmproxy import http

from ..evidence import witnessed
from ..evidence.entry import Receipt
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


def attach_tokens(headers: http.Headers, nodes: Iterable[str], bets: Iterable[str]) -> None:
    """Add one line for each token."""
    for name, tokens in ((EXECUTION_CONTEXT, nodes), (BEHAVIORAL_EVIDENCE, bets)):
        for token in tokens:
            headers.add(name, token)


def digests(headers: http.Headers) -> dict[str, list[str]]:
    """SHA-256 of each evidence line of a response, for the outcome entry: what the other side claimed, held to it."""
    return {
        field: [base64url.encode(hashlib.sha256(line.encode()).digest()) for line in lines]
        for field, name in (("peer_ect", EXECUTION_CONTEXT), ("peer_bet", BEHAVIORAL_EVIDENCE))
        if (lines := headers.get_all(name))
    }
