"""Salted digests of single values, in the form of SD-JWT disclosures (RFC 9901 section 4.2).

An entry holds the digests alone, in order of their value, so neither a name nor a value nor their sequence can be read
from it, and none can be guessed without its salt of 128 random bits. Whoever is given a disclosure can hash it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass

from ..formats import base64url, strict_json
from ..formats.errors import FormatError

SD = "_sd"
"""The member of `action_parameters` that holds the digests, as RFC 9901 names it."""
MAX_DISCLOSURE = 64 * 1024
_SALT_OCTETS = 16


@dataclass(frozen=True, slots=True)
class Opened:
    """What a disclosure discloses: a JSON Pointer and the value that stood there."""

    name: str
    value: strict_json.JSON


def disclosure(name: str, value: strict_json.JSON) -> str:
    """The disclosure of a value with a fresh salt: base64url of the JSON array `[salt, name, value]`."""
    salt = base64url.encode(secrets.token_bytes(_SALT_OCTETS))
    return base64url.encode(json.dumps([salt, name, value], separators=(",", ":")).encode("ascii"))


def sd_digest(text: str) -> str:
    """What stands for a disclosure in the entry: base64url of SHA-256 over its characters."""
    return base64url.encode(hashlib.sha256(text.encode("utf-8")).digest())


def open_disclosure(text: str) -> Opened:
    """Read a disclosure. Raises FormatError for what is none."""
    if len(text) > MAX_DISCLOSURE:
        raise FormatError(f"the disclosure has {len(text)} characters, more than {MAX_DISCLOSURE}")
    value = strict_json.loads(base64url.decode(text))
    if not isinstance(value, list) or len(value) != 3 or not all(isinstance(part, str) for part in value[:2]):
        raise FormatError("a disclosure is an array of salt, name and value")
    return Opened(value[1], value[2])
