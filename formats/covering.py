"""Which header fields the signatures of a message cover: who adds to one of those breaks the signature.

Two kinds are read: HTTP message signatures (RFC 9421, WIMSE's profile of it too), whose `Signature-Input` lists what
they cover, and WIMSE workload proof tokens, whose claim `oth` holds hashes of other header fields by their names. The
text of the latter was not available beyond that; that a name in `oth` covers all lines of that field is our profile.

No signature is verified here: that is for whom they are meant, and who holds their keys. What cannot be read without
a doubt is an error, so that nobody can take it for covered or for not covered as he likes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import http_sf

from . import base64url, strict_json
from .errors import FormatError

SIGNATURE_INPUT, SIGNATURE = "signature-input", "signature"
PROOF = "workload-proof-token"
IDENTITY = "workload-identity-token"
SIGNED_BY = (SIGNATURE_INPUT, SIGNATURE, PROOF)
"""A message without any of these fields has no signature that covers others."""
MAX_SIGNATURES = 16
MAX_OCTETS = 16 * 1024
_NAME = re.compile(r"@?[!#$%&'*+.^_`|~0-9a-z-]+", re.ASCII)
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)

Lines = Mapping[str, Sequence[str]]
"""The lines of some fields, by their names in lower case."""


def covered_by_request(lines: Lines) -> frozenset[str]:
    """The fields of a request that its signatures cover. Raises FormatError for what is doubtful.

    `lines` are those of the fields `SIGNED_BY`.
    """
    names = set(_by_proof(lines.get(PROOF, ())))
    for name, parameters in _components(lines):
        if "req" in parameters:
            raise FormatError(f"Signature-Input covers {name!r} of a request that this message is no answer to")
        names.add(name)
    return frozenset(names)


def covered_by_response(lines: Lines) -> frozenset[str]:
    """The fields of a response that its signatures cover, without those of its request. Raises FormatError."""
    return frozenset(name for name, parameters in _components(lines) if "req" not in parameters)


def _components(lines: Lines) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Name and parameters of every component that an HTTP message signature covers."""
    inputs = _dictionary("Signature-Input", lines.get(SIGNATURE_INPUT, ()))
    signatures = _dictionary("Signature", lines.get(SIGNATURE, ()))
    if inputs.keys() != signatures.keys():
        lonely = ", ".join(sorted(inputs.keys() ^ signatures.keys()))
        raise FormatError(f"Signature-Input and Signature do not have the same labels: {lonely}")
    if len(inputs) > MAX_SIGNATURES:
        raise FormatError(f"the message has {len(inputs)} signatures, more than {MAX_SIGNATURES}")
    for label, signature in signatures.items():
        if not isinstance(signature, tuple) or not isinstance(signature[0], bytes):
            raise FormatError(f"Signature: {label} is no byte sequence")
    found = []
    for label, covered in inputs.items():
        if not isinstance(covered, tuple) or not isinstance(covered[0], list):
            raise FormatError(f"Signature-Input: {label} is no inner list of what it covers")
        for item in covered[0]:
            name, parameters = item if isinstance(item, tuple) else (item, {})
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise FormatError(f"Signature-Input: {label} covers {str(name)[:60]!r}, which is no name in lower case")
            found.append((name, parameters))
    return found


def _dictionary(field: str, lines: Sequence[str]) -> dict[str, Any]:
    """A dictionary of structured fields (RFC 9651), every key in it once."""
    text = ", ".join(lines)
    if len(text) > MAX_OCTETS:
        raise FormatError(f"{field} has {len(text)} octets, more than {MAX_OCTETS}")

    def twice(key: str, where: str) -> None:
        raise FormatError(f"{field} has {key[:60]!r} twice in a {where}")

    try:
        found = http_sf.parse(text.encode("ascii"), tltype="dictionary", on_duplicate_key=twice)
    except (http_sf.StructuredFieldError, ValueError) as e:
        raise FormatError(f"{field} is no dictionary of structured fields: {str(e)[:120]}") from None
    if lines and not found:
        raise FormatError(f"{field} is empty")
    assert isinstance(found, dict)
    return found


def _by_proof(lines: Sequence[str]) -> Iterable[str]:
    if not lines:
        return ()
    if len(lines) > 1:
        raise FormatError(f"the message has {len(lines)} Workload-Proof-Token lines, expected one")
    text = lines[0].strip()
    if len(text) > MAX_OCTETS or not _COMPACT.fullmatch(text):
        raise FormatError("Workload-Proof-Token is not three base64url parts")
    try:
        header, claims = (strict_json.loads_object(base64url.decode(part)) for part in text.split(".")[:2])
    except FormatError as e:
        raise FormatError(f"Workload-Proof-Token cannot be read: {e}") from None
    if str(header.get("typ")).lower().removeprefix("application/") != "wpt+jwt":
        raise FormatError(f"Workload-Proof-Token has the typ {header.get('typ')!r}, expected 'wpt+jwt'")
    others = claims.get("oth", {})
    if not isinstance(others, dict) or not all(_NAME.fullmatch(name) for name in others):
        raise FormatError("Workload-Proof-Token: 'oth' is no object of header names in lower case")
    return others
