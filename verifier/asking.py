"""The relying party's side: asks a Verifier, and believes nothing that its key and the CA do not vouch for."""

from __future__ import annotations

import http.client
import secrets
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from ..certs.evidence_keys import EvidenceKeys
from ..formats import strict_json
from ..formats.errors import FormatError, LictorError, UsageError, VerificationError
from . import ear
from .ear import Profile, Result
from .pulling import Window
from .urls import https_address

ANSWER_S = 30.0
MAX_ANSWER = 1 << 20


class Unanswered(LictorError):
    """The Verifier could not be asked: nothing is known."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A verified result and the token that it is from."""

    result: Result
    token: str


def new_nonce() -> str:
    """128 random bits, as a text."""
    return secrets.token_urlsafe(16)


def ask(
    url: str,
    context: ssl.SSLContext,
    check_server: Callable[[bytes | None], str],
    ca_pem: bytes,
    agents: Sequence[str],
    now: Callable[[], float],
    nonce: str | None = None,
    profile: Profile = "ietf",
    fresh: bool = False,
    window: Window | None = None,
) -> Answer:
    """Ask the Verifier at `url` about `agents`, `fresh`: after it has asked the monitors, which for a `window` it does.

    `check_server` says who the server with a certificate (DER) is.

    Raises Unanswered, UsageError for a question that it does not take, VerificationError for an answer that does not
    hold: another key or Verifier, another nonce, not now, not about these agents.
    """
    host, port = https_address(url, "the Verifier's URL must be")
    asked: dict[str, Any] = {"agents": list(agents), "profile": profile, "fresh": fresh}
    if nonce:
        asked["nonce"] = nonce
    if window is not None:
        asked["window"] = {"start": window[0], "end": window[1]}
    connection = http.client.HTTPSConnection(host, port, context=context, timeout=ANSWER_S)
    try:
        connection.connect()
        verifier = check_server(connection.sock.getpeercert(True))
        jwks = _fetch(connection, "GET", "/jwks.json")
        token = _fetch(connection, "POST", "/appraise", orjson.dumps(asked)).decode("ascii", "replace")
    except (OSError, http.client.HTTPException) as e:
        raise Unanswered(f"the Verifier at {url} does not answer: {e}") from None
    finally:
        connection.close()
    return Answer(verify(token, jwks, ca_pem, verifier, agents, now(), nonce, window), token)


def verify(
    token: str,
    jwks: bytes,
    ca_pem: bytes,
    verifier: str,
    agents: Sequence[str],
    now: float | None,
    nonce: str | None,
    window: Window | None = None,
) -> Result:
    """A result that `verifier` gave about exactly these agents and this window. Raises VerificationError."""
    keys = EvidenceKeys(ca_pem)
    for jwk in _keys(jwks):
        keys.add_jwk(jwk)
    result = ear.verify(token, keys.resolve, now=now, nonce=nonce)
    if result.issuer != verifier:
        raise VerificationError(f"the result is of {result.issuer}, expected {verifier}")
    if set(result.submodules) != set(agents):
        raise VerificationError(f"the result is about {', '.join(result.submodules)}, not what was asked")
    asked = {"start": window[0], "end": window[1]} if window is not None else None
    for agent, one in result.submodules.items():
        if one.behavior.get("window") != asked:
            raise VerificationError(f"the result about {agent} is over the window {one.behavior.get('window')}")
    return result


def _keys(jwks: bytes) -> list[dict[str, Any]]:
    try:
        found = strict_json.loads_object(jwks).get("keys")
    except FormatError as e:
        raise VerificationError(f"the Verifier's keys cannot be read: {e}") from None
    if not isinstance(found, list) or not all(isinstance(jwk, dict) for jwk in found):
        raise VerificationError("the Verifier's keys are no JWK Set")
    return found


def _fetch(connection: http.client.HTTPSConnection, method: str, path: str, body: bytes | None = None) -> bytes:
    headers = {"Content-Type": "application/json"} if body is not None else {}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    data = answer.read(MAX_ANSWER + 1)
    if answer.status == 200 and len(data) <= MAX_ANSWER:
        return data
    said = data[:300].decode("utf-8", "replace").strip()
    if answer.status == 400:
        raise UsageError(f"the Verifier does not take the question: {said}")
    if answer.status == 403:
        raise VerificationError(f"the Verifier refuses: {said}")
    raise Unanswered(f"the Verifier answers {answer.status}: {said}")
