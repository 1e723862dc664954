"""By which way evidence goes and comes back: on the head of a message, in trailers, or apart from it.

On the head it is, unless a signature of the message covers a field that we would add to: such a message is left as it
came, and the evidence goes from monitor to monitor. An answer that is a stream has evidence twice: on its head, up to
its beginning, and about all of it once it has ended, in trailers if the caller's monitor takes them (`TE: trailers`),
else for it to fetch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mitmproxy import http

from ..bindings.facts import Classified
from ..bindings.model import ActionType, Decision, Verdict
from ..bindings.target import Target
from ..evidence.entry import Tokens
from ..formats import base64url, covering
from ..formats.errors import FormatError
from . import delegate

CARRIED = frozenset(
    name.lower() for name in (delegate.EXECUTION_CONTEXT, delegate.BEHAVIORAL_EVIDENCE, delegate.CHECKPOINT)
)
"""The fields that monitors add lines to."""
_HOPS = frozenset(("te", "connection"))
SIGNATURE_DOUBTFUL = "signature_doubtful"
NOT_DELIVERABLE = "evidence_not_deliverable"
NOT_DELIVERED = "evidence_not_delivered"
NOT_DELIVERED_HINT = (
    "The evidence for this delegation could not be handed over to that agent's monitor, so nothing was sent. Sign the "
    "request anew and try again; if that does not help, the outcome in your operator's log says why."
)
_IDENTIFIED_BY = (*covering.SIGNED_BY, covering.IDENTITY, *sorted(CARRIED))
_BODILESS = frozenset((204, 304))

Judged = Sequence[tuple[Classified, Decision]]


@dataclass(frozen=True, slots=True)
class WayBack:
    """Of an answer: evidence on its head or not, and at its end in trailers, left to be fetched, or none."""

    head: bool
    end: Literal["", "trailers", "fetch"]


@dataclass(slots=True)
class Carriage:
    """How the evidence of one delegation travels. `apart` is the request's digest if it must be left as it came.

    `passes`: whether who asks takes trailers himself. Going out: `target` is whom the work is for, `asks` says whether
    the request may say that trailers are taken. Coming in: `brought` are the nodes that came, `back` is the way of the
    answer once there is one.
    """

    apart: str = ""
    asks: bool = True
    passes: bool = False
    brought: tuple[str, ...] = ()
    back: WayBack | None = None
    target: Target | None = None

    @property
    def monitored(self) -> bool:
        """Whether a monitor of ours stands before the agent that the work is for."""
        return self.target is not None and self.target.agent_id is not None


def is_signed(headers: http.Headers) -> bool:
    """Whether anything in the head may be a signature that covers other fields."""
    return any(name in headers for name in covering.SIGNED_BY)


def way_there(request: http.Request) -> Carriage:
    """How evidence goes along with a request whose body was read. Raises FormatError for a doubtful signature."""
    passes = takes_trailers(request)
    if not is_signed(request.headers):
        return Carriage(passes=passes)
    covered = covering.covered_by_request(_lines(request.headers))
    ours = covered & CARRIED
    for name in sorted(ours):
        if name not in request.headers:
            raise FormatError(f"a signature covers {name}, which the request does not have")
    return Carriage(request_digest(request) if ours else "", not ours and covered.isdisjoint(_HOPS), passes)


def request_digest(request: http.Request) -> str:
    """What a signed request is known by at both monitors: method, target, signatures, evidence lines, and body."""
    hashed = hashlib.sha256(b"lictor-delivery/1")
    parts = [request.data.method, request.data.path]
    for name in _IDENTIFIED_BY:
        lines = [value for field, value in request.headers.fields if field.lower() == name.encode()]
        parts += [name.encode(), str(len(lines)).encode(), *lines]
    for part in (*parts, request.raw_content or b""):
        hashed.update(len(part).to_bytes(8) + part)
    return base64url.encode(hashed.digest())


def choose(request: http.Request, judged: Judged) -> tuple[Carriage, Judged]:
    """The way of a delegation that is let out, and what is then recorded of it; denied where there is no way."""
    try:
        carriage = way_there(request)
    except FormatError as e:
        return Carriage(), _denied(judged, SIGNATURE_DOUBTFUL, doubtful(e))
    carriage.target = next(
        (action.catalog_target for action, _ in judged if action.type == ActionType.DELEGATION), None
    )
    if not carriage.apart:
        return carriage, judged
    if carriage.target is None or carriage.target.evidence is None:
        text = (
            "A signature covers Execution-Context or Behavioral-Evidence, so no evidence can be added. Leave these out "
            "of it, or ask your operator to name `evidence` and `monitor` of this target in the catalog."
        )
        return Carriage(), _denied(judged, NOT_DELIVERABLE, text)
    return carriage, [(delivered(action), decision) for action, decision in judged]


def doubtful(error: FormatError) -> str:
    """What the agent is told about a signature that cannot be read."""
    return f"Whether a signature covers what has to be added cannot be told: {error}. Sign the request anew, or not."


def _denied(judged: Judged, reason: str, text: str) -> Judged:
    return [(action, Decision(Verdict.DENY, reason, said.behaviors, text)) for action, said in judged]


def delivered(action: Classified) -> Classified:
    """The action, saying of a delegation that its evidence went apart from it."""
    if action.type != ActionType.DELEGATION:
        return action
    return replace(action, parameters={**action.parameters, "evidence_by": "delivery"})


def ask_for_trailers(request: http.Request) -> None:
    """Say that this monitor takes trailers (RFC 9110 section 10.1.4), where there can be any."""
    if request.http_version != "HTTP/1.0" and not takes_trailers(request):
        request.headers["te"] = "trailers"
        if not request.is_http2:
            request.headers.add("connection", "TE")


def takes_trailers(request: http.Request) -> bool:
    """Whether whoever sent the request takes trailers in the answer; HTTP/1.0 has none (RFC 9112 section 6.1)."""
    if request.http_version == "HTTP/1.0":
        return False
    return any(part.strip().lower() == "trailers" for part in request.headers.get("te", "").split(","))


def is_streamed(request: http.Request, response: http.Response) -> bool:
    """An answer that does not say how long it is."""
    bodiless = request.method == "HEAD" or response.status_code < 200 or response.status_code in _BODILESS
    return not bodiless and "content-length" not in response.headers


def way_back(request: http.Request, response: http.Response) -> WayBack:
    """How evidence comes back with the answer of the local agent. One that is doubtful is left as it is."""
    try:
        covered = covering.covered_by_response(_lines(response.headers)) if is_signed(response.headers) else frozenset()
    except FormatError:
        covered = CARRIED
    if not covered.isdisjoint(CARRIED):
        return WayBack(False, "fetch")
    if not is_streamed(request, response):
        return WayBack(True, "")
    coding = response.headers.get("transfer-encoding", "chunked").lower()
    chunked = response.http_version == "HTTP/1.1" and coding == "chunked" and "transfer-encoding" not in covered
    return WayBack(True, "trailers" if chunked and takes_trailers(request) else "fetch")


def lacks_evidence(carriage: Carriage, flow: http.HTTPFlow, came: Mapping[str, object]) -> bool:
    """Whether the monitor of an agent that took the work has more to say of its answer than what `came`."""
    if flow.response is None or not carriage.monitored or "last_evidence" in came:
        return False
    if flow.response.status_code >= 400 and not came:
        return False  # refused: the work was not taken up
    way = way_back(flow.request, flow.response)
    return not way.head or "peer_bet" not in came or is_streamed(flow.request, flow.response)


def fetched_from(carriage: Carriage | None) -> str:
    """The target whose monitor can be asked for evidence that did not come, "" if there is none."""
    target = carriage.target if carriage is not None else None
    return target.urn if target is not None and target.evidence is not None else ""


def put_in_trailers(flow: http.HTTPFlow, tokens: Tokens) -> None:
    """Evidence about all of a stream, after it."""
    assert flow.response is not None
    trailers = flow.response.trailers or http.Headers()
    delegate.attach_tokens(trailers, tokens.execution_context, tokens.behavioral_evidence)
    flow.response.trailers = trailers


def take_from_trailers(response: http.Response) -> http.Headers:
    """Evidence that came after a stream; it is no longer there."""
    found = http.Headers()
    if response.trailers:
        of_monitors: dict[bool, list[tuple[bytes, bytes]]] = {True: [], False: []}
        for field in response.trailers.fields:
            of_monitors[field[0].decode("latin-1").lower() in CARRIED].append(field)
        found = http.Headers(of_monitors[True])
        response.trailers = http.Headers(of_monitors[False]) or None
    return found


def _lines(headers: http.Headers) -> covering.Lines:
    return {name: headers.get_all(name) for name in covering.SIGNED_BY}
