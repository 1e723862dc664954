"""How gRPC is told that a call has failed: by a status of its own, in a response of nothing but trailers.

With another HTTP status than 200 some clients show no message. The statuses are those of gRPC's own table.
"""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import quote

from mitmproxy import http

_PLAIN = " !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"  # grpc-message is percent-encoded but for these
_INVALID_ARGUMENT = 3
_STATUS = {
    HTTPStatus.FORBIDDEN: 7,  # PERMISSION_DENIED
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: 8,  # RESOURCE_EXHAUSTED
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: 8,
    HTTPStatus.BAD_GATEWAY: 14,  # UNAVAILABLE
    HTTPStatus.SERVICE_UNAVAILABLE: 14,
    HTTPStatus.GATEWAY_TIMEOUT: 14,
}


def is_grpc(request: http.Request) -> bool:
    """Whether the caller speaks gRPC, and reads its status and not HTTP's."""
    kind: str = request.headers.get("content-type", "").lower()
    return kind == "application/grpc" or kind.startswith(("application/grpc+", "application/grpc;"))


def failed(status: HTTPStatus, message: str) -> http.Response:
    """What a gRPC caller gets in place of an HTTP response of `status`."""
    response = http.Response.make(int(HTTPStatus.OK), b"")
    response.headers.fields = (
        (b"content-type", b"application/grpc"),
        (b"grpc-status", b"%d" % _STATUS.get(status, _INVALID_ARGUMENT)),
        (b"grpc-message", quote(message, safe=_PLAIN).encode("ascii")),
    )
    return response
