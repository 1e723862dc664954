"""Where somebody is asked over TLS: `https://HOST:PORT` and nothing else."""

from __future__ import annotations

from urllib.parse import urlsplit

from ..formats.errors import UsageError


def https_address(url: str, whose: str) -> tuple[str, int]:
    """Host and port. Raises UsageError that begins with `whose`."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:  # no port, no IPv6 address
        host = port = None
    else:
        if parts.scheme != "https" or parts.username or parts.query or parts.fragment or parts.path not in ("", "/"):
            host = None
    if not host or not port:
        raise UsageError(f"{whose} https://HOST:PORT, found {url!r}")
    return host, port
