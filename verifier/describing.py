"""A monitor's description as somebody holds it who has the CA's certificate and nothing else; and asking for one."""

from __future__ import annotations

import base64
import binascii
import http.client
import ssl
from collections.abc import Callable

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from ..certs.evidence_keys import EvidenceKeys, evidence_jwk
from ..certs.servers import why_not
from ..evidence import description
from ..evidence.description import Description
from ..formats import jws
from ..formats.errors import FormatError, LictorError, VerificationError
from ..formats.jws import MAX_TOKEN
from .urls import https_address

ANSWER_S = 10.0


class Unanswered(LictorError):
    """The monitor could not be asked: nothing is known."""


def verify_description(token: str, ca_pem: bytes) -> Description:
    """Verify a description by the certificate in its header. Raises VerificationError, FormatError."""
    keys = EvidenceKeys(ca_pem)
    keys.add_jwk(evidence_jwk(_certificate(parse(token)[0].header.get("x5c"))))
    return description.verify(token, keys.resolve)


def parse(token: str) -> tuple[jws.Token, Description]:
    """What a description says, nothing verified. Raises VerificationError, FormatError."""
    found = jws.parse_compact(token, typ=frozenset({description.TYP}))
    return found, description.parse(found.claims(), token)


def _certificate(x5c: object) -> bytes:
    if not isinstance(x5c, list) or len(x5c) != 1 or not isinstance(x5c[0], str):
        raise VerificationError("the description's header has no x5c with exactly one certificate")
    try:
        cert = x509.load_der_x509_certificate(base64.b64decode(x5c[0], validate=True))
    except (ValueError, binascii.Error) as e:
        raise VerificationError(f"the description's x5c is not a certificate: {e}") from None
    return cert.public_bytes(serialization.Encoding.PEM)


def ask_monitor(url: str, context: ssl.SSLContext, check_server: Callable[[bytes | None], str]) -> tuple[str, str]:
    """(the SPIFFE ID of the monitor whose API is at `url`, the description that it serves), nothing verified of it.

    `check_server` says who the server with a certificate (DER) is. Raises Unanswered, UsageError for what is no such
    URL, VerificationError for a server that is none of ours.
    """
    host, port = https_address(url, "a monitor's API is named as")
    connection = http.client.HTTPSConnection(host, port, context=context, timeout=ANSWER_S)
    try:
        connection.connect()
        monitor = check_server(connection.sock.getpeercert(True))
        connection.request("GET", "/monitor")
        answer = connection.getresponse()
        data = answer.read(MAX_TOKEN + 1)
    except (OSError, http.client.HTTPException) as e:
        raise Unanswered(f"the monitor at {url} does not answer: {why_not(e)}") from None
    finally:
        connection.close()
    said = data[:200].decode("utf-8", "replace").strip()
    if answer.status == 403:
        raise VerificationError(f"the monitor at {url} refuses: {said}")
    if answer.status != 200:
        raise Unanswered(f"the monitor at {url} answers {answer.status}: {said}")
    try:
        return monitor, data.decode("ascii")
    except UnicodeDecodeError:
        raise FormatError(f"the monitor at {url} serves no token") from None
