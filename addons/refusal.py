"""How a refusal reads: RFC 9457 problem details, RFC 9209 Proxy-Status, a JSON-RPC error for JSON-RPC callers.

It names the reason, the behavior and the entry, says what to do instead, and carries signed evidence; it never lists
what a policy allows.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson
from mitmproxy import http

from ..bindings.model import ActionType, BehaviorResult
from ..engine.grpc_status import failed

_UNPRINTABLE = re.compile(rb"[^ -~]")
JSONRPC_REFUSED = -32010  # of the range for implementations; A2A owns -32001 to -32009, MCP -32020 to -32099
_NOT_POLICY = {
    "monitor_error": (HTTPStatus.SERVICE_UNAVAILABLE, "proxy_internal_error"),
    "overloaded": (HTTPStatus.SERVICE_UNAVAILABLE, "proxy_internal_error"),
    "body_too_large": (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "http_request_error"),
    "head_too_large": (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "http_request_error"),
    "misdirected_request": (HTTPStatus.MISDIRECTED_REQUEST, "http_request_error"),
    "head_timeout": (HTTPStatus.REQUEST_TIMEOUT, "http_request_error"),
    "body_timeout": (HTTPStatus.REQUEST_TIMEOUT, "http_request_error"),
    "address_refused": (HTTPStatus.FORBIDDEN, "destination_ip_prohibited"),
    "unparsable_answer": (HTTPStatus.BAD_GATEWAY, "http_protocol_error"),
    "name_not_resolved": (HTTPStatus.BAD_GATEWAY, "dns_error"),
}
_BAD_REQUEST = frozenset(
    (
        "ambiguous_member",
        "ambiguous_model",
        "ambiguous_operation",
        "ambiguous_path",
        "ambiguous_query",
        "ambiguous_uri",
        "bad_batch",
        "bad_method",
        "bad_name",
        "bad_push_url",
        "doubtful_header",
        "doubtful_name",
        "encoded_body",
        "header_mismatch",
        "invalid_request",
        "method_not_supported",
        "name_mismatch",
        "not_graphql",
        "not_json_rpc",
        "too_many_frames",
        "unasked_answer",
        "unparsable_body",
        "unreadable_request",
        "unsupported_scheme",
    )
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an action was refused. `seq` is the entry that says so, or None where nothing could be recorded."""

    monitor_id: str
    reason: str
    hint: str
    action_type: str = ""
    action_target: str = ""
    seq: int | None = None
    behavior: BehaviorResult | None = None
    evidence: tuple[str, ...] = ()

    @property
    def status(self) -> HTTPStatus:
        if self.reason in _NOT_POLICY:
            return _NOT_POLICY[self.reason][0]
        return HTTPStatus.BAD_REQUEST if self.reason in _BAD_REQUEST else HTTPStatus.FORBIDDEN

    @property
    def error_type(self) -> str:
        """The Proxy-Status error type (RFC 9209 section 2.3)."""
        if self.reason in _NOT_POLICY:
            return _NOT_POLICY[self.reason][1]
        return "http_request_error" if self.reason in _BAD_REQUEST else "http_request_denied"

    def problem(self) -> dict[str, Any]:
        """The problem details object (RFC 9457)."""
        problem: dict[str, Any] = {
            "type": f"urn:lictor:refusal:{self.reason}",
            "title": "Refused by the runtime monitor",
            "status": int(self.status),
            "detail": self.hint,
            "reason": self.reason,
            "monitor": self.monitor_id,
        }
        if self.action_target:
            problem |= {"action_type": self.action_type, "action_target": self.action_target}
        if self.behavior is not None:
            problem |= {"policy_id": self.behavior.policy_id, "behavior_id": self.behavior.behavior_id}
        if self.seq is not None:
            problem["entry"] = self.seq
        return problem

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Proxy-Status and the signed evidence."""
        name = self.monitor_id.rpartition("/")[2]
        details = f"{self.reason}" + (f"; entry {self.seq}" if self.seq is not None else "")
        status = f'lictor-{name}; error={self.error_type}; details="{details}"'
        fields = [(b"Proxy-Status", status.encode("ascii", "replace")), (b"Cache-Control", b"no-store")]
        return fields + [(b"Behavioral-Evidence", token.encode("ascii")) for token in self.evidence]

    def response(self) -> http.Response:
        """The refusal as an HTTP response."""
        problem = self.problem()
        if self.action_type == ActionType.MODEL_INFERENCE:
            # Where the clients of model APIs look for the sentence that they show.
            problem["error"] = {"type": "refused", "code": self.reason, "message": f"refused by lictor: {self.hint}"}
        body = orjson.dumps(problem, option=orjson.OPT_INDENT_2) + b"\n"
        fields = [(b"Content-Type", b"application/problem+json"), *self.headers()]
        return _response(self.status, body, fields, self._reason_phrase())

    def grpc(self) -> http.Response:
        """The refusal as gRPC callers read it; evidence and reason are among their trailing metadata."""
        response = failed(self.status, self._reason_phrase().decode("ascii"))
        response.headers.fields += tuple(self.headers())
        return response

    def _reason_phrase(self) -> bytes:
        # Most clients show nothing of a refused CONNECT but this phrase, so it says what happened and where to look.
        entry = f", entry {self.seq}" if self.seq is not None else ""
        phrase = f"{self.status.phrase}: lictor refused ({self.reason}{entry}). {self.hint}"
        # Hints quote what agents sent: nothing of that may end the line.
        return _UNPRINTABLE.sub(b"?", phrase.encode("ascii", "replace")[:400])

    def jsonrpc(self, ids: list[Any], batch: bool) -> http.Response:
        """The refusal as a JSON-RPC error for each id, with the same HTTP status: MCP clients read both."""
        error = {"code": JSONRPC_REFUSED, "message": f"refused by lictor: {self.hint}", "data": self.problem()}
        members = [{"jsonrpc": "2.0", "id": i, "error": error} for i in ids]
        body = json.dumps(members if batch else members[0]).encode()  # ids as they came, also beyond 64 bits
        fields = [(b"Content-Type", b"application/json"), *self.headers()]
        return _response(self.status, body, fields, self._reason_phrase())


def _response(status: HTTPStatus, body: bytes, fields: list[tuple[bytes, bytes]], phrase: bytes) -> http.Response:
    response = http.Response.make(int(status), body, http.Headers(fields))
    response.data.reason = phrase
    return response
