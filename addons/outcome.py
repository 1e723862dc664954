"""How it ended: status, byte counts, digests and duration, counted while the bytes pass."""

from __future__ import annotations

import time
from collections.abc import Mapping

from mitmproxy import http

from ..evidence.entry import OutcomeDraft
from . import delegate, ways
from .exchange import Control, Exchange, ReadTally, Tally, exchange_of
from .open_exchanges import OpenExchanges

BUFFERED = 64 * 1024
"""Responses of a known length up to this many bytes are passed on in one piece; others as they come."""


class Outcome:
    """Records an outcome entry for every permitted request."""

    def __init__(self, control: Control, open_exchanges: OpenExchanges) -> None:
        self._control = control
        self._open = open_exchanges

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        exchange = exchange_of(flow)
        if exchange is None or exchange.refused or flow.response is None:
            return
        if not exchange.inbound:
            if exchange.delegated:
                exchange.peer_evidence.update(delegate.digests(flow.response.headers))
            elif delegate.BEHAVIORAL_EVIDENCE in flow.response.headers:
                # Only a monitor's word counts here: an origin must not be able to fake a refusal's evidence.
                del flow.response.headers[delegate.BEHAVIORAL_EVIDENCE]
        usage = exchange.usage
        tally = exchange.response_tally = Tally(exchange.salt) if usage is None else ReadTally(exchange.salt, usage)
        if exchange.reading is None and not short(flow.response.headers):

            def count(chunk: bytes) -> bytes:
                tally.update(chunk)
                return chunk

            flow.response.stream = count

    def response(self, flow: http.HTTPFlow) -> None:
        exchange = exchange_of(flow)
        if flow.response is not None and flow.response.trailers:
            self._read_trailers(flow.response, exchange)
        if exchange is None or exchange.permit is None or flow.response is None or flow.websocket is not None:
            return
        if not flow.response.stream and exchange.response_tally is not None:
            exchange.response_tally.update(flow.response.raw_content or b"")
        if exchange.carriage is not None and ways.lacks_evidence(exchange.carriage, flow, exchange.peer_evidence):
            exchange.peer_evidence["last_evidence"] = "missing"
        self.send(exchange, flow.response.status_code, complete=True, error=None)

    def _read_trailers(self, response: http.Response, exchange: Exchange | None) -> None:
        """What an agent's monitor says after a stream. Nobody else's word counts; who takes trailers gets it."""
        came = ways.take_from_trailers(response)
        carriage = exchange.carriage if exchange is not None and not exchange.inbound else None
        if exchange is None or carriage is None or not came:
            return
        exchange.peer_evidence = delegate.joined(exchange.peer_evidence, delegate.digests(came))
        exchange.peer_evidence["last_evidence"] = "trailers"
        if carriage.passes:
            response.trailers = http.Headers((*(response.trailers or http.Headers()).fields, *came.fields))

    def error(self, flow: http.HTTPFlow) -> None:
        exchange = exchange_of(flow)
        if exchange is None or exchange.permit is None:
            return
        status = flow.response.status_code if flow.response is not None else 0
        self.send(exchange, status, complete=False, error=str(flow.error)[:200])

    def send(
        self,
        exchange: Exchange,
        status: int,
        *,
        complete: bool,
        error: str | None,
        more: Mapping[str, object] | None = None,
    ) -> None:
        """Record the outcome, once, with `more`. If the monitor ended the exchange, that is what the error says."""
        if exchange.outcome_sent:
            return
        exchange.outcome_sent = True
        self._open.leave(exchange)
        if not complete:
            error = exchange.ended_by or error
        outcome: dict[str, object] = {
            "status": status,
            "complete": complete,
            "duration_ms": round((time.monotonic() - exchange.started) * 1000),
            **exchange.peer_evidence,
        }
        for side, tally in (("request", exchange.request_tally), ("response", exchange.response_tally)):
            outcome[f"{side}_bytes"] = tally.size if tally is not None else 0
            if tally is not None and tally.size:
                outcome[f"{side}_digest"] = tally.digest()
        if exchange.usage is not None:
            outcome |= exchange.usage.stated(complete)
        if more is not None:
            outcome |= more
        if error is not None:
            outcome["error"] = error
        fetched = ways.fetched_from(exchange.carriage) if outcome.get("last_evidence") == "missing" else ""
        for receipt in exchange.receipts:
            fetch = (fetched, receipt.node) if fetched and receipt.execution_context else None
            self._control.record_outcome(OutcomeDraft(receipt.seq, outcome), fetch)


def short(headers: http.Headers) -> bool:
    """A response that says it is at most BUFFERED bytes long."""
    length = headers.get("content-length", "")
    return length.isdecimal() and int(length) <= BUFFERED
