"""base64url without padding (RFC 4648 section 5, RFC 7515 section 2), strict: one text for one byte string."""

from __future__ import annotations

import base64
import binascii

from .errors import FormatError


def encode(data: bytes) -> str:
    """Encode without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes:
    """Decode. Raises FormatError on padding, other characters, or bits that a second text could share."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise FormatError("not base64url") from None
    if encode(raw) != text:
        raise FormatError("not base64url in its one spelling (padding or stray bits)")
    return raw
