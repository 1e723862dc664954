"""The relying party's side: asks a Verifier, and believes nothing that its key and the CA do not vouch for."""

from __future__ import annotations

import http.client
import secrets
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jsonschema_rs
import orjson

from ...certs.evidence_keys import EvidenceKeys
from ...certs.servers import ExpectedServer, why_not
from ...formats import strict_json
from ...formats.errors import FormatError, LictorError, UsageError, VerificationError
from ..urls import https_address
from . import ear
from .api import validator
from .ear import Profile, Result
from .pulling import Window

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
    server: ExpectedServer,
    agents: Sequence[str],
    now: Callable[[], float],
    nonce: str | None = None,
    profile: Profile = "ietf",
    fresh: bool = False,
    window: Window | None = None,
) -> Answer:
    """Ask the Verifier at `url` about `agents`, `fresh`: after it has asked the monitors, which for a `window` it does.

    Raises Unanswered, UsageError for a question that it does not take, VerificationError for an answer that does not
    hold: another key or Verifier, another nonce, not now, not about these agents.
    """
    asked: dict[str, Any] = {"agents": list(agents), "profile": profile, "fresh": fresh}
    if nonce:
        asked["nonce"] = nonce
    if window is not None:
        asked["window"] = {"start": window[0], "end": window[1]}
    with _connected(url, context, server) as connection:
        jwks = _fetch(connection, "GET", "/jwks.json")
        token = _fetch(connection, "POST", "/appraise", orjson.dumps(asked)).decode("ascii", "replace")
    return Answer(verify(token, jwks, server.ca_pem(), server.seen, agents, now(), nonce, window), token)


def disclose(url: str, context: ssl.SSLContext, server: ExpectedServer, text: str) -> dict[str, Any]:
    """Hand a disclosure to the Verifier at `url`; what it says of it (`Reevaluation` in openapi.json).

    Raises Unanswered, UsageError for what is no URL, VerificationError for a disclosure that it does not take.
    """
    with _connected(url, context, server) as connection:
        try:
            data = _fetch(connection, "POST", "/disclosures", text.encode())
        except UsageError as e:
            raise VerificationError(str(e)) from None
    try:
        validator("Reevaluation").validate(said := strict_json.loads_object(data))
    except (FormatError, jsonschema_rs.ValidationError) as e:
        raise VerificationError(f"what the Verifier answers cannot be read: {e}") from None
    return said


@contextmanager
def _connected(url: str, context: ssl.SSLContext, server: ExpectedServer) -> Iterator[http.client.HTTPSConnection]:
    """To the Verifier that is expected. Raises Unanswered also for what goes wrong while it lasts."""
    host, port = https_address(url, "the Verifier's URL must be")
    connection = http.client.HTTPSConnection(host, port, context=context, timeout=ANSWER_S)
    try:
        connection.connect()
        server.check(connection.sock.getpeercert(True))
        yield connection
    except (OSError, http.client.HTTPException) as e:
        raise Unanswered(f"the Verifier at {url} does not answer: {why_not(e)}") from None
    finally:
        connection.close()


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
        raise UsageError(f"the Verifier does not take it: {said}")
    if answer.status == 403:
        raise VerificationError(f"the Verifier refuses: {said}")
    raise Unanswered(f"the Verifier answers {answer.status}: {said}")
