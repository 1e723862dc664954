"""Agents that sign what they send and verify what they get (RFC 9421), by a library that knows nothing of us."""

from __future__ import annotations

import hashlib
import http.server
import json
import time
import uuid
from dataclasses import dataclass
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import ed25519
from http_message_signatures import HTTPMessageSigner, HTTPMessageVerifier, algorithms
from http_message_signatures.exceptions import HTTPMessageSignaturesException
from http_message_signatures.resolvers import HTTPSignatureKeyResolver

from lictor.formats import base64url, jws
from lictor.formats.keys import KeySigner

WIMSE = ("@method", "@request-target", "content-type", "execution-context")
KEY = ed25519.Ed25519PrivateKey.generate()


class Keys(HTTPSignatureKeyResolver):
    def resolve_private_key(self, key_id: str) -> ed25519.Ed25519PrivateKey:
        return KEY

    def resolve_public_key(self, key_id: str) -> ed25519.Ed25519PublicKey:
        return KEY.public_key()


class Fields:
    """Header fields, every line of them, as the library wants to read them."""

    def __init__(self, lines: list[tuple[str, str]]) -> None:
        self.lines = lines

    def items(self) -> list[tuple[str, str]]:
        return self.lines

    def __iter__(self) -> Any:
        return iter([name for name, _ in self.lines])


@dataclass
class Message:
    """A request as it arrived."""

    method: str
    url: str
    headers: Fields


def sign(request: httpx.Request, *covered: str, nonce: str | None = None) -> httpx.Request:
    """Sign it, its body too."""
    signer = HTTPMessageSigner(signature_algorithm=algorithms.ED25519, key_resolver=Keys())
    body = request.read()
    signer.sign(
        request, key_id="k", label="wimse", covered_component_ids=covered or WIMSE, nonce=nonce, tag="wimse", body=body
    )
    return request


def problem_with(handler: http.server.BaseHTTPRequestHandler, body: bytes) -> str:
    """What the agent behind a monitor finds wrong with the signature of a request; "" if nothing."""
    lines = list(handler.headers.items())
    message = Message(handler.command, f"https://{handler.headers['host']}{handler.path}", Fields(lines))
    verifier = HTTPMessageVerifier(signature_algorithm=algorithms.ED25519, key_resolver=Keys())
    try:
        verifier.verify(message, body=body)
    except HTTPMessageSignaturesException as e:
        return f"{type(e).__name__}: {e}"
    return ""


def proof(**others: str) -> str:
    """A workload proof token (WIMSE) whose `oth` holds hashes of header fields."""
    hashes = {name.replace("_", "-"): digest(value) for name, value in others.items()}
    claims = {
        "aud": "https://127.0.0.1/",
        "exp": int(time.time()) + 60,
        "jti": "j",
        "wth": digest("wit"),
        "oth": hashes,
    }
    return jws.sign_compact({"typ": "wpt+jwt"}, json.dumps(claims).encode(), KeySigner.of(KEY))


def handed_on() -> str:
    """An `Execution-Context` line that an agent got from somewhere and hands on."""
    claims = {"iss": "spiffe://other.test/monitor/x", "jti": str(uuid.uuid4())}
    return jws.sign_compact({"typ": "exec+jwt"}, json.dumps(claims).encode(), KeySigner.of(KEY))


def digest(value: str) -> str:
    return base64url.encode(hashlib.sha256(value.encode()).digest())
