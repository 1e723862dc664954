"""What gRPC callers are told."""

from __future__ import annotations

from http import HTTPStatus

import pytest
from mitmproxy import http

from lictor.engine.grpc_status import failed, is_grpc


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("application/grpc", True),
        ("application/grpc+proto", True),
        ("Application/GRPC; charset=utf-8", True),
        ("application/grpc-web", False),
        ("application/grpcx", False),
        ("application/json", False),
        ("", False),
    ],
)
def test_who_speaks_it(kind: str, expected: bool) -> None:
    request = http.Request.make("POST", "https://a.example/", headers={"content-type": kind})
    assert is_grpc(request) is expected


@pytest.mark.parametrize(("status", "told"), [(403, b"7"), (413, b"8"), (503, b"14"), (502, b"14"), (400, b"3")])
def test_a_failure_is_trailers_only(status: int, told: bytes) -> None:
    response = failed(HTTPStatus(status), "100 % no\nä")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers.fields == (
        (b"content-type", b"application/grpc"),
        (b"grpc-status", told),
        (b"grpc-message", b"100 %25 no%0A%C3%A4"),
    )
