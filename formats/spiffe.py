"""SPIFFE IDs (spiffe/spiffe, standards/SPIFFE-ID.md)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from .errors import FormatError

MAX_LENGTH = 2048
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}", re.ASCII)
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """`spiffe://<trust_domain>/<path>`. `path` starts with a slash and is never empty."""

    trust_domain: str
    path: str

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}{self.path}"

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """Raises FormatError unless `text` is a SPIFFE ID of a workload (non-root path)."""
        if len(text.encode("utf-8", "surrogatepass")) > MAX_LENGTH:
            raise FormatError("a SPIFFE ID has at most 2048 bytes")
        scheme, separator, rest = text.partition("://")
        if scheme != "spiffe" or not separator:
            raise FormatError(f"{text!r} is not a SPIFFE ID: it must start with spiffe://")
        trust_domain, slash, path = rest.partition("/")
        if not _TRUST_DOMAIN.fullmatch(trust_domain):
            raise FormatError(f"{text!r} has no valid trust domain (a-z, 0-9, dot, dash, underscore)")
        if not slash or not path:
            raise FormatError(f"{text!r} names a trust domain, not a workload")
        for segment in path.split("/"):
            if segment in ("", ".", "..") or not _SEGMENT.fullmatch(segment):
                raise FormatError(f"{text!r} has the path segment {segment!r}, which a SPIFFE ID cannot have")
        return cls(trust_domain, "/" + path)


def trust_domain(spiffe_id: str) -> str:
    """That of a SPIFFE ID which is known to be one."""
    return spiffe_id.removeprefix("spiffe://").partition("/")[0]


def parse_trust_domain(text: str) -> str:
    """The name in `spiffe://<trust domain>`, the SPIFFE ID of a trust domain. Raises FormatError."""
    name = text.removeprefix("spiffe://")
    if name == text or not _TRUST_DOMAIN.fullmatch(name):
        raise FormatError(f"{text!r} is not the SPIFFE ID of a trust domain: spiffe:// and a-z, 0-9, dot, dash or _")
    return name


def is_named(patterns: Iterable[str], spiffe_id: str) -> bool:
    """Whether one of them, SPIFFE IDs or with `/*` at the end for everything below, stands for this one."""
    return any(
        spiffe_id.startswith(pattern[:-1]) if pattern.endswith("/*") else spiffe_id == pattern for pattern in patterns
    )
